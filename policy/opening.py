"""From a keyring as a policy describes it to one that can be opened."""

from ktls.keyring import Keyring, SniEntry
from policy.identities import Keyring as KeyringData


def keyring_of(data: KeyringData) -> Keyring:
    """Return the keyring that a policy describes, unopened."""
    return Keyring(
        name=data.name,
        certificate=data.certificate,
        private_key=data.private_key,
        pkcs12=data.pkcs12,
        password_file=data.password_file,
        trust=data.trust,
        crl=data.crl,
        sni=tuple(SniEntry(entry.names, entry.certificate, entry.private_key) for entry in data.sni),
    )

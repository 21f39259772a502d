"""A keyring's content in an OpenSSL context."""

from collections.abc import Iterable
from contextlib import suppress

from cryptography import x509
from OpenSSL import SSL, crypto

from ktls.errors import KeyringError
from ktls.keyring import Credential, OpenKeyring

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h


def try_keyring(name: str, keyring: OpenKeyring) -> None:
    """See whether OpenSSL takes all of it: it refuses keys that are too short, and signatures that are too weak.

    Args:
        name: what errors call it.
        keyring: opened.

    Raises:
        KeyringError: it does not.
    """
    credentials = [keyring.credential, *(credential for _, credential in keyring.sni)]
    for credential in credentials:
        fill(SSL.Context(SSL.TLS_METHOD), name, keyring, credential)


def fill(context: SSL.Context, name: str, keyring: OpenKeyring, credential: Credential | None) -> None:
    """Put trust and one of the credentials into a context.

    Raises:
        KeyringError: OpenSSL refuses it.
    """
    try:
        _set_trust(context, keyring)
        if credential is not None:
            _set_credential(context, credential)
    except (SSL.Error, crypto.Error) as error:
        raise KeyringError(f"keyring {name!r}: OpenSSL refuses it: {error}") from error


def _set_trust(context: SSL.Context, keyring: OpenKeyring) -> None:
    if keyring.system:
        context.set_default_verify_paths()
    store = context.get_cert_store()
    if store is None:
        raise KeyringError("OpenSSL's context has no store of certificates")
    for anchor in keyring.anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    flags = crypto.X509StoreFlags.PARTIAL_CHAIN  # whatever is in `trust` is an anchor, self-signed or not
    for crl in keyring.crls:
        flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
        store.add_crl(crl)
    store.set_flags(flags)


def _set_credential(context: SSL.Context, credential: Credential) -> None:
    leaf, *issuers = credential.chain
    context.use_certificate(leaf)
    for issuer in issuers:
        context.add_extra_chain_cert(issuer)
    context.use_privatekey(credential.private_key)
    context.check_privatekey()


def vouched_for(certificate: x509.Certificate, anchors: Iterable[x509.Certificate], *, system: bool = True) -> bool:
    """Tell whether one of the anchors, or of the system's if they count, has issued a certificate, at whatever time."""
    context = SSL.Context(SSL.TLS_METHOD)
    if system:
        context.set_default_verify_paths()
    store = context.get_cert_store()
    if store is None:
        raise KeyringError("OpenSSL's context has no store of certificates")
    for anchor in anchors:
        with suppress(crypto.Error):  # one that OpenSSL does not understand vouches for nobody
            store.add_cert(crypto.X509.from_cryptography(anchor))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | _NO_CHECK_TIME)
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate)).verify_certificate()
    except (crypto.X509StoreContextError, crypto.Error):
        return False
    return True

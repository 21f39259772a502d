"""Who we are, whom we trust and which local user somebody is: keyrings and mappings as data. Immutable."""

from dataclasses import dataclass
from pathlib import Path

SYSTEM = "system"  # in a keyring's trust: the system's own store of trust anchors


@dataclass(frozen=True, slots=True)
class SniEntry:
    """A certificate for clients that ask for one of these names.

    Args:
        names: host names in lower case; "*." at the front stands for one label.
        certificate: PEM chain, leaf first.
        private_key: its key, PEM.
    """

    names: tuple[str, ...]
    certificate: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class Keyring:
    """Where an identity and the trust in others are kept. All paths are absolute.

    Args:
        name: what actions call it.
        certificate: PEM chain, leaf first; None for a client that shows none, or with `pkcs12`.
        private_key: its key, PEM; there when `certificate` is.
        pkcs12: both in one PKCS #12 file.
        password_file: first line opens `private_key` or `pkcs12`.
        trust: "system", or the path of a PEM file or of a directory of them.
        crl: revocation lists.
        sni: more certificates, chosen by the client's server name.
    """

    name: str
    certificate: Path | None = None
    private_key: Path | None = None
    pkcs12: Path | None = None
    password_file: Path | None = None
    trust: tuple[str, ...] = (SYSTEM,)
    crl: tuple[Path, ...] = ()
    sni: tuple[SniEntry, ...] = ()


NO_KEYRING = Keyring(SYSTEM)
"""For actions that name none: no certificate, and the system's trust."""


@dataclass(frozen=True, slots=True)
class UserMapping:
    """Which local user somebody with a certificate is.

    Args:
        identity: as those of an action's `peer_identities`.
        user: login name.
    """

    identity: str
    user: str

"""Keyrings: certificate chain, private key, trust anchors and revocation lists, from files into memory.

A keyring is opened once for each environment, whole or not at all: every problem is a `KeyringError` that names the
file and what is wrong with it. What is in the files is never shown.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key, pkcs12

from ktls.errors import KeyringError

SYSTEM = "system"
"""In `Keyring.trust`: the system's own store of trust anchors."""
MAX_FILE = 16 * 1024 * 1024
"""Bytes of one file. The system's whole store is 0.2 MiB; a public authority's revocation list may be 10 MiB."""
MAX_FILES = 4096
"""Files of one trust directory. Debian's /etc/ssl/certs has 300."""

_PEM = b"-----BEGIN "
_PEM_END = re.compile(rb"-----END [^-\n]+-----")
_CRL_BEGIN = b"-----BEGIN X509 CRL-----"

MALFORMED = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
"""What cryptography raises for files that are wrong, some of it only when it is asked for what is in them."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
"""What TLS signs with."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SniEntry:
    """A certificate for clients that ask for one of these names.

    Args:
        names: host names; "*." at the front stands for one label.
        certificate: PEM chain, leaf first.
        private_key: its key, PEM, opened with the keyring's password if it needs one.
    """

    names: tuple[str, ...]
    certificate: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class Keyring:
    """Where an identity and the trust in others are kept.

    Args:
        name: what errors call it.
        certificate: PEM chain, leaf first; None for a client that shows none, or with `pkcs12`.
        private_key: its key, PEM; there when `certificate` is.
        pkcs12: both in one PKCS #12 file.
        password_file: its first line opens `private_key` or `pkcs12`.
        trust: "system", or paths of PEM files or of directories of them.
        crl: revocation lists, PEM or DER. With any, the peer's issuer must have one.
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


@dataclass(frozen=True, slots=True, eq=False)
class Credential:
    """A certificate chain with its key.

    Args:
        chain: leaf first.
        private_key: the leaf's.
    """

    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class OpenKeyring:
    """What a keyring's files hold.

    Args:
        credential: None when the keyring has no certificate of its own.
        sni: names in lower case, and the credential for them.
        anchors: certificates to trust, without the system's.
        system: whether the system's own store is trusted as well.
        crls: revocation lists.
    """

    credential: Credential | None
    sni: tuple[tuple[tuple[str, ...], Credential], ...]
    anchors: tuple[x509.Certificate, ...]
    system: bool
    crls: tuple[x509.CertificateRevocationList, ...]


def key_problem(leaf: x509.Certificate, key: PrivateKey) -> str:
    """Say why a key does not belong to a certificate; nothing if it does."""
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        belongs = leaf.public_key().public_bytes(*spki) == key.public_key().public_bytes(*spki)
    except MALFORMED as error:
        return f"the certificate's public key is of no use: {error}"
    return "" if belongs else "is not the key of the first certificate"


def date_problem(certificate: x509.Certificate, now: datetime) -> str:
    """Say why a certificate is not valid at a time; nothing if it is."""
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    return ""


def open_keyring(keyring: Keyring) -> OpenKeyring:
    """Read and check all of a keyring's files.

    Raises:
        KeyringError: one is missing, unreadable, too big or malformed; a key does not belong to its certificate; a
            certificate of ours has expired.
    """
    reader = Reader(keyring)
    reader.password()
    return OpenKeyring(
        credential=reader.credential(),
        sni=tuple(
            (tuple(name.lower() for name in entry.names), reader.pem_credential(entry.certificate, entry.private_key))
            for entry in keyring.sni
        ),
        anchors=tuple(certificate for trusted in keyring.trust for certificate in reader.anchors(trusted)),
        system=SYSTEM in keyring.trust,
        crls=tuple(crl for path in keyring.crl for crl in reader.crls(path)),
    )


class Reader:
    """Reads the files of one keyring. Each method raises KeyringError for the first that is wrong with its file.

    Args:
        keyring: whose files they are.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def _error(self, path: Path | None, problem: str) -> KeyringError:
        place = f"{path}: " if path else ""
        return KeyringError(f"keyring {self._keyring.name!r}: {place}{problem}")

    def _read(self, path: Path) -> bytes:
        try:
            with open(path, "rb", opener=_open) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise self._error(path, "is not a file")
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            raise self._error(path, _why(error)) from error
        if len(data) > MAX_FILE:
            raise self._error(path, f"more than {MAX_FILE} bytes")
        return data

    def _parse(self, path: Path, what: str, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except MALFORMED as error:
            raise self._error(path, f"not {what}: {error}") from error

    def password(self) -> bytes | None:
        """Return what opens the private keys; None where the keyring names no file of it."""
        if self._keyring.password_file is None:
            return None
        return (self._read(self._keyring.password_file).splitlines() or [b""])[0]

    def credential(self) -> Credential | None:
        """Return the keyring's own certificate with its key; None where it has none."""
        if (path := self.own_files()) is None:
            return None
        if self._keyring.pkcs12 is not None:
            return self._checked(*self.pkcs12(path[0]), *path)
        return self.pem_credential(*path)

    def own_files(self) -> tuple[Path, Path] | None:
        """Return the files of the keyring's own certificate and key, which are one with PKCS #12."""
        keyring = self._keyring
        if keyring.pkcs12 is not None:
            if keyring.certificate or keyring.private_key:
                raise self._error(keyring.pkcs12, "give either pkcs12, or certificate and private_key")
            return keyring.pkcs12, keyring.pkcs12
        if keyring.certificate is None and keyring.private_key is None:
            return None
        if keyring.certificate is None or keyring.private_key is None:
            raise self._error(keyring.certificate or keyring.private_key, "certificate and private_key go together")
        return keyring.certificate, keyring.private_key

    def pem_credential(self, certificate: Path, private_key: Path) -> Credential:
        """Return a certificate with its key."""
        return self._checked(self.certificates(certificate), self.private_key(private_key), certificate, private_key)

    def private_key(self, path: Path) -> PrivateKey:
        """Return the key in a PEM file."""
        password = self.password()
        data = self._read(path)
        if b"ENCRYPTED" not in data:  # cryptography refuses a password that is not needed
            password = None
        elif password is None:
            raise self._error(path, "the key is encrypted and there is no password_file")
        return self._usable(path, self._parse(path, "a PEM private key", lambda: load_pem_private_key(data, password)))

    def _usable(self, path: Path, key: object) -> PrivateKey:
        if not isinstance(key, PrivateKey):
            raise self._error(path, f"a key of a kind that TLS does not use ({type(key).__name__})")
        return key

    def pkcs12(self, path: Path) -> tuple[tuple[x509.Certificate, ...], PrivateKey]:
        """Return the certificates, the leaf first, and the key in a PKCS #12 file."""
        password = self.password()
        data = self._read(path)
        key, leaf, more = self._parse(
            path, "a PKCS #12 file that opens", lambda: pkcs12.load_key_and_certificates(data, password)
        )
        if key is None or leaf is None:
            raise self._error(path, "holds no certificate with its private key")
        return (leaf, *more), self._usable(path, key)

    def _checked(
        self, chain: tuple[x509.Certificate, ...], key: PrivateKey, certificate: Path, private_key: Path
    ) -> Credential:
        if problem := key_problem(chain[0], key):
            raise self._error(private_key, f"{problem} in {certificate}")
        if problem := date_problem(chain[0], datetime.now(UTC)):
            raise self._error(certificate, problem)
        return Credential(chain, key)

    def certificates(self, path: Path) -> tuple[x509.Certificate, ...]:
        """Return the certificates in a PEM file, at least one."""
        data = self._read(path)
        if data.count(_PEM) != len(_PEM_END.findall(data)):  # cryptography leaves out the last block of a cut file
            raise self._error(path, "is cut off: a PEM block begins and does not end")
        return tuple(self._parse(path, "a PEM certificate", lambda: x509.load_pem_x509_certificates(data)))

    def anchors(self, trusted: str) -> Iterator[x509.Certificate]:
        """Read one element of `Keyring.trust`; nothing for the system's store."""
        if trusted == SYSTEM:
            return
        path = Path(trusted)
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir() raises where a directory above may not be entered
            yield from self.certificates(path)
            return
        try:
            files = sorted({entry.resolve() for entry in path.iterdir() if entry.is_file()})  # hashed names are links
        except OSError as error:
            raise self._error(path, _why(error)) from error
        if len(files) > MAX_FILES:
            raise self._error(path, f"more than {MAX_FILES} files")
        certificates = [one for file in files if _PEM in self._read(file) for one in self.certificates(file)]
        if not certificates:
            raise self._error(path, "holds no PEM certificate")
        yield from certificates

    def crls(self, path: Path) -> Iterator[x509.CertificateRevocationList]:
        """Read a file of revocation lists."""
        data = self._read(path)
        if _CRL_BEGIN not in data:
            yield self._parse(path, "a revocation list", lambda: x509.load_der_x509_crl(data))
        for block in data.split(_CRL_BEGIN)[1:]:
            pem = _CRL_BEGIN + block
            yield self._parse(path, "a revocation list", lambda pem=pem: x509.load_pem_x509_crl(pem))  # type: ignore[misc]


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a FIFO would wait for its writer


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "cannot be read: its symbolic links form a loop"
    return f"cannot be read: {error.strerror or type(error).__name__}"

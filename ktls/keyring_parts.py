"""A keyring read for people: part by part, so that what is wrong with one file hides nothing of the others.

`open_keyring` is for connections: whole or not at all. Here whatever can be read is kept, also what has expired, and
each problem is a finding with the key of the keyring that it is about.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from cryptography import x509

from ktls.errors import KeyringError
from ktls.keyring import SYSTEM, Keyring, PrivateKey, Reader

Level = Literal["error", "warning"]
Key = tuple[str | int, ...]
"""Where in a keyring, as a policy has it: ("certificate",), ("sni", 0, "private_key"), ("trust", 1)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a keyring.

    Args:
        level: an error keeps it, or connections under it, from working; a warning may be meant.
        key: what it is about.
        what: the file, and what is wrong with it.
    """

    level: Level
    key: Key
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A certificate with its key, as far as they could be read.

    Args:
        key: of the table in the keyring that names the files; empty for the keyring's own.
        names: that a client has to ask for; empty for the keyring's own.
        certificate: its file.
        private_key: its file, the same with PKCS #12.
        chain: leaf first; empty where it could not be read.
        private: the key, None where it could not be read.
    """

    key: Key
    names: tuple[str, ...]
    certificate: Path
    private_key: Path
    chain: tuple[x509.Certificate, ...]
    private: PrivateKey | None = field(repr=False)

    def at(self, name: Literal["certificate", "private_key"]) -> Key:
        """Return the key of one of the two files."""
        return (*self.key, "pkcs12" if self.certificate == self.private_key else name)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What could be read of a keyring.

    Args:
        keyring: that was read.
        held: its own certificate, if it has one, and those of `sni`.
        anchors: the certificates of each element of `trust` that could be read, by its number.
        crls: the lists of each file of `crl` that could be read, by its number.
        findings: what could not be read.
    """

    keyring: Keyring
    held: tuple[Held, ...]
    anchors: dict[int, tuple[x509.Certificate, ...]]
    crls: dict[int, tuple[x509.CertificateRevocationList, ...]]
    findings: tuple[Finding, ...]

    @property
    def system(self) -> bool:
        """Whether the system's own store of trust anchors counts."""
        return SYSTEM in self.keyring.trust

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """The anchors, without the system's."""
        return tuple(one for anchors in self.anchors.values() for one in anchors)


def read_parts(keyring: Keyring) -> Parts:
    """Read what can be read of a keyring."""
    return _PartReader(keyring).parts()


class _PartReader:
    def __init__(self, keyring: Keyring) -> None:
        self._keyring, self._reader = keyring, Reader(keyring)
        self._findings: dict[str, Finding] = {}  # by text: a password that cannot be read is in the way of many keys

    def parts(self) -> Parts:
        keyring = self._keyring
        self._try(("password_file",), self._reader.password)
        held = [one for one in (self._own(),) if one is not None]
        for number, entry in enumerate(keyring.sni):
            held.append(self._pem(("sni", number), entry.names, entry.certificate, entry.private_key))
        anchors = self._each("trust", keyring.trust, self._reader.anchors)
        crls = self._each("crl", keyring.crl, self._reader.crls)
        return Parts(keyring, tuple(held), anchors, crls, tuple(self._findings.values()))

    def _own(self) -> Held | None:
        files = self._try(("certificate",), self._reader.own_files)
        if files is None:
            return None
        if self._keyring.pkcs12 is None:
            return self._pem((), (), *files)
        chain, key = self._try(("pkcs12",), lambda: self._reader.pkcs12(files[0])) or ((), None)
        return Held((), (), *files, chain, key)

    def _pem(self, key: Key, names: tuple[str, ...], certificate: Path, private_key: Path) -> Held:
        chain = self._try((*key, "certificate"), lambda: self._reader.certificates(certificate))
        private = self._try((*key, "private_key"), lambda: self._reader.private_key(private_key))
        return Held(key, names, certificate, private_key, chain or (), private)

    def _each(
        self, key: str, files: Iterable[Path | str], read: Callable[..., Iterable[T]]
    ) -> dict[int, tuple[T, ...]]:
        found = {}
        for number, file in enumerate(files):
            several = self._try((key, number), lambda file=file: tuple(read(file)))  # type: ignore[misc]
            if several is not None:
                found[number] = several
        return found

    def _try(self, key: Key, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except KeyringError as error:
            what = error.message.removeprefix(f"keyring {self._keyring.name!r}: ")
            self._findings.setdefault(what, Finding("error", key, what))
            return None

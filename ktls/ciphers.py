"""The cipher suites we serve, one row each: names, lengths, and the kernel's struct for them.

A row says everything that differs between two suites; the rest of the code has no `if` for a cipher. Only AEAD suites
with a 16-byte tag are here, because Linux takes no others (include/uapi/linux/tls.h).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Literal

from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from ktls.errors import UsageError

HashName = Literal["sha256", "sha384"]
"""Hash of a suite's key derivation, as hashlib and OpenSSL call it."""

Aead = AESGCM | AESCCM | ChaCha20Poly1305
"""What seals and opens: ``encrypt`` and ``decrypt`` of (nonce, data, additional data)."""

REC_SEQ_LENGTH = 8
"""Bytes of a record sequence number, in the kernel's structs and in the additional data."""

_CRYPTO_INFO_HEADER = struct.Struct("=HH")  # struct tls_crypto_info: version, cipher_type, in host order


class Version(IntEnum):
    """Protocol versions, by their number on the wire (RFC 8446 section 4.2.1)."""

    TLS12 = 0x0303
    TLS13 = 0x0304

    @property
    def label(self) -> str:
        """The name people read, as OpenSSL prints it.

        >>> Version.TLS13.label
        'TLSv1.3'
        """
        return "TLSv1.2" if self is Version.TLS12 else "TLSv1.3"


class Role(Enum):
    """Which side of the handshake."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> "Role":
        """The other side.

        >>> Role.CLIENT.peer
        <Role.SERVER: 'server'>
        """
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


@dataclass(frozen=True, slots=True)
class KernelCipher:
    """One struct tls12_crypto_info_* of include/uapi/linux/tls.h. The same struct serves TLS 1.2 and 1.3.

    Args:
        name: the kernel's name, without TLS_CIPHER_.
        id: cipher_type.
        iv_length: bytes of `iv`.
        key_length: bytes of `key`.
        salt_length: bytes of `salt`, which is followed by 8 bytes of `rec_seq`.
        size: bytes of the whole; setsockopt takes no other length.
    """

    name: str
    id: int
    iv_length: int
    key_length: int
    salt_length: int
    size: int

    def pack(self, version: Version, *, iv: bytes, key: bytes, salt: bytes, rec_seq: bytes) -> bytes:
        """Lay the struct out. Its fields follow each other without padding.

        Raises:
            UsageError: a field of another length than the struct's.
        """
        wanted = (self.iv_length, self.key_length, self.salt_length, REC_SEQ_LENGTH)
        given = tuple(map(len, (iv, key, salt, rec_seq)))
        if given != wanted:
            raise UsageError(f"{self.name} takes iv, key, salt and rec_seq of {wanted} bytes, not {given}")
        return _CRYPTO_INFO_HEADER.pack(version, self.id) + iv + key + salt + rec_seq


AES_GCM_128 = KernelCipher("AES_GCM_128", 51, 8, 16, 4, 40)
AES_GCM_256 = KernelCipher("AES_GCM_256", 52, 8, 32, 4, 56)
AES_CCM_128 = KernelCipher("AES_CCM_128", 53, 8, 16, 4, 40)
CHACHA20_POLY1305 = KernelCipher("CHACHA20_POLY1305", 54, 12, 32, 0, 56)

KERNEL_CIPHERS: tuple[KernelCipher, ...] = (AES_GCM_128, AES_GCM_256, AES_CCM_128, CHACHA20_POLY1305)

_AEAD: dict[KernelCipher, Callable[[bytes], Aead]] = {
    AES_GCM_128: AESGCM,
    AES_GCM_256: AESGCM,
    AES_CCM_128: AESCCM,  # its tag is 16 bytes unless told otherwise
    CHACHA20_POLY1305: ChaCha20Poly1305,
}


@dataclass(frozen=True, slots=True)
class CipherSuite:
    """One cipher suite in one protocol version.

    Args:
        iana_name: name in IANA's registry, as in the RFCs.
        openssl_name: OpenSSL's name, which for TLS 1.3 is IANA's.
        code: the number on the wire.
        versions: the versions it can be negotiated in.
        hash_name: hash of HKDF (1.3) or of the PRF (1.2).
        key_length: bytes of a traffic key.
        fixed_iv_length: bytes of IV that the key schedule gives: the whole 12-byte nonce mask, or in TLS 1.2 with GCM
            and CCM the 4-byte salt (RFC 5288 section 3, RFC 6655 section 3).
        explicit_nonce_length: bytes of nonce sent in each record: 8 where the IV is a salt, else none.
        tag_length: bytes of authentication tag.
        kernel: the kernel's struct.
    """

    iana_name: str
    openssl_name: str
    code: int
    versions: frozenset[Version]
    hash_name: HashName
    key_length: int
    fixed_iv_length: int
    explicit_nonce_length: int
    tag_length: int
    kernel: KernelCipher

    def __str__(self) -> str:
        return self.iana_name

    @property
    def overhead(self) -> int:
        """Bytes a protected record is longer than header, content and padding, without TLS 1.3's content type."""
        return self.explicit_nonce_length + self.tag_length


def _tls13(name: str, code: int, hash_name: HashName, kernel: KernelCipher) -> CipherSuite:
    versions = frozenset({Version.TLS13})
    return CipherSuite(name, name, code, versions, hash_name, kernel.key_length, 12, 0, 16, kernel)


def _tls12(iana_name: str, openssl_name: str, code: int, hash_name: HashName, kernel: KernelCipher) -> CipherSuite:
    # RFC 7905 section 2 gives ChaCha20-Poly1305 in TLS 1.2 the nonce of TLS 1.3.
    iv, explicit = (12, 0) if kernel is CHACHA20_POLY1305 else (4, 8)
    versions = frozenset({Version.TLS12})
    return CipherSuite(iana_name, openssl_name, code, versions, hash_name, kernel.key_length, iv, explicit, 16, kernel)


# RFC 8446 appendix B.4; RFC 5288, 5289, 6655, 7251 and 7905. ECDHE-RSA with CCM was never defined.
SUITES: tuple[CipherSuite, ...] = (
    _tls13("TLS_AES_256_GCM_SHA384", 0x1302, "sha384", AES_GCM_256),
    _tls13("TLS_CHACHA20_POLY1305_SHA256", 0x1303, "sha256", CHACHA20_POLY1305),
    _tls13("TLS_AES_128_GCM_SHA256", 0x1301, "sha256", AES_GCM_128),
    _tls13("TLS_AES_128_CCM_SHA256", 0x1304, "sha256", AES_CCM_128),
    _tls12("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", 0xC02C, "sha384", AES_GCM_256),
    _tls12("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384", 0xC030, "sha384", AES_GCM_256),
    _tls12("TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", "DHE-RSA-AES256-GCM-SHA384", 0x009F, "sha384", AES_GCM_256),
    _tls12(
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        0xCCA9,
        "sha256",
        CHACHA20_POLY1305,
    ),
    _tls12(
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
        0xCCA8,
        "sha256",
        CHACHA20_POLY1305,
    ),
    _tls12(
        "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "DHE-RSA-CHACHA20-POLY1305", 0xCCAA, "sha256", CHACHA20_POLY1305
    ),
    _tls12("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256", 0xC02B, "sha256", AES_GCM_128),
    _tls12("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", 0xC02F, "sha256", AES_GCM_128),
    _tls12("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", "DHE-RSA-AES128-GCM-SHA256", 0x009E, "sha256", AES_GCM_128),
    _tls12("TLS_ECDHE_ECDSA_WITH_AES_128_CCM", "ECDHE-ECDSA-AES128-CCM", 0xC0AC, "sha256", AES_CCM_128),
    _tls12("TLS_DHE_RSA_WITH_AES_128_CCM", "DHE-RSA-AES128-CCM", 0xC09E, "sha256", AES_CCM_128),
)
"""In order of preference: 1.3 first, then by strength; CCM last, since no processor hurries it as it does GCM."""

_BY_IANA = {suite.iana_name: suite for suite in SUITES}
_BY_OPENSSL = {(suite.openssl_name, version): suite for suite in SUITES for version in suite.versions}


def by_iana(name: str) -> CipherSuite:
    """Find a suite by IANA's name.

    Raises:
        UsageError: not one of ours.

    >>> by_iana("TLS_AES_128_GCM_SHA256").key_length
    16
    """
    try:
        return _BY_IANA[name]
    except KeyError:
        known = ", ".join(_BY_IANA)
        raise UsageError(f"unknown cipher suite {name!r}", hint=f"one of {known}") from None


def by_openssl(name: str, version: Version) -> CipherSuite:
    """Find a suite by OpenSSL's name in one version.

    Raises:
        UsageError: not one of ours in that version.

    >>> by_openssl("ECDHE-RSA-AES128-GCM-SHA256", Version.TLS12).iana_name
    'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256'
    """
    try:
        return _BY_OPENSSL[name, version]
    except KeyError:
        raise UsageError(f"no cipher suite {name!r} in {version.label}") from None


def aead(suite: CipherSuite, key: bytes) -> Aead:
    """Make the suite's AEAD with a traffic key.

    Args:
        suite: the suite; its tag is 16 bytes.
        key: exactly ``suite.key_length`` bytes.

    Raises:
        UsageError: a key of another length.
    """
    if len(key) != suite.key_length:  # never show it
        raise UsageError(f"{suite} takes a key of {suite.key_length} bytes, not {len(key)}")
    return _AEAD[suite.kernel](key)

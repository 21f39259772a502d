"""What a finished handshake leaves: keys of both directions and who the peer is.

`TxKeys` and `RxKeys` are two types, so that one cannot be installed for the other. Neither shows its secrets, and
neither compares by value: an `==` on keys takes a time that depends on them.
"""

import struct
from dataclasses import dataclass, field, replace
from typing import Self

from ktls.ciphers import CipherSuite, Role, Version
from ktls.errors import UsageError
from ktls.keyschedule import hash_length, next_traffic_secret, traffic_keys

MAX_SEQUENCE = 2**64 - 1
"""Sequence numbers have 64 bits and never wrap (RFC 8446 section 5.3)."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _DirectionKeys:
    suite: CipherSuite
    version: Version
    secret: bytes | None = field(default=None, repr=False)
    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    sequence: int = 0

    def __post_init__(self) -> None:
        suite = self.suite
        if self.version not in suite.versions:
            raise UsageError(f"{suite} does not exist in {self.version.label}")
        if len(self.key) != suite.key_length or len(self.iv) != suite.fixed_iv_length:
            raise UsageError(
                f"{suite} takes a key of {suite.key_length} and an IV of {suite.fixed_iv_length} bytes, "
                f"not {len(self.key)} and {len(self.iv)}"
            )
        if self.secret is not None and len(self.secret) != hash_length(suite.hash_name):
            raise UsageError(f"{suite} has secrets of {hash_length(suite.hash_name)} bytes, not {len(self.secret)}")
        if not 0 <= self.sequence <= MAX_SEQUENCE:
            raise UsageError(f"sequence number {self.sequence} is not within 0..{MAX_SEQUENCE}")

    @classmethod
    def from_secret(cls, secret: bytes, suite: CipherSuite, *, sequence: int = 0) -> Self:
        """Make the keys of a TLS 1.3 traffic secret.

        Args:
            secret: client or server application_traffic_secret_N.
            suite: the negotiated suite.
            sequence: of the next record.
        """
        keys = traffic_keys(secret, suite)
        return cls(suite=suite, version=Version.TLS13, secret=secret, key=keys.key, iv=keys.iv, sequence=sequence)

    def updated(self) -> Self:
        """Return the keys after a KeyUpdate, which start at sequence number 0 (RFC 8446 section 7.2).

        Raises:
            UsageError: there is no secret to go on from, as always in TLS 1.2.
        """
        if self.secret is None or self.version is not Version.TLS13:
            raise UsageError(f"a {self.version.label} session without traffic secret cannot be updated")
        return type(self).from_secret(next_traffic_secret(self.secret, self.suite.hash_name), self.suite)

    def at(self, sequence: int) -> Self:
        """Return the same keys at another sequence number.

        Raises:
            UsageError: it does not fit in 64 bits.
        """
        return replace(self, sequence=sequence)

    def _crypto_info(self, explicit_nonce: bytes) -> bytes:
        kernel = self.suite.kernel
        # The kernel's nonce is salt || iv: a 12-byte IV is cut in two, a 4-byte one is the salt and the explicit
        # nonce takes iv's place. ChaCha20-Poly1305 has no salt in either version.
        nonce = self.iv + explicit_nonce
        return kernel.pack(
            self.version,
            salt=nonce[: kernel.salt_length],
            iv=nonce[kernel.salt_length :],
            key=self.key,
            rec_seq=struct.pack(">Q", self.sequence),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TxKeys(_DirectionKeys):
    """Keys that we write with.

    Args:
        suite: the negotiated suite.
        version: the negotiated version, one of the suite's.
        secret: application_traffic_secret_N in TLS 1.3, None in 1.2.
        key: traffic key, ``suite.key_length`` bytes.
        iv: ``suite.fixed_iv_length`` bytes: the 12-byte static IV, or the 4-byte salt of TLS 1.2 GCM and CCM.
        sequence: number of the next record.
        explicit_nonce: TLS 1.2 GCM and CCM only, 8 bytes: the nonce of the next record, counted up from there. It must
            be one that this key was not used with: the explicit nonce of our Finished plus one (OpenSSL starts at
            random and counts up).

    Raises:
        UsageError: a length or number that does not fit the suite.
    """

    explicit_nonce: bytes = b""

    def __post_init__(self) -> None:
        super(TxKeys, self).__post_init__()  # slots=True makes a new class, which a bare super() does not know
        if len(self.explicit_nonce) != self.suite.explicit_nonce_length:
            raise UsageError(
                f"{self.suite} takes an explicit nonce of {self.suite.explicit_nonce_length} bytes, "
                f"not {len(self.explicit_nonce)}"
            )

    def crypto_info(self) -> bytes:
        """Return the struct tls12_crypto_info_* for setsockopt(SOL_TLS, TLS_TX). It holds the key."""
        return self._crypto_info(self.explicit_nonce)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RxKeys(_DirectionKeys):
    """Keys that we read with.

    Args:
        suite: the negotiated suite.
        version: the negotiated version, one of the suite's.
        secret: application_traffic_secret_N in TLS 1.3, None in 1.2.
        key: traffic key, ``suite.key_length`` bytes.
        iv: as in `TxKeys`.
        sequence: number of the next record.

    Raises:
        UsageError: a length or number that does not fit the suite.
    """

    def crypto_info(self) -> bytes:
        """Return the struct tls12_crypto_info_* for setsockopt(SOL_TLS, TLS_RX). It holds the key."""
        # Each TLS 1.2 GCM or CCM record brings its explicit nonce, so the kernel ignores the one in the struct.
        return self._crypto_info(bytes(self.suite.explicit_nonce_length))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Session:
    """A finished handshake.

    Args:
        role: our side.
        version: negotiated.
        suite: negotiated.
        tx: keys that we write with.
        rx: keys that we read with.
        peer_chain: the peer's certificates in DER, leaf first; empty if it showed none.
        server_name: SNI, sent or received.
        alpn: the application protocol agreed on.
        resumed: whether it went on from an earlier session.
        tickets_sent: NewSessionTicket records that we wrote under the application key.
        peer_user: the local user that the peer's certificate is mapped to.

    Raises:
        UsageError: keys of another version or suite than the session's.
    """

    role: Role
    version: Version
    suite: CipherSuite
    tx: TxKeys
    rx: RxKeys
    peer_chain: tuple[bytes, ...] = field(default=(), repr=False)
    server_name: str | None = None
    alpn: str | None = None
    resumed: bool = False
    tickets_sent: int = 0
    peer_user: str | None = None

    def __post_init__(self) -> None:
        # The kernel refuses such a pair too, with an EINVAL that says nothing.
        if any((keys.version, keys.suite) != (self.version, self.suite) for keys in (self.tx, self.rx)):
            raise UsageError(f"keys that are not of {self.version.label} with {self.suite}")

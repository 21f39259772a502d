"""From secrets to keys: HKDF-Expand-Label and traffic keys of TLS 1.3, the PRF and key block of TLS 1.2.

The secrets themselves come from the TLS library that did the handshake; nothing here runs a key exchange.
"""

import hmac
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from ktls.ciphers import CipherSuite, HashName, Role
from ktls.errors import UsageError

RANDOM_LENGTH = 32
"""Bytes of client and server random."""
MASTER_SECRET_LENGTH = 48
"""Bytes of a TLS 1.2 master secret (RFC 5246 section 8.1)."""

_HASHES: dict[HashName, hashes.HashAlgorithm] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}
_MAX_VECTOR = 255  # label and context of HkdfLabel each have one byte of length


@dataclass(frozen=True, slots=True, eq=False)
class TrafficKeys:
    """Key and IV of one direction.

    Args:
        key: ``suite.key_length`` bytes.
        iv: ``suite.fixed_iv_length`` bytes.
    """

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class KeyBlock:
    """Both directions of a TLS 1.2 session.

    Args:
        client: what the client writes with.
        server: what the server writes with.
    """

    client: TrafficKeys
    server: TrafficKeys

    def written_by(self, role: Role) -> TrafficKeys:
        """Return the keys that this side writes with; the other side reads with them."""
        return self.client if role is Role.CLIENT else self.server


def hash_length(hash_name: HashName) -> int:
    """Return the hash's output in bytes, which is the length of every TLS 1.3 secret.

    >>> hash_length("sha384")
    48
    """
    return _HASHES[hash_name].digest_size


def hkdf_expand_label(secret: bytes, label: bytes, context: bytes, length: int, hash_name: HashName) -> bytes:
    """Derive from a TLS 1.3 secret (RFC 8446 section 7.1).

    Args:
        secret: of the hash's length.
        label: without its prefix ``tls13 ``.
        context: a transcript hash, or empty.
        length: bytes wanted.
        hash_name: the suite's hash.

    Raises:
        UsageError: a label, context or length that HkdfLabel or HKDF cannot hold.
    """
    full_label = b"tls13 " + label
    if len(full_label) > _MAX_VECTOR or len(context) > _MAX_VECTOR:
        raise UsageError(f"label of {len(full_label)} and context of {len(context)} bytes; each holds {_MAX_VECTOR}")
    limit = 255 * hash_length(hash_name)  # RFC 5869 section 2.3
    if not 0 < length <= limit:
        raise UsageError(f"cannot expand to {length} bytes, only to 1..{limit}")
    info = struct.pack(">HB", length, len(full_label)) + full_label + bytes([len(context)]) + context
    return HKDFExpand(_HASHES[hash_name], length, info).derive(secret)


def next_traffic_secret(secret: bytes, hash_name: HashName) -> bytes:
    """Derive application_traffic_secret_N+1, which a KeyUpdate moves to (RFC 8446 section 7.2).

    Args:
        secret: application_traffic_secret_N.
        hash_name: the suite's hash.
    """
    return hkdf_expand_label(secret, b"traffic upd", b"", hash_length(hash_name), hash_name)


def traffic_keys(secret: bytes, suite: CipherSuite) -> TrafficKeys:
    """Derive key and IV from a traffic secret (RFC 8446 section 7.3).

    Args:
        secret: a handshake or application traffic secret of one direction.
        suite: a suite of TLS 1.3.
    """
    return TrafficKeys(
        key=hkdf_expand_label(secret, b"key", b"", suite.key_length, suite.hash_name),
        iv=hkdf_expand_label(secret, b"iv", b"", suite.fixed_iv_length, suite.hash_name),
    )


def prf12(secret: bytes, label: bytes, seed: bytes, length: int, hash_name: HashName) -> bytes:
    """The pseudorandom function of TLS 1.2 (RFC 5246 section 5).

    Args:
        secret: any length; the master secret for a key block.
        label: ASCII, without a terminating zero.
        seed: any length.
        length: bytes wanted.
        hash_name: the suite's hash; SHA-256 where the suite names none.
    """
    seed = label + seed
    output = bytearray()
    step = seed  # A(0); A(i) = HMAC(secret, A(i - 1))
    while len(output) < length:
        step = hmac.digest(secret, step, hash_name)
        output += hmac.digest(secret, step + seed, hash_name)
    return bytes(output[:length])


def key_block12(master_secret: bytes, client_random: bytes, server_random: bytes, suite: CipherSuite) -> KeyBlock:
    """Derive both directions' keys of a TLS 1.2 session (RFC 5246 section 6.3).

    Args:
        master_secret: 48 bytes, the same whether or not it was derived with RFC 7627.
        client_random: 32 bytes, of this connection's ClientHello (also when it is resumed).
        server_random: 32 bytes, likewise.
        suite: an AEAD suite, so the block has no MAC keys.

    Raises:
        UsageError: an argument of the wrong length.
    """
    lengths = (len(master_secret), len(client_random), len(server_random))
    if lengths != (MASTER_SECRET_LENGTH, RANDOM_LENGTH, RANDOM_LENGTH):
        raise UsageError(f"master secret and randoms of {lengths} bytes, not (48, 32, 32)")
    key, iv = suite.key_length, suite.fixed_iv_length
    # The randoms are the other way round than in the master secret's own derivation.
    block = prf12(master_secret, b"key expansion", server_random + client_random, 2 * (key + iv), suite.hash_name)
    keys, ivs = block[: 2 * key], block[2 * key :]
    return KeyBlock(
        client=TrafficKeys(key=keys[:key], iv=ivs[:iv]),
        server=TrafficKeys(key=keys[key:], iv=ivs[iv:]),
    )

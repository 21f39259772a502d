"""TLS records: framing, and protection with an AEAD, in TLS 1.2 and 1.3.

1. `RecordReader` cuts a byte stream into records. Its `want` is the most that may be read next without taking a byte of
   the record after: what stays in the socket the kernel can still decrypt (trap 3 of docs/design.md).
2. `RecordProtection` seals and opens, as the kernel does it (net/tls/tls_sw.c):

                          nonce                           additional data                       on the wire
   TLS 1.3                IV xor sequence                 header (type 23, length of all)       header, ciphertext, tag
   TLS 1.2 ChaCha20       IV xor sequence                 sequence, type, version, plain length header, ciphertext, tag
   TLS 1.2 GCM, CCM       salt || explicit nonce          the same                              header, explicit, ...

3. No socket and no clock here, and every record of any bytes is a value or a ProtocolError.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from cryptography.exceptions import InvalidTag

from ktls.ciphers import Version, aead
from ktls.errors import BadRecord, ProtocolError, RecordOverflow, UsageError
from ktls.session import MAX_SEQUENCE, RxKeys, TxKeys

HEADER_LENGTH = 5
"""Bytes of type, version and length."""
MAX_PLAINTEXT = 16384
"""Bytes of content in one record (RFC 8446 section 5.1)."""
MAX_CIPHERTEXT = {Version.TLS12: MAX_PLAINTEXT + 2048, Version.TLS13: MAX_PLAINTEXT + 256}
"""Bytes of a protected record behind its header (RFC 5246 section 6.2.3, RFC 8446 section 5.2)."""

_HEADER = struct.Struct(">BHH")
_AAD12 = struct.Struct(">QBHH")
_MAJOR = 3  # all of SSL 3.0 to TLS 1.3 have it as the version's first byte


class ContentType(IntEnum):
    """What a record holds (RFC 8446 section 5.1). Heartbeat, 24, is nothing we offer."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The first five bytes.

    Args:
        content_type: in TLS 1.3, APPLICATION_DATA for everything protected.
        version: 0x0303 in all but the first ClientHello, which may say 0x0301; TLS 1.3 says 0x0303 too.
        length: bytes behind the header.
    """

    content_type: ContentType
    version: int
    length: int

    @classmethod
    def parse(cls, data: bytes, limit: int = MAX_CIPHERTEXT[Version.TLS12]) -> "RecordHeader":
        """Read the first five bytes of `data`.

        Args:
            data: at least five bytes; more is not looked at.
            limit: the greatest length to accept, in bytes; from `MAX_CIPHERTEXT` once the version is known.

        Raises:
            RecordOverflow: a length above the limit.
            ProtocolError: fewer than five bytes, or not a TLS record's.

        >>> RecordHeader.parse(bytes.fromhex("1603030010"))
        RecordHeader(content_type=<ContentType.HANDSHAKE: 22>, version=771, length=16)
        """
        if len(data) < HEADER_LENGTH:
            raise ProtocolError(f"a record header of {len(data)} bytes, not {HEADER_LENGTH}")
        number, version, length = _HEADER.unpack_from(data)
        content_type = _content_type(number)
        if version >> 8 != _MAJOR:
            raise ProtocolError(f"a record of version {version:#06x}, which is not TLS")
        if length > limit:
            raise RecordOverflow(f"a record of {length} bytes, more than {limit}")
        return cls(content_type, version, length)

    def pack(self) -> bytes:
        """Return the five bytes.

        >>> RecordHeader(ContentType.ALERT, 0x0303, 2).pack().hex()
        '1503030002'
        """
        return _HEADER.pack(self.content_type, self.version, self.length)


def _content_type(number: int) -> ContentType:
    try:
        return ContentType(number)
    except ValueError:
        raise ProtocolError(f"a record of type {number}, not one of 20..23") from None


class RecordReader:
    """Cuts a byte stream into records: feed it what was read, take records until there is none, read `want` more.

    A reader that raised goes on raising the same error.

    >>> reader = RecordReader()
    >>> reader.feed(bytes.fromhex("1503030002"))
    >>> reader.next_record(), reader.want
    (None, 2)
    >>> reader.feed(b"\\x01\\x00")
    >>> reader.next_record().hex()
    '15030300020100'
    """

    def __init__(self, limit: int = MAX_CIPHERTEXT[Version.TLS12]) -> None:
        """Start at a record's first byte; `limit` is the greatest length behind a header, in bytes."""
        self.limit = limit
        self._buffer = bytearray()

    @property
    def want(self) -> int:
        """Bytes up to the end of the header, or of the record, that is being read; 0 if there is something to take."""
        have = len(self._buffer)
        if have < HEADER_LENGTH:
            return HEADER_LENGTH - have
        try:
            needed = self._needed()
        except ProtocolError:
            return 0  # next_record() tells
        return max(0, needed - have)

    @property
    def between_records(self) -> bool:
        """Whether no record has been begun: an end of file here cuts none in two."""
        return not self._buffer

    def feed(self, data: bytes) -> None:
        """Add what was read. It is kept until taken, so whoever reads no more than `want` bounds it to one record."""
        self._buffer += data

    def next_record(self) -> bytes | None:
        """Take the next whole record, header and all.

        Returns:
            None while it is not all there.

        Raises:
            ProtocolError: what comes is no TLS record, or too long. Told as soon as its header is there.
        """
        if len(self._buffer) < HEADER_LENGTH:
            return None
        needed = self._needed()
        if len(self._buffer) < needed:
            return None
        record = bytes(self._buffer[:needed])
        del self._buffer[:needed]
        return record

    def _needed(self) -> int:
        return HEADER_LENGTH + RecordHeader.parse(bytes(self._buffer[:HEADER_LENGTH]), self.limit).length


@dataclass(frozen=True, slots=True)
class Plaintext:
    """An opened record.

    Args:
        content_type: in TLS 1.3 the inner, true one.
        data: its content without padding; not shown, it is the user's.
    """

    content_type: ContentType
    data: bytes = field(repr=False)


class RecordProtection:
    """Seals with `TxKeys`, or opens with either: with our own to prove that the TLS library wrote with them."""

    def __init__(self, keys: TxKeys | RxKeys) -> None:
        """Start at the keys' sequence number. The keys are not changed; `sequence` tells how far it went."""
        self.suite = keys.suite
        self.version = keys.version
        self.sequence = keys.sequence
        """Number of the next record. Above `MAX_SEQUENCE` there is none: the keys are used up."""
        self._iv = keys.iv
        self._aead = aead(keys.suite, keys.key)
        self._can_seal = isinstance(keys, TxKeys)
        self._explicit_nonce = int.from_bytes(keys.explicit_nonce) if isinstance(keys, TxKeys) else 0

    def seal(self, content_type: ContentType, data: bytes, *, padding: int = 0) -> bytes:
        """Make the next record.

        Args:
            content_type: what `data` is.
            data: at most 16384 bytes.
            padding: zero bytes to hide its length behind, in TLS 1.3 only.

        Returns:
            The whole record, header first.

        Raises:
            UsageError: too much data, padding that does not fit, keys to read with, or keys used up.
        """
        if not self._can_seal:
            raise UsageError("keys to read with cannot seal")
        if len(data) + padding > MAX_PLAINTEXT or padding < 0:
            raise UsageError(f"{len(data)} bytes and {padding} of padding; a record holds {MAX_PLAINTEXT}")
        self._check_sequence()
        if self.version is Version.TLS13:
            record = self._seal13(content_type, data, padding)
        elif padding:
            raise UsageError("TLS 1.2 records of an AEAD have no padding")
        else:
            record = self._seal12(content_type, data)
        self.sequence += 1
        return record

    def open(self, record: bytes) -> Plaintext:
        """Open the next record.

        Args:
            record: all of it and nothing else, as `RecordReader` gives it.

        Raises:
            BadRecord: it was not sealed with these keys under this number, or not at all. Nothing of it is given.
            RecordOverflow: it, or its content, is too long.
            ProtocolError: it is malformed.
            UsageError: the keys are used up.

        After an error the sequence number stands where it was.
        """
        header = RecordHeader.parse(record, MAX_CIPHERTEXT[self.version])
        body = record[HEADER_LENGTH:]
        if len(body) != header.length:
            raise ProtocolError(f"a record that says {header.length} bytes and has {len(body)}")
        if header.version != Version.TLS12:
            raise ProtocolError(f"a protected record of version {header.version:#06x}, not 0x0303")
        if header.length < self.suite.overhead:
            raise BadRecord(f"a record of {header.length} bytes is too short to be protected with {self.suite}")
        self._check_sequence()
        opened = self._open13(header, body) if self.version is Version.TLS13 else self._open12(header, body)
        self.sequence += 1
        return opened

    def _check_sequence(self) -> None:
        if self.sequence > MAX_SEQUENCE:
            raise UsageError("the last sequence number is used; new keys are due")

    def _masked_iv(self) -> bytes:
        return (int.from_bytes(self._iv) ^ self.sequence).to_bytes(len(self._iv))

    def _seal13(self, content_type: ContentType, data: bytes, padding: int) -> bytes:
        inner = data + bytes([content_type]) + bytes(padding)
        length = len(inner) + self.suite.tag_length
        header = RecordHeader(ContentType.APPLICATION_DATA, Version.TLS12, length).pack()
        return header + self._aead.encrypt(self._masked_iv(), inner, header)

    def _open13(self, header: RecordHeader, body: bytes) -> Plaintext:
        if header.content_type is not ContentType.APPLICATION_DATA:
            raise ProtocolError(f"a TLS 1.3 record of type {header.content_type:d} in clear among protected ones")
        inner = self._decrypt(self._masked_iv(), body, header.pack())
        if len(inner) > MAX_PLAINTEXT + 1:
            raise RecordOverflow(f"{len(inner)} bytes of content, type and padding, more than {MAX_PLAINTEXT + 1}")
        content = inner.rstrip(b"\0")
        if not content:
            raise ProtocolError("a TLS 1.3 record of nothing but padding")
        content_type, data = _content_type(content[-1]), content[:-1]
        if content_type is ContentType.CHANGE_CIPHER_SPEC:
            raise ProtocolError("a change_cipher_spec in a protected TLS 1.3 record")  # RFC 8446 section 5
        if not data and content_type is not ContentType.APPLICATION_DATA:
            raise ProtocolError(f"an empty TLS 1.3 record of type {content_type:d}")  # RFC 8446 section 5.4
        return Plaintext(content_type, data)

    def _nonce12(self, explicit: bytes) -> bytes:
        return self._iv + explicit if self.suite.explicit_nonce_length else self._masked_iv()

    def _seal12(self, content_type: ContentType, data: bytes) -> bytes:
        explicit = self._explicit_nonce.to_bytes(8)[: self.suite.explicit_nonce_length]
        self._explicit_nonce = (self._explicit_nonce + 1) & MAX_SEQUENCE  # it started anywhere, so it may wrap
        header = RecordHeader(content_type, Version.TLS12, len(data) + self.suite.overhead)
        aad = _AAD12.pack(self.sequence, content_type, Version.TLS12, len(data))
        return header.pack() + explicit + self._aead.encrypt(self._nonce12(explicit), data, aad)

    def _open12(self, header: RecordHeader, body: bytes) -> Plaintext:
        explicit = body[: self.suite.explicit_nonce_length]
        length = header.length - self.suite.overhead
        if length > MAX_PLAINTEXT:
            raise RecordOverflow(f"{length} bytes of content, more than {MAX_PLAINTEXT}")
        aad = _AAD12.pack(self.sequence, header.content_type, header.version, length)
        data = self._decrypt(self._nonce12(explicit), body[self.suite.explicit_nonce_length :], aad)
        return Plaintext(header.content_type, data)

    def _decrypt(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        try:
            return self._aead.decrypt(nonce, ciphertext, aad)
        except InvalidTag:
            raise BadRecord(f"record {self.sequence} does not decrypt with {self.suite}") from None

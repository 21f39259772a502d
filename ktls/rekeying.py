"""Our own KeyUpdate on a relayed connection (RFC 8446 section 4.6.3), which pyOpenSSL cannot be asked for.

OpenSSL seals what we send until the first KeyUpdate of ours, and what it writes is counted here: record by record, so
that the next one's number and keys are known. From that KeyUpdate on we seal ourselves, with keys that OpenSSL does not
have. It still reads, and answers the peer's KeyUpdates and breaks: what it writes then is opened with the keys that it
believes in, and sealed again with ours. `RecordProtection` refuses to open what it does not understand, so a count that
went wrong ends the connection and never sends garbage.
"""

from ktls.ciphers import Version
from ktls.errors import UsageError
from ktls.records import HEADER_LENGTH, MAX_PLAINTEXT, ContentType, RecordProtection
from ktls.session import TxKeys

KEY_UPDATE = 24
"""HandshakeType (RFC 8446 section 4)."""
_LENGTH = 5  # bytes of a KeyUpdate message


class Sending:
    """Our direction of a session that OpenSSL established.

    Args:
        keys: of the next record.
    """

    __slots__ = ("_mine", "_mine_keys", "_theirs", "_theirs_keys", "records")

    def __init__(self, keys: TxKeys) -> None:
        self._theirs_keys = keys  # OpenSSL's
        self._theirs = RecordProtection(keys)
        self._mine_keys: TxKeys | None = None
        self._mine: RecordProtection | None = None  # there once OpenSSL's are not the connection's any more
        self.records = 0
        """Sealed with the present keys."""

    @property
    def can_update(self) -> bool:
        """Whether the session knows KeyUpdate: TLS 1.3."""
        return self._theirs_keys.version is Version.TLS13

    @property
    def ours(self) -> bool:
        """Whether clear text is to be sealed here, by `seal`."""
        return self._mine is not None

    def update(self) -> bytes:
        """Return a KeyUpdate that asks for the peer's. What is sealed after it has new keys.

        Raises:
            UsageError: the session is not of TLS 1.3.
        """
        if not self.can_update:
            raise UsageError("TLS 1.2 has no KeyUpdate")
        if self._mine is None:
            self._mine_keys = self._theirs_keys
            self._mine = RecordProtection(self._theirs_keys.at(self._theirs.sequence))
        return self._update(request=True)

    def seal(self, clear: memoryview) -> bytes:
        """Return records that carry `clear`, once `ours`."""
        parts = (bytes(clear[at : at + MAX_PLAINTEXT]) for at in range(0, len(clear), MAX_PLAINTEXT))
        return b"".join(self._sealed(ContentType.APPLICATION_DATA, part) for part in parts)

    def passed(self, records: bytes) -> bytes:
        """Return what is to be sent in place of what OpenSSL has written: whole records.

        Raises:
            PeerError: a record is not the one that was to come.
        """
        out, at = [], 0
        while at < len(records):
            end = at + HEADER_LENGTH + int.from_bytes(records[at + 3 : at + HEADER_LENGTH])
            out.append(self._passed(records[at:end]))
            at = end
        return records if self._mine is None else b"".join(out)

    def _passed(self, record: bytes) -> bytes:
        if not self.ours and not self._may_be_update(record):
            self._theirs.sequence += 1
            self.records += 1
            return record
        plain = self._theirs.open(record)
        update = plain.content_type is ContentType.HANDSHAKE and plain.data[:1] == bytes([KEY_UPDATE])
        if update:
            self._theirs_keys = self._theirs_keys.updated()
            self._theirs = RecordProtection(self._theirs_keys)
        if self._mine is None:
            self.records = 0 if update else self.records + 1
            return record
        return self._update(request=False) if update else self._sealed(plain.content_type, plain.data)

    def _may_be_update(self, record: bytes) -> bool:
        """Its content is hidden, but not its length: only records of this one need a look."""
        suite = self._theirs.suite
        return self.can_update and len(record) == HEADER_LENGTH + _LENGTH + 1 + suite.tag_length

    def _sealed(self, content_type: ContentType, data: bytes) -> bytes:
        if self._mine is None:
            raise UsageError("OpenSSL seals this direction")
        self.records += 1
        return self._mine.seal(content_type, data)

    def _update(self, *, request: bool) -> bytes:
        record = self._sealed(ContentType.HANDSHAKE, bytes((KEY_UPDATE, 0, 0, 1, request)))
        if self._mine_keys is not None:
            self._mine_keys = self._mine_keys.updated()
            self._mine = RecordProtection(self._mine_keys)
        self.records = 0
        return record

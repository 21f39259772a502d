"""The relay engine, sans-IO: a finished handshake's connection goes on in user space. `ktls.pump` moves the bytes.

Nothing here holds a socket or a clock. Records, tickets, KeyUpdate and alerts are OpenSSL's business; ours is to feed
it in large pieces, to bound what it may hold, and to say how each direction ended.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from OpenSSL import SSL

from ktls.errors import KtlsError, PeerAlert, PeerError, ProtocolError
from ktls.rekeying import Sending
from ktls.session import TxKeys

CHUNK = 65536
"""Bytes read at once: four full records."""
MAX_HELD = 256 * 1024
"""Bytes a direction may hold, records or clear text alike. Tests assert it; by design it is never reached."""
HELD_PAUSE = 2 * CHUNK
"""Above this much unsent towards the peer its records are not read: a flood of KeyUpdates cannot fill our memory."""
RECORD = 16384
"""Clear text of the longest record (RFC 8446 section 5.1)."""
PIECES = 1024
"""What one sendmsg() takes (UIO_MAXIOV, include/uapi/linux/uio.h); a chunk can hold more records, of a byte each."""


class Mark(IntEnum):
    """What the end of file at A means, as R's TCP_SYNCNT: an option that does nothing once a connection stands."""

    NONE = 125
    """No end yet; or, if A has ended all the same, it was cut off: ECONNRESET."""
    BROKEN = 126
    """A record that cannot be what the peer sent: EPROTO."""
    CLEAN = 127
    """close_notify, or an end of file that the rule lets pass for one."""


class Way(Enum):
    """One direction: open, its last bytes on their way, or over."""

    OPEN = auto()
    ENDING = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """How a relayed connection ended.

    Args:
        error: None when both directions ended as they should.
        bytes_in: clear text from the peer.
        bytes_out: clear text to the peer.
    """

    error: KtlsError | None
    bytes_in: int
    bytes_out: int


class RelayCore:
    """One session: clear text to records and records to clear text.

    Args:
        connection: the handshake's connection, on memory BIOs, handshake done.
        keys: what it sends with, from the next record on; None where no KeyUpdate of ours will be wanted.
        first: is shown the first bytes to send, before anything becomes of them; a KtlsError ends the session.
    """

    __slots__ = ("_connection", "_first", "broken", "ended", "sending")

    def __init__(
        self,
        connection: SSL.Connection,
        keys: TxKeys | None = None,
        first: Callable[[memoryview], None] | None = None,
    ) -> None:
        self._connection, self._first = connection, first
        self.sending = None if keys is None else Sending(keys)
        """Counts records; tells whether the keys can be changed."""
        self.ended = False
        """The peer has sent close_notify; nothing after it counts."""
        self.broken: PeerError | None = None
        """PeerAlert or ProtocolError, when the peer's direction broke after what has been returned."""

    def seal(self, clear: memoryview) -> bytes:
        """Return records that carry `clear`.

        Raises:
            ProtocolError: the session cannot send any more.
            KtlsError: `first` objects.
        """
        if self._first is not None:
            first, self._first = self._first, None
            first(clear)
        if self.sending is not None and self.sending.ours:
            return self.sending.seal(clear)
        try:
            self._connection.sendall(clear)
        except SSL.Error as error:
            raise ProtocolError(f"the session cannot send: {error!r}") from error
        return self._written()

    def seal_end(self) -> bytes:
        """Return the records that end our direction: close_notify. The other direction goes on."""
        try:
            self._connection.shutdown()
        except SSL.Error:  # the session broke before, and that error has been reported
            return b""
        return self.pending()

    def open(self, records: memoryview) -> list[bytes]:
        """Return the clear text of the whole records among what has come so far, in at most PIECES pieces.

        Sets `ended` at close_notify, and `broken` at a broken record or a fatal alert.
        """
        connection = self._connection
        clear: list[bytes] = []
        if self.ended or self.broken:
            return clear
        if records:
            connection.bio_write(records)
        try:
            while True:
                clear.append(connection.recv(RECORD))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            alerted = connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN  # so OpenSSL notes fatal alerts too
            failure = PeerAlert if alerted else ProtocolError
            self.broken = failure(f"the peer's stream broke off: {error!r}")
        return clear if len(clear) <= PIECES else [b"".join(clear)]

    def update_keys(self) -> bytes:
        """Return a KeyUpdate that asks for the peer's; nothing where the session has none."""
        return self.sending.update() if self.sending is not None and self.sending.can_update else b""

    def pending(self) -> bytes:
        """Return what OpenSSL has to say to the peer by itself: alerts, answers to KeyUpdate. Sets `broken`."""
        try:
            return self._written()
        except ProtocolError as error:
            self.broken = error
            return b""

    def _written(self) -> bytes:
        try:
            records = self._connection.bio_read(MAX_HELD)
        except SSL.WantReadError:
            return b""
        return records if self.sending is None else self.sending.passed(records)

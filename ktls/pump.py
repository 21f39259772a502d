"""The relay engine's I/O: bytes between B (our end of the gate, clear text) and R (the TCP socket, records).

Theory of operation
1. Bounded: a direction reads only when what it read before has left. It holds one chunk, and on the way out the answers
   OpenSSL gives to control records.
2. R's O_NONBLOCK belongs to the program: every call says MSG_DONTWAIT. Readiness is edge-triggered (ktls/poller.py).
3. Ends. The program's end of file becomes close_notify and FIN; the other direction goes on. The peer's end becomes
   end of file at A, by shutdown(B, SHUT_WR) or by closing B. AF_UNIX has one end of file for all of these, so what it
   means is noted on R, where whoever holds A finds it (Mark): an end without a mark was cut off, by the peer or by the
   death of this process. Nothing else would do: B's name cannot be changed, and once both ends have been shut
   nobody can tell whether the other is still there.
4. In order, or a RST eats the tail: close_notify, shutdown(SHUT_WR), read R to its end (bounded in time), close. With
   SO_LINGER and no seconds what is not out is dropped; where something was left unread TCP resets, after the rest.
"""

from asyncio import TimerHandle
from collections.abc import Callable
from contextlib import suppress
from socket import IPPROTO_TCP, MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_RD, SHUT_RDWR, SHUT_WR, TCP_SYNCNT, socket
from typing import Concatenate, ParamSpec

from ktls.closing import aborts, close_tcp, hung_up, reset_when_out, shut
from ktls.errors import InternalFault, KtlsError, PeerClosed, ProtocolError, Truncated
from ktls.poller import END, GONE, IN, OUT, Poller
from ktls.relay import CHUNK, HELD_PAUSE, Mark, RelayCore, RelayEnd, Way

ROUNDS = 8
"""Chunks moved each way before others get their turn."""
LINGER = 5.0
"""Seconds: once the program is gone, the peer must take something, or end its direction, this often."""

_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL
_NOTHING = memoryview(b"")
_P = ParamSpec("_P")


def _entry(turn: Callable[Concatenate["Pump", _P], None]) -> Callable[Concatenate["Pump", _P], None]:
    """The boundary is total: what nobody foresaw ends the connection as cut off, and goes on to whoever tells of it."""

    def guarded(pump: "Pump", /, *arguments: _P.args, **named: _P.kwargs) -> None:
        try:
            turn(pump, *arguments, **named)
        except Exception as error:
            pump.fail(InternalFault(f"{type(error).__name__} in the relay"))
            raise

    return guarded


class Pump:
    """Relay one connection until both ends are done. Owns both sockets and closes them at the end.

    To be made before the gate opens, and started after it.

    Args:
        core: of a connection whose handshake is done.
        inside: B; its filler must be drained when the pump starts.
        outside: R.
        poller: who tells what is ready.
        call_later: asyncio's; takes seconds and what to do then.
        strict: end of file without close_notify is an error.
        finished: called once, when both sockets are closed.
    """

    def __init__(
        self,
        core: RelayCore,
        inside: socket,
        outside: socket,
        *,
        poller: Poller,
        call_later: Callable[[float, Callable[[], None]], TimerHandle],
        strict: bool,
        finished: Callable[[RelayEnd], None],
    ) -> None:
        self._core = core
        self._inside, self._outside = inside, outside
        self._poller, self._call_later = poller, call_later
        self._strict, self._finished = strict, finished
        self._out = self._in = Way.OPEN  # program to peer, peer to program
        self._to_peer = self._to_program = _NOTHING
        self._inside_readable = self._outside_readable = self._inside_writable = self._outside_writable = True
        self._inside_ended = self._outside_ended = False  # an end of file lies behind what can be read
        self._program_gone = self._program_deaf = False  # no copy of A is left; nobody reads A
        self._unread = False  # the program went without reading all there was: TCP resets
        self._peer_at_end = self._peer_lost = False  # end of file came; TCP failed
        self._cut = False  # the peer's direction broke off: no mark says that it ended well
        self._broken = False  # the session is of no use: both directions are over
        self._queued = self._closed = False
        self._error: KtlsError | None = None
        self._lingering: TimerHandle | None = None
        self.bytes_in = self.bytes_out = 0
        self._mark(Mark.NONE)  # already here: from the opening of the gate on, our death must not look like an end

    @property
    def held(self) -> tuple[int, int]:
        """Bytes held now: towards the peer, towards the program."""
        return len(self._to_peer), len(self._to_program)

    @_entry
    def start(self) -> None:
        """Begin to pump. What OpenSSL already holds goes first."""
        self._poller.add(self._inside.fileno(), IN | END, self._on_inside)
        self._poller.add(self._outside.fileno(), IN | OUT | END, self._on_outside)
        self._open(_NOTHING)
        self._pump()

    def stop(self, mark: Mark = Mark.NONE) -> None:
        """End both directions now: close_notify to the peer, and to the program what `mark` says."""
        if not self._closed:
            self._mark(mark)
            self._send_to_peer(self._core.seal_end())
            self._finish()

    def close(self) -> None:
        """End both directions in order: what the program has written goes out first, and then nobody waits for long."""
        if not self._closed:
            self._strict = False  # we asked for the end, however it comes
            shut(self._inside, SHUT_RD)
            self._on_inside(IN | END)
            self._call_later(LINGER, lambda: self.stop(Mark.CLEAN))

    def fail(self, error: KtlsError) -> None:
        """End it at once; neither end is told that this is a good one."""
        self._error = error
        if not self._closed:
            self._finish()

    def update_keys(self) -> None:
        """Go on under new keys, where the session can."""
        if self._out is Way.OPEN:
            self._send_to_peer(self._core.update_keys())

    # --- turns ---------------------------------------------------------------------------------------------------

    @_entry
    def _on_inside(self, events: int) -> None:
        if events & (IN | END | GONE):
            self._inside_readable = True
            self._inside_ended |= bool(events & (END | GONE))
        self._inside_writable |= bool(events & OUT)
        if events & GONE and not self._program_gone:
            self._program_gone = self._program_deaf = True
            if aborts(self._outside):
                self._finish()
                return
            self._unread = bool(self._to_program)
            self._linger(self.bytes_out - len(self._to_peer))
        self._pump()

    @_entry
    def _on_outside(self, events: int) -> None:
        if events & (IN | END | GONE):
            self._outside_readable = True
            self._outside_ended |= bool(events & (END | GONE))
        self._outside_writable |= bool(events & (OUT | GONE))
        self._pump()

    @_entry
    def _again(self) -> None:
        self._queued = False
        self._pump()

    def _pump(self) -> None:
        for _ in range(ROUNDS):
            if self._closed or not (self._move_out() | self._move_in()):
                break
        else:
            if not self._queued:
                self._queued = True
                self._poller.again(self._again)
        if not self._closed:
            self._settle()

    def _settle(self) -> None:
        """Pass on the ends that have nothing more before them."""
        if self._program_gone and aborts(self._outside):
            self._finish()
            return
        if self._out is Way.ENDING and not self._to_peer and self._unread:
            self._out, self._program_gone = Way.ENDED, True  # the event may still be on its way
            reset_when_out(self._outside, self._call_later, self._finish)
            return
        if self._out is Way.ENDING and not self._to_peer:
            self._out = Way.ENDED
            shut(self._outside, SHUT_WR)
        if self._in is Way.ENDING and not self._to_program:
            self._in = Way.ENDED
            if not self._cut:
                self._mark(Mark.CLEAN)
            shut(self._inside, SHUT_RDWR if self._peer_lost else SHUT_WR)
        if self._program_gone and self._out is Way.ENDED and self._peer_at_end:
            self._finish()

    # --- program to peer -----------------------------------------------------------------------------------------

    def _move_out(self) -> bool:
        if self._broken:
            return self._swallow()
        if self._to_peer:
            if not self._outside_writable:
                return False
            rest, self._to_peer = self._to_peer, _NOTHING
            self._send_to_peer(rest)
            if self._to_peer:
                return False
        if self._out is not Way.OPEN or not self._inside_readable:
            return False
        scratch = self._poller.scratch
        try:
            count = self._inside.recv_into(scratch, CHUNK, _FLAGS)
        except BlockingIOError:
            self._inside_readable = False
            return False
        except ConnectionResetError:  # A was closed with something unread: the peer's, or just the agent's verdict
            self._unread, count = self.bytes_in > 0, 0
        if count == 0 and aborts(self._outside) and hung_up(self._inside):  # the event is still on its way
            self._program_gone = self._program_deaf = True
            self._out = Way.ENDED
            return False
        if count == 0:
            self._out = Way.ENDING
            if not self._unread:
                self._send_to_peer(self._core.seal_end())
            return True
        self._inside_readable = count == CHUNK or self._inside_ended
        self.bytes_out += count
        try:
            self._send_to_peer(self._core.seal(scratch[:count]))
        except KtlsError as error:
            self._break(error)
        return True

    def _swallow(self) -> bool:
        """As over TCP, a program that writes before it has read of the break is told by its second write."""
        if self._in is Way.ENDED and self._inside_readable:
            self._inside_readable = False
            with suppress(BlockingIOError, ConnectionResetError):
                if self._inside.recv_into(self._poller.scratch, CHUNK, _FLAGS):
                    shut(self._inside, SHUT_RDWR)
        return False

    def _send_to_peer(self, records: bytes | memoryview) -> None:
        if not records or self._out is Way.ENDED:
            return
        if self._to_peer:  # answers to control records, behind what waits
            self._to_peer = memoryview(b"".join((self._to_peer, records)))
            return
        try:
            sent = self._outside.send(records, _FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose_peer(error)
            return
        if sent < len(records):
            self._outside_writable = False
            self._to_peer = memoryview(records)[sent:]

    # --- peer to program -----------------------------------------------------------------------------------------

    def _move_in(self) -> bool:
        if self._to_program:
            if not (self._inside_writable or self._program_deaf):
                return False
            rest, self._to_program = self._to_program, _NOTHING
            self._send_to_program([rest], len(rest))
            if self._to_program:
                return False
            if not self._program_gone:
                self._poller.change(self._inside.fileno(), IN | END)
        if self._peer_at_end or not self._outside_readable or len(self._to_peer) > HELD_PAUSE:
            return False
        if self._in is not Way.OPEN and not (self._out is Way.ENDED or self._outside_ended):
            return False  # nothing counts after close_notify; it is read away only to close in order
        scratch = self._poller.scratch
        try:
            count = self._outside.recv_into(scratch, CHUNK, _FLAGS)
        except BlockingIOError:
            self._outside_readable = False
            return False
        except OSError as error:
            self._lose_peer(error)
            return True
        if count == 0:
            self._peer_at_end = True
            if self._in is Way.OPEN:
                self._in = Way.ENDING
                if self._strict and not self._program_gone:  # else there is nobody to be misled
                    self._cut = True
                    self._error = Truncated("the peer ended the connection without close_notify")
            return True
        self._outside_readable = count == CHUNK or self._outside_ended
        self._open(scratch[:count])
        return True

    def _open(self, records: memoryview) -> None:
        if self._in is not Way.OPEN:
            return
        clear = self._core.open(records)
        self._send_to_peer(self._core.pending())
        if clear:
            size = sum(map(len, clear))
            self.bytes_in += size
            self._send_to_program(clear, size)
        if self._core.ended:
            self._in = Way.ENDING
        elif self._core.broken:
            self._break(self._core.broken)

    def _send_to_program(self, clear: list[bytes] | list[memoryview], size: int) -> None:
        if self._program_deaf:
            return
        try:
            sent = self._inside.sendmsg(clear, (), _FLAGS)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):  # it has shut its reading side, or is gone
            self._program_deaf = True
            return
        if sent < size:
            self._inside_writable = False
            self._to_program = memoryview(b"".join(clear))[sent:]
            self._poller.change(self._inside.fileno(), IN | END | OUT)

    # --- ends ----------------------------------------------------------------------------------------------------

    def _break(self, error: KtlsError) -> None:
        """The session is of no use any more. What came before stays delivered."""
        self._error = self._error or error
        self._broken = self._cut = self._peer_at_end = True
        self._in, self._out = Way.ENDING, Way.ENDED
        self._to_peer = _NOTHING
        if isinstance(error, ProtocolError):
            self._mark(Mark.BROKEN)
        shut(self._outside, SHUT_WR)

    def _lose_peer(self, error: OSError) -> None:
        """TCP has failed. After a clean end of the peer's direction the program's reads stay right; its writes fail."""
        if self._out is not Way.ENDED or self._in is Way.OPEN:
            self._error = self._error or PeerClosed(f"the connection was lost: {error.strerror}")
        self._peer_at_end = self._peer_lost = True
        self._out, self._to_peer = Way.ENDED, _NOTHING
        if self._in is Way.OPEN:
            self._in, self._cut = Way.ENDING, True
        elif self._in is Way.ENDED:
            shut(self._inside, SHUT_RDWR)

    def _mark(self, mark: Mark) -> None:
        self._outside.setsockopt(IPPROTO_TCP, TCP_SYNCNT, mark)

    def _linger(self, delivered: int) -> None:
        """The program is gone. What it wrote still goes out, as long as the peer takes it."""

        def check() -> None:
            now = self.bytes_out - len(self._to_peer)
            self._finish() if now == delivered else self._linger(now)

        self._lingering = self._call_later(LINGER, check)

    def _finish(self) -> None:
        self._closed = True
        if self._lingering is not None:
            self._lingering.cancel()  # it would keep all of this, the session included, in memory
        self._poller.remove(self._inside.fileno())
        self._poller.remove(self._outside.fileno())
        try:
            if not (self._program_gone and aborts(self._outside)):
                shut(self._outside, SHUT_RDWR)  # the program's hidden copy would keep the connection up
            self._inside.close()
            close_tcp(self._outside)
        finally:  # whoever waits for the end would wait for ever
            self._finished(RelayEnd(self._error, self.bytes_in, self.bytes_out))

"""A connection whose keys are in the kernel: rekey when the shim asks, and end it properly when the program is done.

Nothing of ours is on the data path. B reads KeyUpdate messages, and end of file (or ECONNRESET: the open byte was never
read) when the last copy of A is closed, in whatever process that is and by whatever means.

Rekeying our direction is two calls, the KeyUpdate record and the new keys. A record of the program between them would
be sealed with the old keys and be garbage to the peer, and nothing in the kernel keeps the two together. So a message
stays in the leash until all that it asks for is done: while SIOCOUTQ(A) is not 0, a writer waits. The record is sent
from a thread, because tls_sw_sendmsg() waits for a program that is blocked in send(), MSG_DONTWAIT or not (tx_lock).
"""

import asyncio
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable
from socket import IPPROTO_TCP, MSG_DONTWAIT, MSG_PEEK, SHUT_RDWR, SHUT_WR, TCP_INFO, TCP_SYNCNT, socket

from ktls import kernel
from ktls.agent.messages import LEASH_MESSAGE, PASSED_ON, SPEAKS_TLS, UpdateRequest, parse_update
from ktls.agent.wire import Wire
from ktls.alerts import Alert, AlertDescription, AlertLevel
from ktls.closing import RESET_PAUSE, abort_at_close, aborts, shut, unacknowledged
from ktls.errors import KtlsError
from ktls.poller import END, IN, Poller
from ktls.pump import LINGER
from ktls.records import ContentType
from ktls.relay import Mark
from ktls.session import Session

KEY_UPDATE = bytes((24, 0, 0, 1, 0))
"""KeyUpdate, update_not_requested (RFC 8446 section 4.6.3)."""
CLOSE_NOTIFY = Alert(AlertLevel.WARNING, AlertDescription.CLOSE_NOTIFY)
PEER_WAIT = 0.05
"""Seconds between two looks whether the peer has ended its direction."""
_PEER_ENDED = frozenset({6, 7, 8, 9, 11})  # TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING (include/net/tcp_states.h)
HOLDER_WAIT = (0.1, 5.0)
"""Seconds between two looks for other holders of the socket: the first, and the most, doubling."""

IN_FLIGHT_WAIT = 1.0
"""Seconds in which a socket that was passed on may lie in a message, where no look at processes finds it."""

Held = Callable[[int], Awaitable[bool]]
"""Tells whether another process has the socket with this inode."""
InThread = Callable[[Callable[[], None]], Awaitable[None]]
"""Does something that may have to wait for the program."""


class Leash:
    """Watch over one kernel connection.

    Args:
        wire: R, keys installed.
        b: the leash.
        session: whose keys were installed.
        poller: the agent's.
        held: who knows about other holders.
        in_thread: where a record is sent while the program may be sending.
        speaks_tls: is told when the program's first bytes are a ClientHello; a KtlsError ends the connection.
    """

    def __init__(
        self,
        wire: Wire,
        b: socket,
        session: Session,
        poller: Poller,
        *,
        held: Held,
        in_thread: InThread,
        speaks_tls: Callable[[], None],
    ) -> None:
        self._wire, self._b, self._poller, self._held, self._in_thread = wire, b, poller, held, in_thread
        self._tx, self._rx = session.tx, session.rx
        self._speaks_tls = speaks_tls
        self._woken = asyncio.Event()
        self._passed_on = False
        self._closing: asyncio.Task[None] | None = None
        self._said_end = False
        self.rekeys = 0

    async def run(self) -> None:
        """Serve until the connection has ended in order.

        Raises:
            KtlsError: a rekey failed; the connection has been shut down.
        """
        self._poller.add(self._b.fileno(), IN | END, lambda _: self._woken.set())
        try:
            await self._until_gone()
        except KtlsError:
            shut(self._wire.sock, SHUT_RDWR)
            raise
        finally:
            self._poller.remove(self._b.fileno())
            if self._closing is not None:
                self._closing.cancel()
        await self._while_held()
        await self._end()

    def close(self) -> None:
        """End both directions in order, while the program still holds the connection."""
        if self._closing is None and not self._said_end:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        """close_notify and FIN, then the peer's; the program reads to the end of what came and finds end of file."""
        sock = self._wire.sock
        sock.setsockopt(IPPROTO_TCP, TCP_SYNCNT, Mark.CLEAN)  # we asked for the end, however it comes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while not self._said_end:
                    await self._wire.writable()
                    await self._in_thread(self._say_end)
                while sock.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0] not in _PEER_ENDED:
                    await asyncio.sleep(PEER_WAIT)
        shut(sock, SHUT_RDWR)

    def _say_end(self) -> None:
        with contextlib.suppress(OSError, KtlsError):  # the peer has gone
            try:
                kernel.send_alert(self._wire.sock, CLOSE_NOTIFY)
            except BlockingIOError:
                return
        self._said_end = True
        shut(self._wire.sock, SHUT_WR)

    async def _until_gone(self) -> None:
        while True:
            self._woken.clear()
            try:
                data = self._b.recv(LEASH_MESSAGE, MSG_DONTWAIT | MSG_PEEK)
            except BlockingIOError:
                await self._woken.wait()
                continue
            except ConnectionResetError:
                return
            if not data:
                return
            if len(data) < LEASH_MESSAGE:
                await self._woken.wait()
                continue
            if data == PASSED_ON:
                self._passed_on = True
            elif data == SPEAKS_TLS:
                self._speaks_tls()
            else:
                await self._rekey(parse_update(data))
            self._b.recv(LEASH_MESSAGE, MSG_DONTWAIT)

    async def _rekey(self, request: UpdateRequest) -> None:
        self._rx = self._rx.updated()
        kernel.install_rx(self._wire.sock, self._rx)
        self.rekeys += 1
        if request is UpdateRequest.NOT_REQUESTED or self._closing is not None:
            return
        while True:
            await self._wire.writable()
            try:
                await self._in_thread(self._update_tx)
            except BlockingIOError:
                continue
            else:
                return

    def _update_tx(self) -> None:
        kernel.send_record(self._wire.sock, ContentType.HANDSHAKE, KEY_UPDATE)
        self._tx = self._tx.updated()
        kernel.install_tx(self._wire.sock, self._tx)

    async def _insist(self, send: Callable[[], object]) -> None:
        """Send, waiting for room behind the program's own data."""
        while True:
            try:
                send()
            except BlockingIOError:
                await self._wire.writable()
            else:
                return

    async def _while_held(self) -> None:
        inode = os.fstat(self._wire.sock.fileno()).st_ino
        pause, longest = HOLDER_WAIT
        if self._passed_on:
            await asyncio.sleep(IN_FLIGHT_WAIT)
        while await self._held(inode):
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    async def _end(self) -> None:
        """close_notify, FIN, then read away what still comes: anything unread would make close() a RST."""
        sock = self._wire.sock
        if aborts(sock):  # the program wants a RST, and no end that looks like a good one: close() does it
            return
        try:
            async with asyncio.timeout(LINGER):
                kernel.drain_control_records(sock)
                if not self._said_end:
                    if _has_unread(sock):  # as TCP: a RST tells the peer; but it gets what was written first
                        while unacknowledged(sock):
                            await asyncio.sleep(RESET_PAUSE)
                        abort_at_close(sock)
                        return
                    await self._insist(lambda: kernel.send_alert(sock, CLOSE_NOTIFY))
                    shut(sock, SHUT_WR)
                await self._read_away()
        except (OSError, KtlsError):  # the peer has gone, or does not end: nobody is left to tell
            return

    async def _read_away(self) -> None:
        while True:
            try:
                record = kernel.read_record(self._wire.sock)
            except BlockingIOError:
                await self._wire.readable()
                continue
            if record.is_end:
                return


def tcp_bytes(sock: socket) -> tuple[int, int]:
    """Return how many bytes the peer has sent and acknowledged: tcpi_bytes_received, tcpi_bytes_acked."""
    try:
        info = sock.getsockopt(IPPROTO_TCP, TCP_INFO, 136)
        acked, received = struct.unpack_from("=QQ", info, 120)  # include/uapi/linux/tcp.h, struct tcp_info
    except (OSError, struct.error):
        return 0, 0
    return received, acked


def _has_unread(sock: socket) -> bool:
    """Tell whether the program left data; records of other types are none."""
    try:
        return bool(sock.recv(1, MSG_PEEK | MSG_DONTWAIT))
    except OSError:
        return False

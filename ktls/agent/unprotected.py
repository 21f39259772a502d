"""Connections left in clear, until they end: nobody of ours holds them, so the kernel is asked to tell.

It tells the end of every TCP socket of the network namespace, so we listen only while such a connection is there.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from socket import socket

from ktls.agent.report import Report
from ktls.tcp_ends import TcpEnd, cookie_of, listen_for_ends, parse_ends, take_end_messages

MOST = 16_384
"""Connections that are remembered; of more the oldest ends untold."""
TURN = 64
"""Ends taken before others in the loop get their turn."""
SETTLE = 1.0
"""Seconds that an agent with nothing else to do waits for the last ends: a FIN's way there and back."""


@dataclass(frozen=True, slots=True)
class _Left:
    facts: Mapping[str, object]
    since: float


class Unprotected:
    """Tells the report how connections in clear ended, and what went over them.

    Args:
        loop: the agent's.
        report: is told an event `clear-end` each. Where it keeps nothing, nobody listens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, report: Report) -> None:
        self._loop, self._report = loop, report
        self._left: OrderedDict[int, _Left] = OrderedDict()
        self._sock: socket | None = None
        self._settling: tuple[Callable[[], None], asyncio.TimerHandle] | None = None

    @property
    def waits(self) -> bool:
        """Whether the end of some connection is still to come."""
        return bool(self._left)

    def watch(self, r: socket, facts: Mapping[str, object]) -> None:
        """Remember a connection. To be called before its program can close it.

        Args:
            r: the connection.
            facts: for the report; what is added to them later counts too.
        """
        if not self._report.keeps:
            return
        with contextlib.suppress(OSError):  # a kernel that does not tell: the record has no end then
            if self._sock is None:
                self._sock = listen_for_ends()
                self._loop.add_reader(self._sock.fileno(), self._read)
            cookie = cookie_of(r, self._sock)
            if cookie is not None:
                self._left[cookie] = _Left(facts, time.monotonic())
                self._left.move_to_end(cookie)
        while len(self._left) > MOST:
            self._left.popitem(last=False)
        self._look()

    def settle(self, done: Callable[[], None]) -> None:
        """Call `done` when nothing is waited for any more, within SETTLE seconds."""
        if self._settling is None:
            self._settling = done, self._loop.call_later(SETTLE, self.close)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._left.clear()
        self._look()

    def _read(self) -> None:
        if self._sock is None:
            return
        for datagram in take_end_messages(self._sock, TURN):
            for end in parse_ends(datagram, self._left):
                self._tell(end, self._left.pop(end.cookie))
        self._look()

    def _tell(self, end: TcpEnd, left: _Left) -> None:
        connected = left.facts.get("direction") == "outbound"
        facts = {
            "seconds": round(time.monotonic() - left.since, 3),
            "bytes_in": end.received,
            "bytes_out": end.delivered(connected=connected),
            "ended": "closed" if end.in_order(connected=connected) else "reset",
        }
        self._report.write("clear-end", {**left.facts, **facts})

    def _look(self) -> None:
        """Listen no longer when there is nothing to wait for."""
        if self._left:
            return
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        if self._settling is not None:
            (done, patience), self._settling = self._settling, None
            patience.cancel()  # it would forget connections of whoever came meanwhile
            self._loop.call_soon(done)

"""Readiness of many sockets for one thread: an edge-triggered epoll set that hangs in the loop as one descriptor.

Why not the loop's own add_reader: a relayed megabyte is some sixty wake-ups, and asyncio pays for each with a handle
and with an epoll_ctl whenever a direction is paused. Here a callback costs a dictionary look-up, and a hang-up can be
watched for alone (asyncio can watch for readability only, and a half-closed socket is readable for ever).

Rules:
1. Edge-triggered: a callback notes what is ready and goes on until EAGAIN, or asks for another turn with `again`.
2. Sockets are shared with other processes, so closing our descriptor does not take it out of the set: `remove` first.
3. Fair: `again` puts the caller behind everybody who is ready now.
4. An edge is told once: a callback that raises costs the others of its turn nothing. The loop is told.
"""

import asyncio
import select
from collections import deque
from collections.abc import Callable

IN = select.EPOLLIN
OUT = select.EPOLLOUT
END = select.EPOLLRDHUP
"""The other end has finished sending. Reported only when asked for."""
GONE = select.EPOLLHUP | select.EPOLLERR
"""Both directions are over, or the socket has an error. Always reported."""
MAX_EVENTS = 64
"""Events taken in one turn, so that new connections are not starved by busy ones."""
SCRATCH = 65536
"""Bytes of the shared read buffer."""

Callback = Callable[[int], None]


class Poller:
    """An epoll set with a callback for each descriptor."""

    __slots__ = ("_again", "_callbacks", "_epoll", "_loop", "_scheduled", "scratch")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._again: deque[Callable[[], None]] = deque()
        self._loop = loop
        self._scheduled = False
        self.scratch = memoryview(bytearray(SCRATCH))
        """Room for one read, shared by all callbacks: nothing may be left in it when a callback returns."""
        if loop is not None:
            loop.add_reader(self._epoll.fileno(), self._turn)

    def add(self, fd: int, events: int, callback: Callback) -> None:
        """Watch a descriptor; `callback` is given the ready events, at least once."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events | select.EPOLLET)

    def change(self, fd: int, events: int) -> None:
        """Watch for other events; what is ready already is reported again."""
        self._epoll.modify(fd, events | select.EPOLLET)

    def remove(self, fd: int) -> None:
        """Stop watching; harmless when the descriptor is not watched. To be called before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def again(self, callback: Callable[[], None]) -> None:
        """Give the caller another turn after everybody who is ready now."""
        self._again.append(callback)

    def turn(self, timeout: float = 0) -> bool:
        """Run one round: first those who asked for another turn, then those who are ready.

        Args:
            timeout: seconds to wait for the first event, when nobody has asked for another turn.

        Returns:
            True when somebody asked for another turn.
        """
        waiting = len(self._again)
        for _ in range(waiting):
            self._call(self._again.popleft())
        for fd, events in self._epoll.poll(0 if waiting else timeout, MAX_EVENTS):
            callback = self._callbacks.get(fd)  # gone when an earlier callback of this round removed it
            if callback is not None:
                self._call(callback, events)
        return bool(self._again)

    def _call(self, callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # whoever called `add` has seen to its own end
            if self._loop is None:
                raise
            self._loop.call_exception_handler({"message": "a turn ended badly", "exception": error})

    def close(self) -> None:
        """Leave the loop and drop the set. Watched descriptors stay open: they are their owners'."""
        if self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
        self._callbacks.clear()
        self._again.clear()
        self._epoll.close()

    def _turn(self) -> None:
        if self._epoll.closed:
            return
        self._scheduled = False
        if self.turn() and self._loop is not None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

"""A TCP socket that is shared with the program, awaited without ever touching its file flags.

O_NONBLOCK belongs to the program, so every call says MSG_DONTWAIT and readiness comes from the poller: asyncio's own
streams would set the flag (a program that relies on blocking calls then spins, or fails with EAGAIN).
"""

import asyncio
import contextlib
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, SO_ERROR, SOL_SOCKET, socket

from ktls.poller import END, GONE, IN, OUT, Poller
from ktls.relay import CHUNK


class Wire:
    """Read and write R. For one task; `release` before anybody else watches the socket.

    Args:
        sock: R.
        poller: the agent's.
    """

    __slots__ = ("_poller", "_readable", "_writable", "sock")

    def __init__(self, sock: socket, poller: Poller) -> None:
        self.sock = sock
        self._poller = poller
        self._readable, self._writable = asyncio.Event(), asyncio.Event()
        poller.add(sock.fileno(), IN | OUT | END, self._on_events)

    def release(self) -> None:
        """Stop watching. The socket stays open."""
        self._poller.remove(self.sock.fileno())

    def _on_events(self, events: int) -> None:
        if events & (IN | END | GONE):
            self._readable.set()
        if events & (OUT | GONE):
            self._writable.set()

    async def connected(self) -> int:
        """Wait until the TCP connect is over.

        Returns:
            0, or its errno.
        """
        await self._writable.wait()
        return self.sock.getsockopt(SOL_SOCKET, SO_ERROR)

    async def receive(self, most: int) -> bytes:
        """Return 1 to `most` bytes as soon as there are any; b"" is end of file.

        Raises:
            OSError: TCP failed.
        """
        while True:
            self._readable.clear()  # before the call: an event that comes after it is not lost
            try:
                return self.sock.recv(most, MSG_DONTWAIT)
            except BlockingIOError:
                await self._readable.wait()

    async def read_away(self, seconds: float) -> None:
        """Read to the end, for so long at most: what is unread would make close() a RST, which eats our last alert."""
        with contextlib.suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(seconds):
                while await self.receive(CHUNK):
                    pass

    async def send(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            OSError: TCP failed.
        """
        rest = memoryview(data)
        while rest:
            self._writable.clear()
            try:
                rest = rest[self.sock.send(rest, MSG_DONTWAIT | MSG_NOSIGNAL) :]
            except BlockingIOError:
                await self._writable.wait()

    def send_now(self, data: bytes) -> None:
        """Write what fits: for an alert that nobody will wait for."""
        try:
            self.sock.send(data, MSG_DONTWAIT | MSG_NOSIGNAL)
        except OSError:  # it is the last word on a connection that has failed already
            return

    async def writable(self) -> None:
        """Wait for room, after a call of somebody else's said EAGAIN."""
        self._writable.clear()
        self._poller.change(self.sock.fileno(), IN | OUT | END)  # reports what is so already
        await self._writable.wait()

    async def readable(self) -> None:
        """Wait for data or an end, after a call of somebody else's said EAGAIN."""
        self._readable.clear()
        self._poller.change(self.sock.fileno(), IN | OUT | END)
        await self._readable.wait()

"""A client's connection, in two ways that programs have: blocking with a time limit, and non-blocking in a loop.

The exchanges (exchanges.py) are written once, as coroutines. Over a `Blocking` link nothing in them ever waits for a
loop, so a thread runs them with `drive`.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Coroutine
from typing import Protocol, TypeVar

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds until one call that waits is given up: a hang, which is a fault."""
ABORT = struct.pack("=ii", 1, 0)
"""struct linger: the close is a RST."""


class Broken(Exception):
    """What came is not what had to come."""


class Link(Protocol):
    """One TCP connection of a client."""

    sock: socket.socket

    async def connect(self, address: tuple[str, int]) -> None:
        """Connect."""

    async def receive(self, most: int) -> bytes:
        """Return some bytes; none at the end of file."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""

    async def pause(self, seconds: float) -> None:
        """Do nothing for a while."""


class Blocking:
    """Calls that wait in the call."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)

    async def connect(self, address: tuple[str, int]) -> None:
        """Connect."""
        self.sock.connect(address)

    async def receive(self, most: int) -> bytes:
        """Return some bytes; none at the end of file."""
        return self.sock.recv(most)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    async def pause(self, seconds: float) -> None:
        """Do nothing for a while."""
        time.sleep(seconds)


class Nonblocking:
    """Calls that never wait, and epoll."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def connect(self, address: tuple[str, int]) -> None:
        """Connect."""
        async with asyncio.timeout(PATIENCE):
            await self._loop.sock_connect(self.sock, address)

    async def receive(self, most: int) -> bytes:
        """Return some bytes; none at the end of file."""
        async with asyncio.timeout(PATIENCE):
            return await self._loop.sock_recv(self.sock, most)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        async with asyncio.timeout(PATIENCE):
            await self._loop.sock_sendall(self.sock, data)

    async def pause(self, seconds: float) -> None:
        """Do nothing for a while."""
        await asyncio.sleep(seconds)


def drive(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine that never waits for a loop."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise RuntimeError("a blocking link has waited for a loop")


def abort(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    sock.close()


class Reader:
    """Bytes as they are asked for, over a link that gives what it has."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._held = bytearray()
        self.pace: tuple[int, float] | None = None
        """For a slow reader: how many bytes at most at once, and the seconds between."""

    async def _fill(self) -> bool:
        if self.pace is None:
            data = await self._link.receive(65536)
        else:
            await self._link.pause(self.pace[1])
            data = await self._link.receive(self.pace[0])
        self._held += data
        return bool(data)

    async def line(self) -> bytes:
        """Return what comes before the next CR LF.

        Raises:
            Broken: the stream ended.
        """
        while (at := self._held.find(b"\r\n")) < 0:
            if not await self._fill():
                raise Broken(f"the end came within a line, after {bytes(self._held[-40:])!r}")
        line = bytes(self._held[:at])
        del self._held[: at + 2]
        return line

    async def exactly(self, size: int) -> bytes:
        """Return that many bytes.

        Raises:
            Broken: the stream ended.
        """
        while len(self._held) < size:
            if not await self._fill():
                raise Broken(f"the end came after {len(self._held)} bytes of {size}")
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    async def at_least(self, size: int) -> None:
        """Read until so many bytes lie here, or to the end."""
        while len(self._held) < size and await self._fill():
            pass

    async def end(self) -> None:
        """Read the end of file.

        Raises:
            Broken: there is more.
        """
        if self._held or await self._fill():
            raise Broken(f"{len(self._held)} bytes came where the end had to be: {bytes(self._held[:40])!r}")

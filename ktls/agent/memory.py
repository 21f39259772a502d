"""Give memory back to the system when many connections have ended.

A connection takes some 70 KiB, nearly all of it OpenSSL's. The C library keeps what is freed for the next connections,
in pieces that lie between others still in use: an agent that once had ten thousand would stay at its largest for ever.
"""

import asyncio
import ctypes
from concurrent.futures import Executor

WORTH = 128
"""Connections that must have ended before it is worth the walk through all free memory."""
PAUSE = 1.0
"""Seconds after that, for those that are just ending."""


class Memory:
    """Watches how many connections there are.

    Args:
        loop: the agent's.
        pool: where the work is done: it takes some milliseconds for each hundred megabytes.
    """

    __slots__ = ("_due", "_loop", "_most", "_pool", "_trim")

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Executor) -> None:
        self._loop, self._pool = loop, pool
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, others need it less
        self._most = 0
        self._due: asyncio.TimerHandle | None = None

    def note(self, connections: int) -> None:
        """Take note of their number. Memory is given back when it has fallen to a quarter of what it was."""
        self._most = max(self._most, connections)
        if self._due is None and self._most >= WORTH and connections * 4 <= self._most:
            self._due = self._loop.call_later(PAUSE, self._give_back)

    def close(self) -> None:
        """Do no more."""
        if self._due is not None:
            self._due.cancel()

    def _give_back(self) -> None:
        self._due, self._most = None, 0
        if self._trim is not None:
            self._loop.run_in_executor(self._pool, self._trim, 0)

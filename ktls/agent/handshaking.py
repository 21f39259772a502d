"""Execute what the handshake driver commands: the only place where a driver meets a socket, a clock and a thread.

The driver's steps are heavy (signatures, key exchange, certificate chains), so they run in the agent's thread pool. One
driver is used by one thread at a time: a step is always waited for before the next one, also when time has run out.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ktls.agent.wire import Wire
from ktls.errors import HandshakeTimeout, KtlsError, PeerClosed
from ktls.handshake import Established, Event, Failed, Handshake, NeedBytes, SendBytes

if TYPE_CHECKING:
    from ktls.session import Session


@dataclass(slots=True)
class _Step:
    running: "asyncio.Future[list[Event]] | None" = None


class Handshaking:
    """One handshake over one wire.

    Args:
        driver: fresh.
        wire: R.
        pool: where the driver's steps run.
    """

    __slots__ = ("_driver", "_pool", "_step", "_wire", "heard")

    def __init__(self, driver: Handshake, wire: Wire, pool: Executor) -> None:
        self._driver, self._wire, self._pool = driver, wire, pool
        self._step = _Step()
        self.heard = False
        """The peer has sent at least one byte."""

    async def run(self) -> "Session":
        """Do the handshake.

        Raises:
            KtlsError: it failed; the alert, if there is one, has been sent. The connection is of no use any more.
        """
        events = await self._in_thread(self._driver.start)
        while True:
            try:
                session, want = await self._execute(events)
                if session is not None:
                    return session
                data = await self._wire.receive(want)
            except OSError as error:
                raise PeerClosed(f"the connection was lost during the handshake: {error.strerror}") from error
            if data:
                self.heard = True
                events = await self._in_thread(partial(self._driver.receive, data))
            else:
                events = await self._in_thread(self._driver.receive_eof)

    async def time_out(self) -> KtlsError:
        """Tell the driver that time has run out; returns what that means."""
        if self._step.running is not None:
            await asyncio.wait({self._step.running})
        for event in await self._in_thread(self._driver.time_out):
            if isinstance(event, SendBytes):
                self._wire.send_now(event.data)
            elif isinstance(event, Failed):
                return event.error
        return HandshakeTimeout("the handshake did not end in time")

    async def _execute(self, events: list[Event]) -> "tuple[Session | None, int]":
        """The session when it is established, and how many bytes to read when it is not."""
        failed = next((event.error for event in events if isinstance(event, Failed)), None)
        session, want = None, 0
        for event in events:
            match event:
                case SendBytes(data) if failed is not None:
                    self._wire.send_now(data)
                case SendBytes(data):
                    await self._wire.send(data)
                case NeedBytes(count):
                    want = count
                case Established(established):
                    session = established
        if failed is not None:
            raise failed
        return session, want

    async def _in_thread(self, step: Callable[[], list[Event]]) -> list[Event]:
        self._step.running = asyncio.get_running_loop().run_in_executor(self._pool, step)
        events = await asyncio.shield(self._step.running)
        self._step.running = None
        return events

"""What becomes of a connection that lives on: its rule or its keyring changes, or its keys have done enough.

`on_change` says it for changes: keep, rekey, drain (closed when it is idle, or after a time), close. `rekey` says how
much one key may do; what comes then is a KeyUpdate. Where there can be none the connection is drained instead, and the
report says why: for a change within that time, for keys only when it is idle, however long that takes.
"""

import asyncio
import contextlib
import time
from typing import Protocol

from ktls.agent.serving import Line
from ktls.errors import KtlsError
from policy.model import Action

IDLE = 10.0
"""Seconds without a byte after which a connection that is drained is closed."""
DRAIN = 600.0
"""Seconds after which it is closed, idle or not."""
LOOK = 1.0
"""Seconds between two looks at the records, at least."""
FASTEST = 1_000_000
"""Records a second that no connection reaches: how long a look can wait."""


class Tell(Protocol):
    """Writes into the report."""

    def __call__(self, event: str, **facts: object) -> None:
        """Write one event of the connection."""


class Fate:
    """Watches over one connection from when it is open.

    Args:
        line: the connection.
        action: of its rule.
        tell: writes into the report.
        loop: the agent's.
    """

    def __init__(self, line: Line, action: Action, tell: Tell, loop: asyncio.AbstractEventLoop) -> None:
        self._line, self._action, self._tell, self._loop = line, action, tell, loop
        self._since = time.monotonic()  # the present keys are used
        self._drain: asyncio.Task[None] | None = None
        self._look: asyncio.TimerHandle | None = None
        self.closed = ""
        """Why it was closed by us."""
        self._look_later()

    def done(self) -> None:
        """Leave it alone from here on: it has ended."""
        if self._look is not None:
            self._look.cancel()
        if self._drain is not None:
            self._drain.cancel()

    def change(self, why: str) -> None:
        """Do as `on_change` says.

        Args:
            why: what has changed.
        """
        wanted = self._action.on_change
        if wanted == "keep" or self.closed:
            return
        reason = self._rekey() if wanted == "rekey" else ""
        does = "drain" if reason else wanted
        self._tell("change", on_change=wanted, does=does, changed=why, message=reason or None)
        if does == "close":
            self._close(why)
        elif does == "drain":
            self._start_drain(why, DRAIN)

    # --- the keys' age -------------------------------------------------------------------------------------------

    def _look_later(self) -> None:
        limit = self._action.rekey
        pause = (limit.records - self._records()) / FASTEST
        if limit.seconds:
            pause = min(pause, self._since + limit.seconds - time.monotonic())
        self._look = self._loop.call_later(max(LOOK, pause), self._on_look)

    def _on_look(self) -> None:
        limit, self._look = self._action.rekey, None
        if self._records() >= limit.records:
            why = f"{limit.records} records under one key"
        elif limit.seconds and time.monotonic() >= self._since + limit.seconds:
            why = f"{limit.seconds} seconds under one key"
        else:
            self._look_later()
            return
        reason = self._rekey()
        self._tell("rekey", does="drain" if reason else "rekey", changed=why, message=reason or None)
        if reason:
            self._start_drain(why, None)
        else:
            self._look_later()

    def _records(self) -> int:
        try:
            return self._line.records()
        except (OSError, KtlsError):  # it has just ended
            return 0

    def _rekey(self) -> str:
        reason = self._line.rekey()
        if not reason:
            self._since = time.monotonic()
        return reason

    # --- ends ----------------------------------------------------------------------------------------------------

    def _close(self, why: str) -> None:
        self.closed = why
        self.done()
        self._line.close()

    def _start_drain(self, why: str, most: float | None) -> None:
        if self._drain is not None:
            if most is None:
                return
            self._drain.cancel()  # the new reason may have less patience
        self._drain = self._loop.create_task(self._drained(why, most))

    async def _drained(self, why: str, most: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most):
                await self._idle()
        self._drain = None
        self._close(why)

    async def _idle(self) -> None:
        before, since = self._now(), time.monotonic()
        while time.monotonic() < since + IDLE:
            await asyncio.sleep(IDLE / 8)
            now = self._now()
            if now is None:  # it has just ended
                return
            if now != before or now[-1]:
                before, since = now, time.monotonic()

    def _now(self) -> tuple[int, ...] | None:
        try:
            return (*self._line.moved(), self._line.waiting())
        except OSError:
            return None

"""B, the agent's end of the gate: the verdict, the opening, and the news that the program is gone."""

import contextlib
import errno
import secrets
from collections.abc import Callable
from socket import MSG_DONTWAIT, MSG_NOSIGNAL, socket

from ktls.agent.messages import OPEN_BYTE, GateName, Outcome, VerdictCode, pack_verdict
from ktls.errors import AgentProtocolError
from ktls.poller import GONE, Poller

_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL


class Gate:
    """One gate. B is a file of the agent's alone: the program holds A.

    Args:
        sock: B.
        filler: bytes that lie in it, from the request.
        poller: the agent's.
    """

    __slots__ = ("_poller", "filler", "opened", "sock")

    def __init__(self, sock: socket, filler: int, poller: Poller) -> None:
        self.sock = sock
        self.filler = filler
        self.opened: GateName | None = None
        self._poller = poller

    def answer(self, verdict: VerdictCode, error: int = 0) -> None:
        """Send the verdict.

        Raises:
            OSError: the program has gone already.
        """
        self.sock.send(pack_verdict(verdict, error), _FLAGS)

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` when every copy of A is closed. Only that is watched: the filler keeps B readable."""

        def on_events(events: int) -> None:
            if events & GONE:
                gone()

        self._poller.add(self.sock.fileno(), 0, on_events)

    def unwatch(self) -> None:
        """Stop watching."""
        self._poller.remove(self.sock.fileno())

    def open(self, outcome: Outcome, *, error: int = 0, flags: str = "") -> None:
        """Open the gate, in the one order that works (docs/protocol.md, "The gate").

        Raises:
            AgentProtocolError: the filler is not what the request said: whoever asked is no shim.
        """
        self._bind(outcome, error, flags)
        if outcome is not Outcome.RELAY:
            # The program may have closed A a moment ago: whoever serves B now finds the end of file, once the filler
            # before it is gone.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.sock.send(OPEN_BYTE, _FLAGS)
        left = self.filler
        while left:
            try:
                got = len(self.sock.recv(left, MSG_DONTWAIT))
            except BlockingIOError:
                got = 0
            if got == 0:
                raise AgentProtocolError(f"the gate holds {self.filler - left} bytes of filler, not {self.filler}")
            left -= got

    def _bind(self, outcome: Outcome, error: int, flags: str) -> None:
        while True:
            name = GateName(outcome, error, flags, secrets.randbits(64))
            try:
                self.sock.bind(name.pack())
            except OSError as failure:
                if failure.errno != errno.EADDRINUSE:  # somebody's name: take another
                    raise
            else:
                self.opened = name
                return

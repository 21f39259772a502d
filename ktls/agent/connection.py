"""One connection's life: decide -> (connecting) -> handshaking -> open (kernel, relay or clear) -> ended, or failed.

Rules:
1. It starts as failed; one place (`_open`) makes it open.
2. The program may go at any time before the gate is open: then there is nobody to tell. A handshake that is soon done
   is ended in order all the same; otherwise R is shut.
3. Whatever happens, R and B are closed when `run` returns, and the report has the connection's last line.
"""

import asyncio
import contextlib
import time
from socket import IPPROTO_TCP, SHUT_RDWR, SHUT_WR, SO_LINGER, SOL_SOCKET, TCP_NODELAY
from typing import TYPE_CHECKING

from ktls.agent.asked import Asked
from ktls.agent.deciding import Standing, decide_asked
from ktls.agent.describe import Failure, session_facts
from ktls.agent.fate import Fate
from ktls.agent.gate import Gate
from ktls.agent.handshaking import Handshaking
from ktls.agent.installing import KeyInstaller
from ktls.agent.messages import Outcome, RequestKind, VerdictCode
from ktls.agent.parameters import tls_parameters
from ktls.agent.serving import KernelLine, Line, RelayLine
from ktls.agent.shared import Shared
from ktls.agent.wire import Wire
from ktls.ciphers import Role
from ktls.closing import aborts, close_tcp, shut, stands
from ktls.errors import AgentProtocolError, AlreadyTls, Denied, HandshakeTimeout, KtlsError
from ktls.handshake import Handshake
from offload.engine import Engine
from policy.model import Action, Verdict

if TYPE_CHECKING:
    from ktls.session import Session

ABORT = b"\1\0\0\0\0\0\0\0"
"""struct linger {1, 0}: the last close() is a RST."""
GRACE = 2.0
"""Seconds for the handshake of a connection that the program has closed, to be ended by a close_notify."""
ALREADY = "the program speaks TLS itself, so that its TLS is within ours: a rule that leaves it clear would do"
DRAIN = 2.0
"""Seconds for the peer to take the alert of a failed handshake before the connection is shut."""


class Connection:
    """One connection the agent was asked about.

    Args:
        asked: the request. Both sockets are the connection's from here on.
        number: unique in this agent.
        shared: what all connections share.
    """

    def __init__(self, asked: Asked, number: int, shared: Shared) -> None:
        self._asked, self._request, self._program, self._r = asked, asked.request, asked.program, asked.r
        self._shared, self._number = shared, number
        self._gate = Gate(asked.b, asked.request.filler, shared.poller)
        # What a server's process resolved to a client's address says nothing about that client: no reverse DNS, ever.
        self._name = asked.request.name if asked.request.kind is RequestKind.CONNECT else None
        self._task: asyncio.Task[None] | None = None
        self._line: Line | None = None
        self._fate: Fate | None = None
        self._changed = ""  # why on_change is to be done
        self._gone = asyncio.Event()  # every copy of A is closed
        self._decided = self._opened = False
        self._untouched = False  # R is the program's to connect again
        self._session: Session | None = None
        self._flags = ""
        self._local, self._remote = asked.addresses()
        self._facts = asked.facts_for_report(number, self._name)

    # --- deciding ------------------------------------------------------------------------------------------------

    def decide(self) -> bool:
        """Decide and answer, at once: the program waits.

        Returns:
            True when `run` must follow; otherwise everything is done and closed.
        """
        policy = self._shared.policy
        decided = decide_asked(policy, self._asked, self._local, self._remote, self._name, self._shared.firsts)
        decision = decided.decision
        observed = policy.mode == "observe" and decision.verdict is not Verdict.CLEAR
        self._facts |= decided.facts()
        verdict = VerdictCode.CLEAR if observed else decided.code
        error = Denied.errno if verdict is VerdictCode.DENY else 0
        if verdict is VerdictCode.CLEAR:
            self._shared.unprotected.watch(self._r, self._facts)
        try:
            self._gate.answer(verdict, error)
        except OSError:
            self._report("failed", Failure("program-gone", 0, "the program has gone before the verdict"))
            self._close()
            return False
        if decision.action is not None and decided.role is not None and not observed:
            self._action: Action = decision.action
            self._role, self._name, self._decision = decided.role, decided.name, decided
            self.standing = Standing(decided.told, decision.rule, decision.action)
            return True
        if verdict is VerdictCode.DENY:
            self._report("denied", Failure("denied", error, decision.reason))
        else:
            self._report("observed" if observed else "clear")
        self._close()
        return False

    # --- living --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do the handshake, open the gate, and stay until the connection has ended."""
        self._task = asyncio.current_task()
        wire = Wire(self._r, self._shared.poller)
        self._gate.watch(self._on_program_gone)
        try:
            await self._live(wire)
        except asyncio.CancelledError:
            self._report("end" if self._opened else "failed", self._why_cancelled())
        except Exception as error:  # not foreseen: cut it off, as nobody would follow the peer's keys or end it
            opened, self._opened = self._opened, False
            self._report("end" if opened else "failed", Failure.internal(error))
            raise
        finally:
            self._gate.unwatch()
            wire.release()
            if not self._opened and not self._untouched and not aborts(self._r):
                shut(self._r, SHUT_RDWR)
            self._close()

    def stop(self) -> None:
        """End it: the agent is told to end. What the kernel encrypts goes on without us."""
        if not (self._line is not None and self._line.stop()) and self._task is not None:
            self._task.cancel()

    def change(self, why: str) -> None:
        """Do what `on_change` says; when it is open, if it is not yet."""
        self._changed = why
        self._change_now()

    def _change_now(self) -> None:
        if self._fate is not None and self._changed:
            self._fate.change(self._changed)
            self._changed = ""

    def _on_program_gone(self) -> None:
        """A connection that TCP has made is ended in order, as the program's close() would have done it: soon."""
        self._gone.set()
        self._gate.unwatch()
        if stands(self._r) and not aborts(self._r):
            self._shared.loop.call_later(GRACE, self._give_up)
        else:
            self._give_up()

    def _give_up(self) -> None:
        if self._task is not None and not self._decided:
            self._task.cancel()

    def _why_cancelled(self) -> Failure:
        if self._gone.is_set():
            return Failure("program-gone", 0, "the program closed the connection during the handshake")
        return Failure("stopped", 0, "the agent was told to end")

    async def _live(self, wire: Wire) -> None:
        if self._request.in_progress and (error := await wire.connected()):
            await self._fail_to_connect(Failure.tcp(error))
            return
        try:
            await self._shake_hands(wire)
        except KtlsError as error:
            await self._fail(wire, Failure.of(error))
            return
        except Exception as error:  # the boundary is total: whatever was not foreseen fails closed, and is told
            self._shared.loop.call_exception_handler({"message": "a handshake ended badly", "exception": error})
            await self._fail(wire, Failure.internal(error))
            return
        if self._session is None:
            self._stay_clear()
        else:
            await self._serve(wire, self._session)

    async def _shake_hands(self, wire: Wire) -> None:
        """Establish the session and make everything ready for the gate to open."""
        action, shared = self._action, self._shared
        capabilities = await shared.capabilities()
        keys = KeyInstaller(self._r, action, capabilities)
        keys.attach()
        parameters = tls_parameters(action, self._role, capabilities)
        environment, created = await shared.environment(parameters)
        self._facts["environment"] = "created" if created else "shared"
        name = (action.peer_name or self._name) if self._role is Role.CLIENT else None
        driver = await shared.in_thread(lambda: Handshake(environment, server_name=name, peer_address=self._remote[0]))
        started = time.monotonic()
        self._session = await self._within_deadline(Handshaking(driver, wire, shared.pool))
        self._facts["handshake_ms"] = round((time.monotonic() - started) * 1000, 3)
        if self._session is not None:
            self._facts |= session_facts(self._session)
            self._tls = driver.connection
            self._choice = keys.install(self._session)
            self._flags = keys.gate_flags(self._session)

    async def _within_deadline(self, handshaking: Handshaking) -> "Session | None":
        """The session; None when the rule lets a silent client stay clear."""
        nodelay = self._r.getsockopt(IPPROTO_TCP, TCP_NODELAY)
        self._r.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # a handshake over loopback takes 43 ms with Nagle
        try:
            async with asyncio.timeout(self._action.handshake_timeout):
                return await handshaking.run()
        except TimeoutError:
            if self._role is Role.SERVER and self._action.allow_clear_on_timeout and not handshaking.heard:
                return None
            self._r.setsockopt(SOL_SOCKET, SO_LINGER, ABORT)
            raise await handshaking.time_out() from None
        finally:
            self._r.setsockopt(IPPROTO_TCP, TCP_NODELAY, nodelay)

    # --- open ----------------------------------------------------------------------------------------------------

    def _stay_clear(self) -> None:
        self._report("clear", Failure("timeout", 0, "no TLS came before the deadline, and the rule lets it stay clear"))
        self._shared.unprotected.watch(self._r, self._facts)
        self._open(Outcome.CLEAR)

    async def _serve(self, wire: Wire, session: "Session") -> None:
        self._facts |= {"engine": str(self._choice.engine), "engine_reason": self._choice.reason}
        self._report("open")
        self._since = time.monotonic()
        with self._shared.firsts.living(self._remote[0], self._decision.as_first(self._asked, self._number)):
            await self._serve_line(wire, session)

    async def _serve_line(self, wire: Wire, session: "Session") -> None:
        if self._choice.engine is Engine.RELAY:
            wire.release()
            strict = self._action.eof == "strict"
            ends = self._gate, self._r
            self._line = RelayLine(self._tls, session, *ends, self._shared, strict=strict, speaks_tls=self._on_tls)
            self._open(Outcome.RELAY)
        else:
            self._line = KernelLine(wire, session, self._gate, self._shared, speaks_tls=self._on_tls)
            self._open(Outcome.KERNEL)
        self._fate = Fate(self._line, self._action, self._tell, self._shared.loop)
        try:
            self._change_now()
            served = await self._line.serve()
        finally:
            self._fate.done()
        self._report("end", served.failure, **served.facts, closed_for=self._fate.closed or None)

    def _on_tls(self) -> None:
        """The program speaks TLS itself, within ours: `already_tls` of its rule says what becomes of that."""
        self._facts["already_tls"] = self._action.already_tls
        self._tell("already-tls", message=ALREADY)
        if self._action.already_tls == "deny":
            raise AlreadyTls(ALREADY)

    def _open(self, outcome: Outcome) -> None:
        """The one place where a connection becomes open."""
        self._opened = self._decided = True
        self._gate.unwatch()
        with contextlib.suppress(OSError):  # the program has gone: whoever serves now will see that as its end
            self._gate.open(outcome, flags=self._flags)

    # --- failed and over -----------------------------------------------------------------------------------------

    async def _fail(self, wire: Wire, failure: Failure) -> None:
        """Tell the program and the report; B stays until the program lets go of A."""
        self._decided = True
        self._report("failed", failure)
        with contextlib.suppress(OSError, AgentProtocolError):  # nobody is there, or it is no shim
            self._gate.open(Outcome.FAILED, error=failure.errno)
        shut(self._r, SHUT_WR)
        if failure.reason != HandshakeTimeout.reason:  # that one is to be a RST
            await wire.read_away(DRAIN)
        shut(self._r, SHUT_RDWR)
        await self._gone.wait()

    async def _fail_to_connect(self, failure: Failure) -> None:
        """As above, of a connection that never was: the program may use its socket again."""
        self._decided = self._untouched = True
        self._report("failed", failure)
        with contextlib.suppress(OSError, AgentProtocolError):
            self._gate.open(Outcome.FAILED, error=failure.errno, flags="n")
        await self._gone.wait()

    def _report(self, event: str, failure: Failure | None = None, **more: object) -> None:
        facts = self._facts | more | (failure.facts() if failure else {})
        if event == "end":
            facts["seconds"] = round(time.monotonic() - self._since, 3)
            facts["ended"] = failure.reason if failure else "closed"
        self._shared.report.write(event, facts)

    def _tell(self, event: str, **facts: object) -> None:
        self._shared.report.write(event, self._facts | facts)

    def _close(self) -> None:
        close_tcp(self._r)
        self._gate.sock.close()

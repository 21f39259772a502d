"""An open connection, whoever protects its records: how it is served, and what can be asked of it meanwhile."""

import asyncio
import fcntl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from socket import socket
from termios import FIONREAD
from typing import Protocol

from OpenSSL import SSL

from ktls import kernel
from ktls.agent.describe import Failure
from ktls.agent.gate import Gate
from ktls.agent.leash import Leash, tcp_bytes
from ktls.agent.shared import Shared
from ktls.agent.wire import Wire
from ktls.already import is_client_hello
from ktls.ciphers import Role, Version
from ktls.closing import unacknowledged
from ktls.errors import KtlsError
from ktls.pump import Pump
from ktls.relay import RelayCore, RelayEnd
from ktls.session import Session

TLS12 = "TLS 1.2 has no KeyUpdate"
KERNEL = "nothing keeps the program's own records out between a KeyUpdate of the agent and the kernel's new keys"


@dataclass(frozen=True, slots=True)
class Served:
    """How it ended.

    Args:
        failure: None when it ended as it should.
        facts: for the report.
    """

    failure: Failure | None
    facts: Mapping[str, object] = field(default_factory=dict)


class Line(Protocol):
    """One open connection."""

    async def serve(self) -> Served:
        """Stay until it has ended. The gate must be open."""

    def stop(self) -> bool:
        """End it now, since the agent ends; False where cancelling the task does that."""

    def close(self) -> None:
        """End it in order, both directions: close_notify to the peer, end of file to the program."""

    def rekey(self) -> str:
        """Ask the peer to go on under new keys, and do so ourselves; returns why not, or nothing when it is done."""

    def records(self) -> int:
        """Count what was sent under the present keys."""

    def moved(self) -> tuple[int, ...]:
        """Return numbers that change with every byte, and with nothing else."""

    def waiting(self) -> int:
        """Count bytes that are somewhere between the program and the peer."""


class RelayLine:
    """A relayed connection.

    Args:
        connection: the handshake's.
        session: of the same handshake.
        gate: whose B is relayed.
        r: the TCP socket.
        shared: the agent's.
        strict: end of file without close_notify is an error.
        speaks_tls: as for KernelLine.
    """

    def __init__(
        self,
        connection: SSL.Connection,
        session: Session,
        gate: Gate,
        r: socket,
        shared: Shared,
        *,
        strict: bool,
        speaks_tls: Callable[[], None],
    ) -> None:
        self._speaks_tls = speaks_tls
        self._core = RelayCore(connection, session.tx, self._first if session.role is Role.CLIENT else None)
        self._b = gate.sock
        self._ended: asyncio.Future[RelayEnd] = shared.loop.create_future()
        self._rekeys = 0
        self._pump = Pump(
            self._core,
            gate.sock,
            r,
            poller=shared.poller,
            call_later=shared.loop.call_later,
            strict=strict,
            finished=self._ended.set_result,
        )

    def _first(self, data: memoryview) -> None:
        if is_client_hello(data):
            self._speaks_tls()

    async def serve(self) -> Served:
        """Relay until both ends are done."""
        self._pump.start()
        end = await self._ended
        failure = None if end.error is None else Failure.of(end.error)
        facts = {"bytes_in": end.bytes_in, "bytes_out": end.bytes_out, "rekeys": self._rekeys or None}
        return Served(failure, facts)

    def stop(self) -> bool:
        """End both directions now."""
        self._pump.stop()
        return True

    def close(self) -> None:
        """End it in order."""
        self._pump.close()

    def rekey(self) -> str:
        """Send a KeyUpdate that asks for the peer's."""
        if self._core.sending is None or not self._core.sending.can_update:
            return TLS12
        self._pump.update_keys()
        self._rekeys += 1
        return ""

    def records(self) -> int:
        """Count the records under the present keys, one by one."""
        return 0 if self._core.sending is None else self._core.sending.records

    def moved(self) -> tuple[int, ...]:
        """Count bytes both ways."""
        return self._pump.bytes_in, self._pump.bytes_out

    def waiting(self) -> int:
        """Count what the pump holds, what the program has not read and what the peer's kernel does not have."""
        if self._ended.done():
            return 0
        return sum(self._pump.held) + unacknowledged(self._b)


class KernelLine:
    """A connection whose keys are in the kernel.

    Args:
        wire: R.
        session: whose keys were installed.
        gate: the leash is its B.
        shared: the agent's.
        speaks_tls: is told when a client's first bytes are a ClientHello of its own; a KtlsError ends the connection.
    """

    def __init__(
        self, wire: Wire, session: Session, gate: Gate, shared: Shared, *, speaks_tls: Callable[[], None]
    ) -> None:
        self._sock = wire.sock
        self._reason = KERNEL if session.version is Version.TLS13 else TLS12
        self._leash = Leash(
            wire,
            gate.sock,
            session,
            shared.poller,
            held=shared.held,
            in_thread=shared.in_waiting_thread,
            speaks_tls=speaks_tls,
        )

    async def serve(self) -> Served:
        """Hold the leash until the program is done."""
        failure = None
        try:
            await self._leash.run()
        except KtlsError as error:
            failure = Failure.of(error)
        wire_in, wire_out = tcp_bytes(self._sock)
        facts = {"wire_bytes_in": wire_in, "wire_bytes_out": wire_out, "rekeys": self._leash.rekeys or None}
        return Served(failure, facts)

    def stop(self) -> bool:
        """Leave it to the task: what the kernel encrypts goes on without us."""
        return False

    def close(self) -> None:
        """End it in order."""
        self._leash.close()

    def rekey(self) -> str:
        """Say why not: it is two calls, and the program may send between them (docs/design.md)."""
        return self._reason

    def records(self) -> int:
        """Return the number of the kernel's next record: keys start at 0, or a few records of the handshake later."""
        return kernel.query(self._sock, sequences=True).tx_sequence or 0

    def moved(self) -> tuple[int, ...]:
        """Count bytes on the wire: nothing of ours sees the others."""
        return tcp_bytes(self._sock)

    def waiting(self) -> int:
        """Count what the program has not read, and what the peer's kernel does not have."""
        unread = int.from_bytes(fcntl.ioctl(self._sock, FIONREAD, bytes(4)), sys.byteorder)
        return unread + unacknowledged(self._sock)

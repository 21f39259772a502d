"""The channel: a SOCK_SEQPACKET socket on which shims ask. What comes in is checked, answered, made a connection.

A hostile sender can harm itself only: its channel is closed, the descriptors that came along are closed, and nobody
else's turn is longer than TURN messages.
"""

import asyncio
import contextlib
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from errno import ECONNREFUSED
from pathlib import Path

from ktls.agent.asked import Asked
from ktls.agent.connection import Connection
from ktls.agent.gate import Gate
from ktls.agent.memory import Memory
from ktls.agent.messages import DESCRIPTORS, MAX_REQUEST, Request, VerdictCode, parse_message
from ktls.agent.programs import program_of
from ktls.agent.shared import Shared
from ktls.errors import AgentProtocolError, ResourceExhausted

BACKLOG = 128
TURN = 16
"""Requests taken from one channel before the others get their turn."""
SPARE_FDS = 64
"""Descriptors kept for everything that is no connection: libraries, keyrings, the log."""
FDS_EACH = 2
"""Descriptors of one connection: R and B."""
FIRST_CHANNEL = 30.0
"""Seconds after which an agent that nobody ever spoke to ends."""

_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid (unix(7))
_INTS = struct.Struct("=" + "i" * DESCRIPTORS)
_CONTROL = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(8 * _INTS.size)


@dataclass(frozen=True, slots=True)
class _Message:
    data: bytes
    fds: list[int]
    truncated: bool
    pid: int
    uid: int
    gid: int


@dataclass(eq=False, slots=True)
class _Channel:
    sock: socket.socket
    peer: tuple[int, int, int]
    received: int = field(default=0)


def listen(path: Path) -> socket.socket:
    """Make the agent's socket, mode 0600, in the place of one that a killed agent has left.

    Raises:
        OSError: the path is taken or cannot be made.
    """
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # of two that find a dead agent's socket, one comes second
        if _is_abandoned(path):
            path.unlink()
        return _bind(path)
    finally:
        os.close(folder)


def _is_abandoned(path: Path) -> bool:
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
        return sock.connect_ex(str(path)) == ECONNREFUSED


def _bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    sock.listen(BACKLOG)
    return sock


class Server:
    """Accept channels, read requests, keep the connections.

    Args:
        listener: as `listen` makes it.
        shared: what connections share.
        exit_when_idle: call `idle` when the last channel and the last connection have gone.
        idle: told so, once.
    """

    def __init__(
        self, listener: socket.socket, shared: Shared, *, exit_when_idle: bool, idle: Callable[[], None]
    ) -> None:
        self._listener, self._shared, self._idle = listener, shared, idle
        self._exit_when_idle = exit_when_idle
        self._channels: set[_Channel] = set()
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._memory = Memory(shared.loop, shared.pool)
        self._count = 0
        budget = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS
        self._most_channels = max(1, budget // 4)
        self._most = max(1, (budget - self._most_channels) // FDS_EACH)
        listener.setblocking(False)
        shared.loop.add_reader(listener.fileno(), self._accept)
        self._patience = shared.loop.call_later(FIRST_CHANNEL, self._look_idle) if exit_when_idle else None

    def living(self) -> Iterable[Connection]:
        """Return the connections that are there."""
        return self._connections.values()

    async def stop(self) -> None:
        """Take no more requests, end every connection in order."""
        self._shared.loop.remove_reader(self._listener.fileno())
        if self._patience is not None:
            self._patience.cancel()
        for channel in list(self._channels):
            self._drop(channel)
        for connection in self._connections.values():
            connection.stop()
        if self._connections:
            await asyncio.wait(self._connections)
        self._memory.close()

    # --- channels ------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # EMFILE: the bound on connections leaves spare descriptors; whoever asked asks again
            return
        peer = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if os.geteuid() not in (0, peer[1]) or len(self._channels) >= self._most_channels:
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        channel = _Channel(sock, peer)
        self._channels.add(channel)
        if self._patience is not None:
            self._patience.cancel()
        self._shared.loop.add_reader(sock.fileno(), self._read, channel)

    def _drop(self, channel: _Channel) -> None:
        self._channels.discard(channel)
        self._shared.loop.remove_reader(channel.sock.fileno())
        channel.sock.close()
        self._look_idle()

    def _read(self, channel: _Channel) -> None:
        for _ in range(TURN):
            try:
                message = _receive(channel)
            except BlockingIOError:
                return
            except OSError:
                message = None
            if message is None or not self._take(message):
                self._drop(channel)
                return

    def _take(self, message: _Message) -> bool:
        """False when it is malformed."""
        try:
            asked = self._understand(message)
        except AgentProtocolError as error:
            self._shared.report.write(
                "malformed", {"pid": message.pid, "error": error.reason, "message": error.message}
            )
            return False
        if asked is None:
            return True
        self._count += 1
        if len(self._connections) >= self._most:
            self._refuse(asked)
            return True
        connection = Connection(asked, self._count, self._shared)
        if connection.decide():
            task = self._shared.loop.create_task(connection.run())
            self._connections[task] = connection
            task.add_done_callback(self._ended)
            self._memory.note(len(self._connections))
        return True

    def _understand(self, message: _Message) -> Asked | None:
        """A request; None for a notice, which is written down. Takes over the message's descriptors, or closes them."""
        owned = list(message.fds)
        try:
            if message.truncated:
                raise AgentProtocolError(f"request with more than {MAX_REQUEST} bytes or too many descriptors")
            said = parse_message(message.data, len(message.fds))
            program = program_of(message.pid, message.uid, message.gid)
            if isinstance(said, Request):
                return Asked(said, *_sockets(owned), program)
        finally:
            for fd in owned:
                os.close(fd)
        facts = {"pid": message.pid, "program": program.path, "message": said.text, "allowed": said.allowed}
        self._shared.report.write("uncovered", facts)
        return None

    def _refuse(self, asked: Asked) -> None:
        failure = ResourceExhausted(f"{self._most} connections are served already")
        with contextlib.suppress(OSError):
            Gate(asked.b, 0, self._shared.poller).answer(VerdictCode.DENY, failure.errno)
        facts = {"id": self._count, "pid": asked.program.pid, "error": failure.reason, "message": failure.message}
        self._shared.report.write("failed", facts | {"errno": failure.errno})
        asked.r.close()
        asked.b.close()

    # --- ends ----------------------------------------------------------------------------------------------------

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._connections[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._shared.loop.call_exception_handler({"message": "a connection ended badly", "exception": error})
        self._look_idle()
        self._memory.note(len(self._connections))

    def _look_idle(self) -> None:
        if not self._exit_when_idle or self._channels or self._connections:
            return
        if self._shared.unprotected.waits:
            self._shared.unprotected.settle(self._look_idle)
            return
        self._exit_when_idle = False
        self._idle()


def _receive(channel: _Channel) -> _Message | None:
    """One message; None at the end of the channel."""
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, control, got, _ = channel.sock.recvmsg(MAX_REQUEST + 1, _CONTROL, flags)
    fds: list[int] = []
    pid, uid, gid = channel.peer
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = content[: len(content) - len(content) % 4]
            fds += struct.unpack(f"={len(whole) // 4}i", whole)
        elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            sender = _UCRED.unpack(content[: _UCRED.size])
            if sender[0]:  # 0: sent before we asked for credentials; then whoever connected is the sender
                pid, uid, gid = sender
    if not data and not fds:
        return None
    return _Message(data, fds, bool(got & (socket.MSG_CTRUNC | socket.MSG_TRUNC)), pid, uid, gid)


def _sockets(owned: list[int]) -> tuple[socket.socket, socket.socket]:
    """R and B out of a request's descriptors, which are then no longer in `owned`."""
    r, b = (_socket(fd, owned) for fd in list(owned))
    try:
        _check(r, b)
    except (AgentProtocolError, OSError) as error:
        r.close()
        b.close()
        raise AgentProtocolError(str(error)) from error
    return r, b


def _socket(fd: int, owned: list[int]) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise AgentProtocolError("request with a descriptor that is no socket") from error
    owned.remove(fd)
    return sock


def _check(r: socket.socket, b: socket.socket) -> None:
    if r.family not in (socket.AF_INET, socket.AF_INET6) or r.proto != socket.IPPROTO_TCP:
        raise AgentProtocolError("request whose first descriptor is no TCP socket")
    if b.family != socket.AF_UNIX or b.type != socket.SOCK_STREAM:
        raise AgentProtocolError("request whose second descriptor is no Unix stream socket")
    b.getpeername()  # OSError when it is not one end of a pair

"""The agent's process: hardened, one asyncio loop, ready only when it serves, gone when nobody needs it."""

import asyncio
import contextlib
import ctypes
import dataclasses
import os
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from ktls.agent.following import Following
from ktls.agent.ledger import Ledger
from ktls.agent.report import Report
from ktls.agent.server import Server, listen
from ktls.agent.shared import Shared
from ktls.agent.swap import Opened, Swap, keyrings_of, opened
from ktls.agent.watching import Watcher
from ktls.errors import UsageError
from ktls.keyring import Keyring
from ktls.sources import Source
from policy.model import Policy
from policy.records import records_path

READY = b"ready\n"
_PR_SET_DUMPABLE = 4  # include/uapi/linux/prctl.h


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How an agent is to run.

    Args:
        source: the policy, and what may change it.
        socket_path: where to listen; or
        listen_fd: a listening SOCK_SEQPACKET socket.
        log: the report, JSON lines, appended to; nowhere if None.
        ready_fd: where to write "ready\\n" once it serves; closed after that.
        observe: decide and record as the policy says, and leave every connection clear.
        shared: serve until SIGTERM or SIGINT. Otherwise the agent belongs to one `ktls run`: it ends with the last
            program, and removes its socket and the socket's directory.
    """

    source: Source
    socket_path: Path | None = None
    listen_fd: int | None = None
    log: Path | None = None
    ready_fd: int | None = None
    observe: bool = False
    shared: bool = False


def run(settings: AgentSettings) -> None:
    """Be the agent, until it is told to end or nobody is left.

    Raises:
        KeyringError: a keyring of the policy cannot be opened.
        UsageError: the socket or the log cannot be opened. Nothing has been served.
    """
    harden()
    try:
        kept = records_path(os.environ)
        report = Report(settings.log, None if kept is None else Ledger(kept))
    except OSError as error:
        raise UsageError(f"{settings.log}: {error.strerror}") from error
    with contextlib.ExitStack() as stack:
        following, policy = None, settings.source.policy
        if settings.source.database is not None:
            following = Following(settings.source.database, report)
            stack.callback(following.stop)
            policy = following.start()
        if policy is None:
            raise UsageError("an agent needs a policy, or a database to follow")
        begin = Begin(policy, open_keyrings(policy), following)
        listener = stack.enter_context(_listener(settings))
        stack.callback(_remove, settings)
        asyncio.run(_serve(settings, begin, listener, report))


def open_keyrings(policy: Policy) -> dict[Keyring, Opened]:
    """Open every keyring that a rule of the policy may need.

    An agent whose keyrings cannot be opened does not start.

    Raises:
        KeyringError: one cannot be opened.
    """
    return {keyring: opened(keyring) for keyring in keyrings_of(policy)}


def harden() -> None:
    """Keep secrets in this process: no core dump, no ptrace, nothing readable for others."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o077)


def _listener(settings: AgentSettings) -> socket.socket:
    if settings.listen_fd is not None:
        return socket.socket(fileno=settings.listen_fd)
    if settings.socket_path is None:
        raise UsageError("an agent needs a socket path or a listening descriptor")
    try:
        return listen(settings.socket_path)
    except OSError as error:
        raise UsageError(f"{settings.socket_path}: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class Begin:
    """What an agent begins with.

    Args:
        policy: that decides.
        keyrings: of it, opened.
        following: brings others.
    """

    policy: Policy
    keyrings: dict[Keyring, Opened]
    following: Following | None


async def _serve(settings: AgentSettings, begin: Begin, listener: socket.socket, report: Report) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    policy = dataclasses.replace(begin.policy, mode="observe") if settings.observe else begin.policy
    shared = Shared(policy, report)
    server = Server(listener, shared, exit_when_idle=not settings.shared, idle=ending.set)
    swap = Swap(shared, begin.keyrings, server.living, observe=settings.observe)
    if begin.following is not None:
        begin.following.attach(swap)
    watcher = Watcher(swap, report, settings.source.file)
    try:
        _tell_ready(settings.ready_fd)
        watcher.start()
        await ending.wait()
        watcher.stop()
        if begin.following is not None:
            await asyncio.to_thread(begin.following.stop)  # while the loop is there for what is just being handed over
        await server.stop()
    finally:
        shared.close()


def _tell_ready(fd: int | None) -> None:
    """The one line that makes an agent ready."""
    if fd is not None:
        with contextlib.suppress(BrokenPipeError):  # whoever started us has gone; the programs may still come
            os.write(fd, READY)
        os.close(fd)


def _remove(settings: AgentSettings) -> None:
    if settings.socket_path is None:
        return
    settings.socket_path.unlink(missing_ok=True)
    if not settings.shared:
        with contextlib.suppress(OSError):  # not empty: somebody else's
            settings.socket_path.parent.rmdir()

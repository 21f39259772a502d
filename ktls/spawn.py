"""Start an agent for one `ktls run`, as a process the program will never notice.

The program takes over the launcher's process, so the agent must be no child of it (a child that the program did not
start would turn up in its waitpid() and SIGCHLD), in no terminal session of it (Ctrl-C is for the program), and hold
none of its descriptors (a pipe stays open while anybody holds it). Hence the double fork, setsid() and the closing of
everything.

The agent forks off before its own modules are imported: the program never pays for them.
"""

import fcntl
import gc
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ktls.errors import AgentUnreachable, KtlsError, UsageError

READY = b"ready\n"
START_DEADLINE = 10.0  # seconds; a start takes a tenth of one
ANSWER_MAX = 4096  # bytes of an agent's last words
SOCKET_PATH_MAX = 107  # bytes; sun_path holds 108 with its terminator, unix(7)
SOCKET_NAME = "agent.sock"

AgentBody = Callable[[Path, int], None]
"""Serves on the socket path until nobody is left, after writing READY to the descriptor and closing it."""


def runtime_directory(environment: "os._Environ[str] | dict[str, str]") -> Path:
    """Make a fresh directory of mode 0700 for the agent's socket.

    Args:
        environment: where XDG_RUNTIME_DIR is looked up; without it, or where it is too long for a socket, /tmp serves.

    Returns:
        Its path. The agent removes it when it ends.

    Raises:
        UsageError: no such directory can be made.
    """
    name = f"ktls-{os.getpid()}-{os.urandom(4).hex()}"
    problem = "no XDG_RUNTIME_DIR"
    for parent in (environment.get("XDG_RUNTIME_DIR", ""), "/tmp"):  # noqa: S108 - mkdir() refuses what exists
        directory = Path(parent) / name
        if not parent.startswith("/") or len(os.fsencode(directory / SOCKET_NAME)) > SOCKET_PATH_MAX:
            continue
        try:
            directory.mkdir(mode=0o700)
        except OSError as error:
            problem = f"{directory}: {error.strerror}"
        else:
            return directory
    raise UsageError(f"no directory for the agent's socket can be made: {problem}")


def start_agent(body: AgentBody, directory: Path, log: Path | None) -> Path:
    """Start an agent and wait until it serves.

    Args:
        body: what the agent does, called in its process.
        directory: a fresh directory for its socket.
        log: where what it says on standard error goes; nowhere if None.

    Returns:
        The path of its socket.

    Raises:
        AgentUnreachable: it did not come up; the message has its own words. The directory is gone then.
    """
    path = directory / SOCKET_NAME
    receive, send = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become_agent(body, path, send, log)
    os.close(send)
    try:
        os.waitpid(child, 0)
        answer = _await_answer(receive)
    finally:
        os.close(receive)
    if answer != READY:
        _remove(directory)
        words = answer.decode(errors="replace").strip() or "it ended without a word"
        raise AgentUnreachable(f"the agent did not start: {words}", hint="")
    return path


def _await_answer(receive: int) -> bytes:
    poll = select.poll()
    poll.register(receive, select.POLLIN)
    answer = b""
    while answer != READY and len(answer) < ANSWER_MAX:
        if not poll.poll(START_DEADLINE * 1000):
            return f"no answer within {START_DEADLINE:g} s".encode()
        chunk = os.read(receive, ANSWER_MAX)
        if not chunk:
            break
        answer += chunk
    return answer


def _remove(directory: Path) -> None:
    (directory / SOCKET_NAME).unlink(missing_ok=True)
    # The agent may have removed it already: that is as well.
    if directory.exists():
        directory.rmdir()


def _become_agent(body: AgentBody, path: Path, send: int, log: Path | None) -> NoReturn:
    """Be the agent, from the launcher's fork to the end of the process."""
    try:
        gc.freeze()  # what the launcher has left is never collected: it may own numbers that are the agent's by then
        os.setsid()
        if os.fork():
            os._exit(0)
        send = _detach(send, log)
        _serve(body, path, send)
    finally:
        os._exit(1)  # never return into the launcher, whatever went wrong


def _serve(body: AgentBody, path: Path, send: int) -> None:
    try:
        body(path, send)
    except KtlsError as error:
        _last_words(send, f"{error.message}\n{error.hint}".strip())
    except BaseException as error:
        _last_words(send, f"{type(error).__name__}: {error}")
    else:
        os._exit(0)


def _detach(send: int, log: Path | None) -> int:
    """Let go of all that is the program's; returns where the answer goes now."""
    null = os.open(os.devnull, os.O_RDWR)
    errors = null if log is None else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    keep = fcntl.fcntl(send, fcntl.F_DUPFD_CLOEXEC, 3)  # whoever started us may have closed 0, 1 or 2
    os.dup2(null, 0)
    os.dup2(errors, 2)
    os.dup2(null, 1)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    _forget_streams()
    os.chdir("/")
    os.umask(0o077)
    return keep


_INHERITED: list[object] = []
"""Streams of whoever started the agent: to let go of one would close its number, which is another's by then."""


def _forget_streams() -> None:
    """Write to 1 and 2, whatever the launcher had made of its streams and its log."""
    _INHERITED.extend((sys.stdout, sys.stderr))
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", 1, "utf-8", "backslashreplace", closefd=False) for fd in (1, 2))
    logging = sys.modules.get("logging")  # not for the agent's sake: the program waits for what is imported here
    if logging is not None:
        _INHERITED.extend(logging.root.handlers)
        logging.root.handlers.clear()


def _last_words(send: int, text: str) -> None:
    try:
        os.write(send, text.encode(errors="replace")[:ANSWER_MAX])
    except OSError:  # after READY it is closed: the log has it
        os.write(2, f"ktls agent: {text}\n".encode(errors="replace"))

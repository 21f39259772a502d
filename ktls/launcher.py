"""`ktls run`: put a program under TLS and become it.

Order matters here:

1. policy first: a mistake in it stops everything before anything has happened;
2. the program: found as a shell finds it, refused where the shim would not reach it;
3. the agent: the one KTLS_AGENT names, or one of its own with this policy;
4. what the program inherits: the channel to the agent at ``2 * base``, variables, a filter against io_uring;
5. exec in place: the same process, terminal, signals and, later, exit status.

An agent of its own is started whenever the command line says what to protect: to hand those words to an agent that
already runs with another policy would be to ignore them. Imports are few: this runs before every program.
"""

import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from ktls import elf, limits
from ktls.errors import AgentUnreachable, ConfigError, KtlsError, Uncovered, UsageError
from ktls.run_options import HELP, RunOptions, parse
from ktls.seccomp import forbid_io_uring
from ktls.sources import Source, source_of
from ktls.spawn import runtime_directory, start_agent

EXIT_USAGE = 2
EXIT_FAILED = 125  # as env(1) and timeout(1) have it
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127

SHIM = Path(__file__).with_name("shim") / "libktls.so"
CONNECT_SECONDS = 5  # to be taken in by an agent whose queue is full


class CommandNotFound(UsageError):
    """No program of that name on PATH."""

    reason = "command-not-found"


class CommandNotRunnable(UsageError):
    """A file of that name that cannot be executed."""

    reason = "command-not-runnable"


def main(arguments: list[str]) -> int:
    """Run `ktls run`.

    Args:
        arguments: what follows `run`.

    Returns:
        An exit status, only where no program was started; otherwise this process is the program by then.
    """
    try:
        options = parse(arguments)
        if options.help:
            sys.stdout.write(HELP)
            return 0
        run(options)
    except KtlsError as error:
        complain(error)
        return exit_status(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def complain(error: KtlsError) -> None:
    """Say on standard error what went wrong and what to do about it."""
    sys.stderr.write(f"ktls: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"  hint: {error.hint}\n")


def exit_status(error: KtlsError) -> int:
    """Choose the exit status that tells a shell whose fault it was.

    >>> exit_status(CommandNotFound("nosuch: command not found"))
    127
    """
    match error:
        case CommandNotFound():
            return EXIT_NOT_FOUND
        case CommandNotRunnable() | Uncovered():
            return EXIT_CANNOT_RUN
        case ConfigError():
            return EXIT_USAGE
        case _:
            return EXIT_FAILED


def run(options: RunOptions) -> NoReturn:
    """Become the program.

    Args:
        options: with a command.

    Raises:
        KtlsError: nothing was run.
    """
    covered = is_covered(os.environ)
    if covered and (options.ports or options.policy or options.allow_uncovered):
        raise UsageError(
            "this process already runs under `ktls run`, whose policy stands",
            hint="start it outside, or without --policy, --inbound, --outbound and --allow-uncovered",
        )
    source = source_of(options, os.environ)
    path = find_command(options.command[0], os.environ.get("PATH", os.defpath))
    preload = shim_libraries(os.environ)
    try:
        elf.check_covered(path, elf.read_image(Path(preload[-1])), elf.read_image(Path(sys.executable)).loader)
    except Uncovered as error:
        if not options.allow_uncovered:
            raise
        sys.stderr.write(f"ktls: {error.message}: running it in clear, as --allow-uncovered says\n")
    if covered:
        _exec(path, options.command, os.environ)
    base, soft = limits.raise_limit()
    agent = _own_agent(source, options) if source is not None else Path(os.environ["KTLS_AGENT"]).absolute()
    channel = connect(agent)
    os.dup2(channel.fileno(), 2 * base, inheritable=True)
    limits.restore_limit(soft)
    try:
        forbid_io_uring()
    except Uncovered:
        if not options.allow_uncovered:
            raise
    environment = covered_environment(os.environ, preload, agent, base, allow_uncovered=options.allow_uncovered)
    _exec(path, options.command, environment)


def find_command(name: str, search: str) -> Path:
    """Find a program as a shell does.

    Args:
        name: a name to look for, or a path where it has a slash.
        search: the value of PATH; an empty part is the current directory.

    Returns:
        The file to execute.

    Raises:
        CommandNotFound: there is none.
        CommandNotRunnable: there is one, but it is a directory or may not be executed.

    >>> find_command("sh", "/nowhere:/bin")
    PosixPath('/bin/sh')
    """
    candidates = [Path(name)] if "/" in name else [Path(part or ".") / name for part in search.split(":")]
    unusable: Path | None = None
    for path in candidates if name else ():
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and os.access(path, os.X_OK):
            return path
        if unusable is None and ("/" in name or not stat.S_ISDIR(mode)):
            unusable = path
    if unusable is not None:
        why = "is a directory" if unusable.is_dir() else "permission denied"
        raise CommandNotRunnable(f"{unusable}: {why}", hint="")
    raise CommandNotFound(f"{name}: {'no such file' if '/' in name else 'command not found'}", hint="")


def shim_libraries(environment: Mapping[str, str]) -> list[str]:
    """List the libraries to preload, the shim last.

    Args:
        environment: KTLS_SHIM names another build of the shim, with the libraries it needs before it, between colons.

    Raises:
        Uncovered: there is no shim, or its path cannot be written in LD_PRELOAD.
    """
    libraries = environment.get("KTLS_SHIM", "").split(":") if environment.get("KTLS_SHIM") else [str(SHIM)]
    for library in libraries:
        if " " in library or ":" in library:
            raise Uncovered(f"{library!r} cannot be preloaded: LD_PRELOAD has no way to write a space or a colon")
        if not Path(library).is_file():
            raise Uncovered(f"there is no shim at {library}", hint="build it: make -C ktls/shim")
    return libraries


def is_covered(environment: Mapping[str, str]) -> bool:
    """Tell whether this very process runs under the shim, as one started by a program under `ktls run` does."""
    preloaded = environment.get("LD_PRELOAD", "").replace(":", " ").split()
    return "KTLS_FD_BASE" in environment and any(Path(library).name == SHIM.name for library in preloaded)


def covered_environment(
    environment: Mapping[str, str], preload: list[str], agent: Path, base: int, *, allow_uncovered: bool = False
) -> dict[str, str]:
    """Make the program's environment: its own, and what the shim needs."""
    earlier = environment.get("LD_PRELOAD", "")
    made = {name: value for name, value in environment.items() if name != "KTLS_UNCOVERED"}
    made["LD_PRELOAD"] = ":".join([*preload, earlier] if earlier else preload)
    made |= {"KTLS_AGENT": str(agent), "KTLS_FD_BASE": str(base)}
    return made | ({"KTLS_UNCOVERED": "allow"} if allow_uncovered else {})


def connect(agent: Path) -> socket.socket:
    """Open a channel to an agent.

    Args:
        agent: the path of its socket.

    Raises:
        AgentUnreachable: nobody serves there.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # A time limit that leaves O_NONBLOCK alone, since the program's processes will share this socket.
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", CONNECT_SECONDS, 0))
        channel.connect(str(agent))
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
    except OSError as error:
        channel.close()
        raise AgentUnreachable(f"no agent answers at {agent}: {error.strerror or error}") from error
    return channel


def _own_agent(source: Source, options: RunOptions) -> Path:
    """Start an agent with this policy, for this program."""
    log, observe = Path(options.log).absolute() if options.log else None, options.observe
    if log is not None:
        try:
            os.close(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        except OSError as error:
            raise UsageError(f"--log {log}: {error.strerror}") from error

    def body(path: Path, ready: int) -> None:
        from ktls.agent.main import AgentSettings, run  # noqa: PLC0415 - the agent's imports are the agent's

        how = AgentSettings(source=source, socket_path=path, log=log, ready_fd=ready, observe=observe)
        run(how)

    return start_agent(body, runtime_directory(os.environ), log)


def _exec(path: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> NoReturn:
    # Python ignores these two for itself; every other disposition and the mask are as we were given them.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execve(path, command, environment)
    except OSError as error:
        raise CommandNotRunnable(f"{path}: {error.strerror}", hint="") from error

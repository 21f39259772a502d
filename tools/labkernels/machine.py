"""Start a lab kernel, pass on what the command prints, learn how it ended, and leave nothing behind.

The kernel is started by a small shell (`KEEPER`) that waits for it and, when told by SIGTERM, takes all of it away, and
the run's folder with it. Linux sends that signal too should this process die (PDEATHSIG). Killing the one process that
was started would not do: user-mode Linux makes a session of its own and runs each guest process as a process of the
host, and those outlive it.
"""

import contextlib
import ctypes
import json
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import guest
from .errors import LostMachine, TimedOut

# $1 is the run's folder, the rest the command. The kernel is in our process group or, with all its processes, in one of
# its own.
KEEPER = """folder=$1; shift
kernel=
end() { [ -z "$kernel" ] || kill -9 "$kernel" "-$kernel" 2>/dev/null; }
trap 'end; wait; rm -rf -- "$folder"; kill -9 -- "-$$"' TERM
"$@" & kernel=$!
wait "$kernel"
end
"""
LOG_TAIL = 60  # lines of the kernel's log shown when it is lost


@dataclass(frozen=True, slots=True)
class Machine:
    """How one lab kernel is started.

    Args:
        name: for messages.
        command: the program and its arguments; its stdout and stderr are the kernel's log.
        folder: the run's folder, with the guest's order in it.
        timeout: seconds, boot included, or None.
        environment: of the program, not of the guest; None for our own.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    timeout: float | None
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Pipes:
    """The pipes that carry the command's stdout and stderr out of the machine.

    Args:
        read_ends: ours.
        write_ends: the kernel program's, which inherits them under the same numbers.
    """

    read_ends: tuple[int, int]
    write_ends: tuple[int, int]

    @classmethod
    def open(cls) -> "Pipes":
        """Make both pipes."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        return cls((out, err), (out_end, err_end))


def write_init(folder: Path) -> None:
    """Write the guest's first program: the kernel runs a path without arguments, so this gives them."""
    python = Path(sys.executable).resolve()
    words = [str(python), "-I", "-S", "-X", "utf8", str(Path(guest.__file__).resolve()), str(folder)]
    init = folder / "init"
    init.write_text(f"#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin\nexec {shlex.join(words)}\n")
    init.chmod(0o755)


def run(machine: Machine, pipes: Pipes) -> int:
    """Run a machine to its end.

    Args:
        machine: what to start.
        pipes: what carries the command's output; closed at the end.

    Returns:
        the command's exit status.

    Raises:
        TimedOut: after `machine.timeout` seconds; the machine is gone.
        LostMachine: it ended without a status.
    """
    deadline = None if machine.timeout is None else time.monotonic() + machine.timeout
    log = machine.folder / "kernel.log"
    with started(machine, log, pipes.write_ends) as process:
        if not pass_on(process, pipes.read_ends, deadline):
            raise TimedOut(f"{machine.name}: killed after {machine.timeout:g} s")
    return read_status(machine, log)


@contextlib.contextmanager
def started(machine: Machine, log: Path, inherit: tuple[int, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the machine under its keeper; at the end, however it comes, the keeper ends all of it."""
    adopt_orphans()
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "sh", "-c", KEEPER, "lab", str(machine.folder), *machine.command],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            pass_fds=inherit, start_new_session=True, cwd=machine.folder, env=machine.environment,
        )  # fmt: skip
        try:
            for descriptor in inherit:
                os.close(descriptor)
            yield process
        finally:
            process.terminate()
            process.wait()
            end_orphans()


def adopt_orphans() -> None:
    """Become the parent of what the kernel's processes leave behind when they are killed (prctl(2))."""
    pr_set_child_subreaper = 36  # include/uapi/linux/prctl.h
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def end_orphans() -> None:
    """Wait for the machine's last processes, killing what the keeper did not reach: all orphans are ours."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(ChildProcessError):
        while True:
            # Not on kernels without CONFIG_PROC_CHILDREN; there the keeper's work has to do.
            for child in children.read_text().split() if children.exists() else ():
                os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit(128 + N), so that the way out is the one of every other end."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pass_on(process: subprocess.Popen[bytes], streams: tuple[int, int], deadline: float | None) -> bool:
    """Copy both streams to our own stdout and stderr as they come, until the machine ends.

    Returns:
        False when the deadline came first.
    """
    targets = dict(zip(streams, (sys.stdout.fileno(), sys.stderr.fileno()), strict=True))
    ended = os.pidfd_open(process.pid)
    with selectors.DefaultSelector() as selector:
        for descriptor in (*streams, ended):
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        try:
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                ready = {key.fd for key, _ in selector.select(left)}
                for descriptor in ready - {ended}:
                    if not copy(descriptor, targets[descriptor]):
                        selector.unregister(descriptor)
                if ended in ready:
                    for descriptor in streams:
                        while copy(descriptor, targets[descriptor]):
                            pass
                    return True
        finally:
            for descriptor in (*streams, ended):
                os.close(descriptor)


def copy(source: int, target: int) -> bool:
    """Copy what one read gives; False at the end, or when there is nothing now."""
    try:
        chunk = os.read(source, 65536)
    except BlockingIOError:
        return False
    left = chunk
    while left:
        left = left[os.write(target, left) :]
    return bool(chunk)


def read_status(machine: Machine, log: Path) -> int:
    """Return the status the guest wrote.

    Raises:
        LostMachine: there is none, or the guest could not even start the command.
    """
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
    try:
        outcome = json.loads((machine.folder / "status.json").read_text())
    except FileNotFoundError:
        raise LostMachine(
            f"{machine.name}: the kernel went away without a status; whether the command succeeded is not known",
            log=tail,
        ) from None
    if "error" in outcome:
        raise LostMachine(f"{machine.name}: the guest could not run the command\n{outcome['error'].rstrip()}", log=tail)
    return int(outcome["status"])

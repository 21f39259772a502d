"""What is to be run, as the guest reads it: command, environment, current directory."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

# Things of the host's session that name sockets, terminals or folders which the guest does not have, or that would
# act on the lab's own processes there.
LEFT_OUT = frozenset({
    "TMPDIR", "TEMP", "TMP", "OLDPWD", "SHLVL", "_", "LD_PRELOAD", "MAKEFLAGS", "MFLAGS", "MAKELEVEL",
    "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "SSH_CONNECTION",
    "SSH_CLIENT", "SSH_TTY", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "INVOCATION_ID", "JOURNAL_STREAM",
    "XDG_RUNTIME_DIR", "KTLS_AGENT", "KTLS_FD_BASE",
})  # fmt: skip
# The guest has its own; a current directory there would be another one.
GUEST_OWNED = ("/proc", "/sys", "/dev", "/run")
SCRATCH = "/run/ktls-lab"
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True)
class Job:
    """One command for a lab kernel.

    Args:
        command: program and arguments.
        directory: current directory, an absolute path.
        environment: the whole environment of the command.
        cpus: how many CPUs, or None for the kernel's own default.
        memory: memory in MiB.
        timeout: seconds until everything is killed, or None.
    """

    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str]
    cpus: int | None = None
    memory: int = 2048
    timeout: float | None = None

    def __post_init__(self) -> None:
        """Refuse what the guest could only fail at."""
        if any(self.directory.is_relative_to(folder) for folder in GUEST_OWNED):
            raise LabError(
                f"the current directory {self.directory} is not the same in the guest",
                hint=f"run from a directory outside {', '.join(GUEST_OWNED)}",
            )


def guest_environment(host: Mapping[str, str], project: Path, kernel: str) -> dict[str, str]:
    """Return the command's environment: the host's, with the project's `.venv` first and scratch space on a tmpfs.

    Args:
        host: the environment of tools/lab.
        project: root of the checkout; its `.venv` is used when it is there.
        kernel: "uml" or "qemu", told to the command as KTLS_LAB.
    """
    environment = {name: value for name, value in host.items() if name not in LEFT_OUT}
    path = [folder for folder in host.get("PATH", "").split(os.pathsep) if folder]
    path += [folder for folder in SYSTEM_PATH if folder not in path]
    venv = project / ".venv"
    if (venv / "bin").is_dir():
        path.insert(0, str(venv / "bin"))
        environment["VIRTUAL_ENV"] = str(venv)
    options = environment.get("PYTEST_ADDOPTS", "").split()
    environment |= {
        "PATH": os.pathsep.join(path),
        "HOME": host.get("HOME", "/root"),
        "TMPDIR": SCRATCH,
        "XDG_RUNTIME_DIR": SCRATCH,  # where sockets can be bound: not on the host's file systems
        "PYTHONUNBUFFERED": "1",  # what it prints arrives while it runs
        # Root in the guest must leave no caches in the checkout that its owner cannot remove.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": " ".join([*options, "-p no:cacheprovider"]),
        "KTLS_LAB": kernel,
    }
    return environment


def guest_order(job: Job, *, streams: tuple[str, str], modules: Path, preload: tuple[str, ...]) -> str:
    """Return, as JSON, what `guest` reads at start.

    Args:
        job: the command.
        streams: devices in the guest that carry stdout and stderr.
        modules: folder whose lib/modules/VERSION holds the kernel's modules.
        preload: modules to load before the command runs.
    """
    return json.dumps(
        {
            "command": job.command,
            "directory": str(job.directory),
            "environment": dict(job.environment),
            "streams": streams,
            "modules": str(modules),
            "preload": preload,
            "scratch": SCRATCH,
        }
    )

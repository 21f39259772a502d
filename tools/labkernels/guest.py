"""The first process in a lab kernel: mounts, modules, the command, its status, power off.

Started by the kernel as `python -I -S guest.py FOLDER`; FOLDER (on the host's file system) holds `order.json` in and
`status.json` out. Everything here happens in the guest. It uses the standard library alone and imports none of the
lab's other modules, so that it starts quickly and from any folder.

The command gets pipes, not the serial lines themselves, so that it does not believe to be on a terminal; a thread per
stream carries bytes on to the line, which is set raw: what arrives on the host is what was written. When the command
ends everything else in the guest is killed, what is left in the pipes is carried out, and only then the status is
written: a status file means that all output is out.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import termios
import threading
import time
import traceback
import tty
from pathlib import Path
from typing import Any

OPEN_FILES = 1 << 20  # hard limit; the soft one stays what the kernel gives (1024), as select() users expect
DRAIN_SECONDS = 30.0

# fstab(5). One `mount -a` for all: in user-mode Linux starting a program costs some 50 ms. A row that this kernel lacks
# is passed over.
MOUNTS = """\
sysfs     /sys                 sysfs     nofail
devtmpfs  /dev                 devtmpfs  nofail
tmpfs     /run                 tmpfs     nofail,mode=0755
devpts    /dev/pts             devpts    nofail,mode=0620,ptmxmode=0666,X-mount.mkdir
tmpfs     /dev/shm             tmpfs     nofail,mode=1777,X-mount.mkdir
cgroup2   /sys/fs/cgroup       cgroup2   nofail
debugfs   /sys/kernel/debug    debugfs   nofail
tracefs   /sys/kernel/tracing  tracefs   nofail
"""


def main(folder: Path) -> None:
    """Do the order in `folder`, and never return: the machine is powered off."""
    try:
        prepare(folder)
        order = json.loads((folder / "order.json").read_text())
        outcome: dict[str, Any] = {"status": run(order, folder)}
    except BaseException:  # nobody else is there to tell: the host reports it as the lab's failure
        outcome = {"error": traceback.format_exc()}
    part = folder / "status.part"
    part.write_text(json.dumps(outcome))
    part.rename(folder / "status.json")
    os.sync()
    Path("/proc/sysrq-trigger").write_text("o")
    while True:
        time.sleep(60)


def prepare(folder: Path) -> None:
    """Mount the usual file systems. What is missing afterwards shows where it is first needed."""
    table = folder / "fstab"
    table.write_text(MOUNTS)
    quiet = subprocess.DEVNULL
    # First of all: what the root file system shows there is the host's, whose mounts `mount -a` would take for ours.
    subprocess.run(["mount", "-n", "-t", "proc", "proc", "/proc"], check=True)
    subprocess.run(["mount", "-n", "-a", "-T", str(table)], stdout=quiet, stderr=quiet, check=False)


def load_modules(order: dict[str, Any], folder: Path) -> dict[str, str]:
    """Load the modules of the order, and let the kernel and the command find all others.

    Returns:
        environment variables that make the command's own modprobe find them.
    """
    options = f"-d {order['modules']}"
    # What the kernel asks for by itself (tcp-ulp-tls, rtnl-link-veth, crypto-...) goes through this program.
    helper = folder / "modprobe"
    helper.write_text(f'#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin exec modprobe {options} "$@"\n')
    helper.chmod(0o755)
    Path("/proc/sys/kernel/modprobe").write_text(str(helper))
    if order["preload"]:
        subprocess.run(
            ["modprobe", "-d", order["modules"], "-a", *order["preload"]],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    return {"MODPROBE_OPTIONS": options}


def run(order: dict[str, Any], folder: Path) -> int:
    """Run the command to its end.

    Returns:
        its exit status as a shell gives it: 128 + N when signal N killed it, 126 or 127 when it could not be run.
    """
    environment = order["environment"] | load_modules(order, folder)
    Path("/proc/sys/kernel/hostname").write_text("ktls-lab")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    scratch = Path(order["scratch"])
    scratch.mkdir(parents=True, exist_ok=True)
    scratch.chmod(0o1777)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, OPEN_FILES))
    lines = [open_line(device) for device in order["streams"]]
    try:
        process = subprocess.Popen(
            order["command"], cwd=order["directory"], env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        os.write(lines[1], f"{error.strerror}: {error.filename or order['command'][0]}\n".encode())
        drain(lines[1])
        return 127 if isinstance(error, FileNotFoundError) else 126
    assert process.stdout is not None
    assert process.stderr is not None
    carriers = [
        threading.Thread(target=carry, args=(pipe.fileno(), line), daemon=True)
        for pipe, line in zip((process.stdout, process.stderr), lines, strict=True)
    ]
    for carrier in carriers:
        carrier.start()
    status = reap_until(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # everything but this process: the pipes end
    for carrier in carriers:
        carrier.join(DRAIN_SECONDS)
    return status


def open_line(device: str) -> int:
    """Open a line to the host that carries bytes as they are.

    Args:
        device: a serial line, /dev/ttyS0, or a port, virtio:NAME, which the kernel numbers as it finds them.
    """
    if device.startswith("virtio:"):
        ports = Path("/sys/class/virtio-ports").glob("*/name")
        device = next(f"/dev/{port.parent.name}" for port in ports if port.read_text().strip() == device[7:])
    line = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.isatty(line):
        tty.setraw(line)
    return line


def drain(line: int) -> None:
    """Wait until a line has sent all; a write to a virtio port already has."""
    if os.isatty(line):
        termios.tcdrain(line)


def carry(source: int, line: int) -> None:
    """Copy from a pipe to a line until the pipe ends, then wait until the line has sent it all."""
    while chunk := os.read(source, 65536):
        while chunk:
            chunk = chunk[os.write(line, chunk) :]
    drain(line)


def reap_until(command: int) -> int:
    """Wait as the first process does, for every orphan, until the command itself ends; return its status."""
    while True:
        pid, status = os.wait()
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""User-mode Linux: Debian's package user-mode-linux, a kernel that is a program. About two seconds, one CPU.

The host's file system is the guest's root (hostfs), so paths, programs and the project's environment are the same.
The kernel's own messages go to its console, which is the log; the command's stdout and stderr go over two serial
lines, each bound to a pipe that the program inherits.
"""

import os
import subprocess
from pathlib import Path

from . import cache, machine, packages
from .errors import LabError, Missing
from .job import Job, guest_order

MODULES = Path("/usr/lib/uml/modules")
STREAMS = ("/dev/ttyS0", "/dev/ttyS1")
# The kernel asks for most modules by itself; these are wanted before anybody who may load modules asks, or (tun) have
# no node in /dev until they are loaded. Without the ciphers TLS_TX fails with ENOENT.
PRELOAD = ("tls", "gcm", "ghash_generic", "ctr", "ccm", "chacha20poly1305", "algif_aead", "ipv6", "tun")


def command_line(program: str, folder: Path, memory: int, streams: tuple[int, int]) -> tuple[str, ...]:
    """Return the program and arguments that boot the kernel.

    Args:
        program: linux.uml.
        folder: the run's folder, with `init` in it.
        memory: MiB.
        streams: inherited descriptors for the command's stdout and stderr.
    """
    return (
        program,
        f"mem={memory}M",
        "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw",
        f"init={folder}/init",
        f"uml_dir={folder}/",  # else ~/.uml, where a killed kernel leaves its pid file
        "quiet", "panic=-1", "oops=panic",
        "con=null", "con0=null,fd:1",
        "ssl=null", f"ssl0=null,fd:{streams[0]}", f"ssl1=null,fd:{streams[1]}",
    )  # fmt: skip


def kernel_version() -> str:
    """Return the version of the installed kernel, as its modules are filed under.

    Raises:
        Missing: there is no module tree.
    """
    versions = sorted(path.name for path in MODULES.glob("*") if (path / "kernel").is_dir())
    if not versions:
        raise Missing(f"no kernel modules in {MODULES}", hint=packages.install_command(["user-mode-linux"]))
    return versions[-1]


def module_tree(version: str) -> Path:
    """Return a folder for modprobe -d: links to the package's modules, and an index of its own.

    The package's tree is not at lib/modules/VERSION, where modprobe looks.
    """
    source = MODULES / version
    place = cache.cache_folder() / f"uml-{version}"
    if (place / "lib/modules" / version / "modules.dep.bin").exists():
        return place
    with cache.locked(place):
        if not place.exists():
            with cache.building(place) as part:
                tree = part / "lib/modules" / version
                tree.mkdir(parents=True)
                for name in ("kernel", "modules.order", "modules.builtin", "modules.builtin.modinfo"):
                    (tree / name).symlink_to(source / name)
                depmod = packages.find_program("depmod", os.environ.get("PATH", "")) or "depmod"
                subprocess.run([depmod, "-b", str(part), version], check=True)
    return place


def memory_folder(memory: int, fallback: Path, shared: Path = Path("/dev/shm")) -> Path:
    """Return where the guest's memory, a file that the kernel unlinks at once, is to lie.

    Args:
        memory: MiB.
        fallback: a folder on disk, slower, for machines whose shared memory is too small (64 MB in many containers):
            there a kernel that touches more than that dies of SIGBUS.
        shared: a tmpfs.
    """
    try:
        room = os.statvfs(shared)
    except OSError:
        return fallback
    return shared if room.f_bavail * room.f_frsize >= memory << 20 else fallback


def run(job: Job) -> int:
    """Run a job in user-mode Linux and return the command's exit status.

    Raises:
        LabError: see `machine.run`; also Missing, and more than one CPU asked for.
    """
    if job.cpus not in (None, 1):
        raise LabError(f"user-mode Linux has one CPU, not {job.cpus}", hint="tools/lab qemu has more")
    path = os.environ.get("PATH", "")
    packages.require(packages.UML_PROGRAMS, path)
    version = kernel_version()
    modules = module_tree(version)
    with cache.run_folder() as folder:
        order = guest_order(job, streams=STREAMS, modules=modules, preload=PRELOAD)
        (folder / "order.json").write_text(order)
        machine.write_init(folder)
        pipes = machine.Pipes.open()
        program = packages.find_program("linux.uml", path) or "linux.uml"
        kernel = machine.Machine(
            name=f"user-mode Linux {version}",
            command=command_line(program, folder, job.memory, pipes.write_ends),
            folder=folder,
            timeout=job.timeout,
            environment=os.environ | {"TMPDIR": str(memory_folder(job.memory, folder))},
        )
        return machine.run(kernel, pipes)

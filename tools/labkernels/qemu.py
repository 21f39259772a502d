"""A current Debian kernel under QEMU: several CPUs, TLS 1.3 rekeying; emulated, so an order of magnitude slower.

The host's file system is the guest's root (9p, readable and writable), as in user-mode Linux. virtme-ng makes the small
initramfs that mounts it, once, kept beside the kernel; after that QEMU is started directly, with `guest` as the first
process. The command's stdout and stderr go over two virtio serial ports, each bound to a pipe that QEMU inherits;
the serial console carries the kernel's messages, which are the log.

Always the TCG emulator: ordinary guests do not boot under KVM on the machines this project is developed on, and a lab
that behaves the same everywhere is worth more than a fast one.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from . import cache, fetch, machine, packages
from .errors import LabError, Missing
from .job import Job, guest_order

STREAMS = ("virtio:ktls.out", "virtio:ktls.err")
# virtio_console first: it is what the streams need. The rest as in `uml`; IPv6 is built in.
PRELOAD = ("virtio_console", "tls", "gcm", "ctr", "ccm", "chacha20poly1305", "algif_aead", "tun")
DEFAULT_CPUS = 2
# Without a cache each look at a file is a question to the host: a small pytest run takes 30 s instead of 18. The price
# is that the guest need not notice what changes on the host while it runs.
ROOT_OPTIONS = "rw,cache=loose"
# What virtme-ng's own virtme-mkinitramfs does, for a kernel that is not installed and with mount options of ours.
MAKE_INITRAMFS = """
import sys
from virtme import mkinitramfs, modfinder, virtmods
folder, version, options, path = sys.argv[1:]
config = mkinitramfs.Config()
config.modfiles = modfinder.find_modules_from_install(virtmods.MODALIASES, root=folder, kver=version)
config.busybox = mkinitramfs.find_busybox(root="/", is_native=True)
config.access = options
with open(path, "wb") as file:
    mkinitramfs.mkinitramfs(file, config)
"""


def command_line(program: str, kernel: "Kernel", folder: Path, job: Job, streams: tuple[int, int]) -> tuple[str, ...]:
    """Return the program and arguments that boot the kernel.

    Args:
        program: qemu-system-x86_64.
        kernel: what to boot.
        folder: the run's folder, with `init` in it.
        job: CPUs and memory are taken from it.
        streams: inherited descriptors for the command's stdout and stderr.
    """
    append = f"console=ttyS0 quiet panic=-1 oops=panic init={folder}/init"
    return (
        program,
        "-machine", "q35", "-accel", "tcg", "-cpu", "max",
        "-smp", str(job.cpus or DEFAULT_CPUS), "-m", f"{job.memory}M",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
        "-kernel", str(kernel.image), "-initrd", str(kernel.initramfs), "-append", append,
        "-fsdev", "local,id=root,path=/,security_model=none,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=root,mount_tag=/dev/root",
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-device", "virtio-serial-pci",
        "-chardev", f"file,id=out,path=/proc/self/fd/{streams[0]}",
        "-device", "virtserialport,name=ktls.out,chardev=out",
        "-chardev", f"file,id=err,path=/proc/self/fd/{streams[1]}",
        "-device", "virtserialport,name=ktls.err,chardev=err",
    )  # fmt: skip


class Kernel:
    """A kernel of the cache, laid out by `fetch`.

    Args:
        version: as uname -r gives it.
        folder: where boot/ and lib/modules/ are.
    """

    def __init__(self, version: str, folder: Path) -> None:
        self.version = version
        self.folder = folder
        self.image = folder / "boot" / f"vmlinuz-{version}"
        self.initramfs = folder / "boot" / f"initrd.img-{version}"


def find_kernel() -> Kernel:
    """Return the kernel of the cache.

    Raises:
        Missing: none was fetched yet.
    """
    found = fetch.cached_kernel()
    if found is None:
        raise Missing(f"no kernel for QEMU in {cache.cache_folder()}", hint="fetch it with: tools/lab setup qemu")
    return Kernel(*found)


def virtme_python(project: Path) -> str:
    """Return a Python that has virtme-ng: the project's environment's, or our own.

    Raises:
        Missing: neither has it.
    """
    own = project / ".venv/bin/python"
    for python in (str(own), sys.executable):
        with contextlib.suppress(OSError):
            done = subprocess.run([python, "-c", "import virtme"], capture_output=True, check=False)
            if done.returncode == 0:
                return python
    raise Missing("virtme-ng is missing", hint=f"{own} -m pip install virtme-ng")


def make_initramfs(kernel: Kernel, project: Path) -> None:
    """Have virtme-ng make the initramfs that mounts the host's file system, if the kernel has none yet.

    Raises:
        Missing: virtme-ng is not there.
        LabError: it failed.
    """
    if kernel.initramfs.exists():
        return
    python = virtme_python(project)
    with cache.locked(kernel.folder):
        if kernel.initramfs.exists():
            return
        part = kernel.initramfs.with_name(kernel.initramfs.name + ".part")
        done = subprocess.run(
            [python, "-c", MAKE_INITRAMFS, str(kernel.folder), kernel.version, ROOT_OPTIONS, str(part)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            part.unlink(missing_ok=True)
            raise LabError("virtme-ng could not make the initramfs", log=done.stdout)
        part.rename(kernel.initramfs)


def run(job: Job, project: Path) -> int:
    """Run a job under QEMU and return the command's exit status.

    Args:
        job: the command.
        project: root of the checkout, whose .venv has virtme-ng.

    Raises:
        LabError: see `machine.run`; also Missing.
    """
    path = os.environ.get("PATH", "")
    packages.require(packages.QEMU_PROGRAMS, path)
    kernel = find_kernel()
    make_initramfs(kernel, project)
    with cache.run_folder() as folder:
        order = guest_order(job, streams=STREAMS, modules=kernel.folder, preload=PRELOAD)
        (folder / "order.json").write_text(order)
        machine.write_init(folder)
        program = packages.find_program("qemu-system-x86_64", path) or "qemu-system-x86_64"
        pipes = machine.Pipes.open()
        qemu = machine.Machine(
            name=f"QEMU, Linux {kernel.version}",
            command=command_line(program, kernel, folder, job, pipes.write_ends),
            folder=folder,
            timeout=job.timeout,
        )
        return machine.run(qemu, pipes)

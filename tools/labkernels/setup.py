"""`tools/lab setup` and `tools/lab status`: install and fetch what a lab kernel needs; tell what is there."""

import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import cache, fetch, packages, qemu, uml
from .errors import LabError, Missing

PROGRAMS = {"uml": packages.UML_PROGRAMS, "qemu": packages.QEMU_PROGRAMS}


@dataclass(frozen=True, slots=True)
class Status:
    """What there is of one lab kernel.

    Args:
        kernel: "uml" or "qemu".
        ready: whether a command can be run now.
        version: as uname -r gives it, or None.
        problem: what is missing, "" when ready.
        hint: what to do about it.
    """

    kernel: str
    ready: bool
    version: str | None = None
    problem: str = ""
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        """One line, and one more with what to do."""
        if self.ready:
            return f"{self.kernel}: ready, Linux {self.version}"
        return f"{self.kernel}: not ready, {self.problem}" + (f"\n  {self.hint}" if self.hint else "")


def status(kernel: str, project: Path) -> Status:
    """Return what there is of a kernel; starts nothing and changes nothing."""
    path = os.environ.get("PATH", "")
    version = None
    try:
        packages.require(PROGRAMS[kernel], path)
        if kernel == "uml":
            version = uml.kernel_version()
        else:
            found = qemu.find_kernel()
            version = found.version
            if not found.initramfs.exists():
                qemu.virtme_python(project)
    except LabError as error:
        return Status(kernel, ready=False, version=version, problem=error.message, hint=error.hint)
    return Status(kernel, ready=True, version=version)


def install_packages(kernel: str) -> None:
    """Install the Debian packages a kernel needs, those that are missing.

    Raises:
        Missing: some are, and this is not root.
        LabError: apt-get failed.
    """
    path = os.environ.get("PATH", "")
    missing = packages.missing_packages(PROGRAMS[kernel], path)
    if missing and os.geteuid() != 0:
        packages.require(PROGRAMS[kernel], path)
    with cache.locked(cache.cache_folder() / "apt"):
        missing = packages.missing_packages(PROGRAMS[kernel], path)  # another run may have been first
        if not missing:
            return
        print(f"lab: installing Debian packages: {' '.join(missing)}", flush=True)
        apt_get("update")
        apt_get("install", "-y", "--no-install-recommends", *missing)
    packages.require(PROGRAMS[kernel], path)


def apt_get(*arguments: str) -> None:
    """Run the machine's apt-get quietly.

    Raises:
        LabError: it failed; with the last lines of what it said.
    """
    done = subprocess.run(
        ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(f"apt-get {arguments[0]} failed", log="\n".join(done.stdout.splitlines()[-20:]))


def setup(kernel: str, project: Path) -> None:
    """Make a kernel ready; does nothing when it is. Several at once are safe.

    Raises:
        Missing: something that only the reader can get; the message says how.
        LabError: apt failed, or the archive has no such kernel.
    """
    if not Path("/usr/bin/dpkg").exists():
        raise Missing("this is not a Debian system: the lab's kernels are Debian's packages")
    install_packages(kernel)
    if kernel == "uml":
        uml.module_tree(uml.kernel_version())
    else:
        fetch.fetch_kernel()
        qemu.make_initramfs(qemu.find_kernel(), project)
    print(f"lab: {status(kernel, project)}", flush=True)

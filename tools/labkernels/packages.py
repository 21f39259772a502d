"""Which Debian packages each lab kernel needs, which programs tell that they are there, and how to get them."""

import shutil
from collections.abc import Iterable

from .errors import Missing

# program -> Debian package
UML_PROGRAMS = {
    "linux.uml": "user-mode-linux",
    "modprobe": "kmod",
    "depmod": "kmod",
    "ip": "iproute2",
    "setpriv": "util-linux",
}
QEMU_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "depmod": "kmod",
    "ip": "iproute2",
    "setpriv": "util-linux",
    "xz": "xz-utils",
}
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find_program(name: str, path: str) -> str | None:
    """Return where a program is, looking in the folders of root as well; None when nowhere."""
    return shutil.which(name, path=path) or shutil.which(name, path=SBIN)


def missing_packages(programs: dict[str, str], path: str) -> list[str]:
    """Return the Debian packages whose programs are not there, each once, in the table's order."""
    return list(dict.fromkeys(package for name, package in programs.items() if find_program(name, path) is None))


def install_command(packages: Iterable[str]) -> str:
    """Return the one line that installs Debian packages."""
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


def require(programs: dict[str, str], path: str) -> None:
    """Check that all programs are there.

    Raises:
        Missing: with the packages that have them and the line that installs those.
    """
    if packages := missing_packages(programs, path):
        raise Missing(f"missing Debian packages: {' '.join(packages)}", hint=install_command(packages))

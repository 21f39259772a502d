"""Get the newer Debian kernel for QEMU: found in the archive this machine already uses, unpacked into the lab's cache.

Nothing is installed and the machine's own apt is not touched: apt runs on a configuration, lists and caches of its own,
needs no root, and checks the archive's signature and the packages' hashes as ever.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import cache, packages
from .errors import LabError

SUITE = "trixie-backports"
WANTED = "7.3.4+deb13-amd64"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
DEFAULT_URI = "http://deb.debian.org/debian"
# The generic flavour: the cloud one has no 9p.
BINARY = re.compile(r"^linux-binary-unsigned-((\d+)\.(\d+)\.(\d+)\+deb\d+-amd64)$")
# The image, the modules, and the lists of what is built in.
PACKAGES = ("binary-unsigned", "modules", "base")
# What is kept of 4,000 modules: what QEMU's machine and this project can use.
KEPT = (
    "arch", "crypto", "lib", "net", "fs/9p", "fs/netfs", "fs/fuse", "fs/overlayfs",
    "drivers/virtio", "drivers/char", "drivers/crypto/virtio", "drivers/net/netdevsim",
)  # fmt: skip
KEPT_FLAT = ("drivers/net",)  # only the files in the folder itself: tun, veth, dummy, virtio_net


@dataclass(frozen=True, slots=True)
class Download:
    """A package in the archive.

    Args:
        package: its name.
        size: bytes.
    """

    package: str
    size: int


def archive_uris(texts: Iterable[str]) -> list[str]:
    """Return the archives named in apt's source files, each once, in order; both of apt's formats (sources.list(5))."""
    uris: dict[str, None] = {}
    for text in texts:
        for line in text.splitlines():
            words = line.split("#")[0].split()
            if not words:
                continue
            if words[0] == "deb":
                rest = iter(words[1:])
                first = next(rest, "")
                if first.startswith("["):  # [options] may hold spaces
                    while first and not first.endswith("]"):
                        first = next(rest, "")
                    first = next(rest, "")
                uris[first] = None
            elif words[0].lower() == "uris:":
                uris.update(dict.fromkeys(words[1:]))
    return [uri for uri in uris if uri]


def debian_archive(uris: Iterable[str]) -> str:
    """Return which of the archives is Debian's main one, by its path: .../debian (not -security, not -ports)."""
    for uri in uris:
        if uri.rstrip("/").endswith("/debian"):
            return uri.rstrip("/")
    return DEFAULT_URI


def source_files(root: Path = Path("/etc/apt")) -> Iterator[str]:
    """Give the text of each of the machine's apt source files."""
    for path in (root / "sources.list", *sorted((root / "sources.list.d").glob("*"))):
        if path.suffix in {".list", ".sources"} and path.is_file():
            yield path.read_text(errors="replace")


def newest(versions: Iterable[str]) -> str | None:
    """Return the wanted kernel where it is among package names, else the newest of its flavour, else None."""
    found = {match[1]: tuple(map(int, match.group(2, 3, 4))) for name in versions if (match := BINARY.match(name))}
    if WANTED in found:
        return WANTED
    return max(found, key=found.__getitem__, default=None)


def is_complete(place: Path) -> bool:
    """Tell whether a folder is a kernel: it is renamed into place as a whole, so being there is enough."""
    return (place / "lib/modules").is_dir() and any((place / "boot").glob("vmlinuz-*"))


def cached_kernel() -> tuple[str, Path] | None:
    """Return version and folder of the kernel in the cache, the wanted one or else the newest, or None."""
    found = {
        place.name.removeprefix("qemu-"): place
        for place in cache.cache_folder().glob("qemu-*-amd64")
        if is_complete(place)
    }
    names = {f"linux-binary-unsigned-{version}" for version in found}
    version = newest(names)
    return None if version is None else (version, found[version])


class Apt:
    """apt on a configuration of its own, in a folder that the caller removes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("lists/partial", "cache/archives/partial", "state", "debs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.uri = debian_archive(archive_uris(source_files()))
        signed = f" [signed-by={KEYRING}]" if KEYRING.exists() else ""
        (folder / "sources.list").write_text(f"deb{signed} {self.uri} {SUITE} main\n")
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": folder / "state",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "",  # the folder is ours alone, apt's own user cannot write there
            "APT::Update::Error-Mode": "any",  # an archive out of reach is an error, not a warning
            "Acquire::Languages": "none",
        }
        (folder / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))

    def run(self, *command: str, show: bool = False) -> str:
        """Run one of apt's programs.

        Args:
            command: program and arguments.
            show: let its progress through to the terminal instead of returning its output.

        Raises:
            LabError: it failed; with the last lines of what it said.
        """
        done = subprocess.run(
            command, cwd=self.folder / "debs", env=os.environ | {"APT_CONFIG": str(self.folder / "apt.conf")},
            stdin=subprocess.DEVNULL, stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise LabError(
                f"`{' '.join(command)}` failed with {self.uri} {SUITE}",
                hint="check that this machine reaches its Debian archive",
                log="\n".join((done.stdout or "").splitlines()[-10:]),
            )
        return done.stdout or ""

    def find(self) -> tuple[str, list[Download]]:
        """Return the kernel's version and the packages that have it.

        Raises:
            LabError: the suite has no kernel of this kind.
        """
        self.run("apt-get", "-q", "update")
        version = newest(self.run("apt-cache", "pkgnames", "linux-binary-unsigned-").split())
        if version is None:
            raise LabError(f"{self.uri} {SUITE} has no linux-binary-unsigned-*-amd64")
        names = [f"linux-{part}-{version}" for part in PACKAGES]
        sizes = re.findall(r"^Size: (\d+)$", self.run("apt-cache", "show", "--no-all-versions", *names), re.MULTILINE)
        return version, [Download(name, int(size)) for name, size in zip(names, sizes, strict=True)]


def fetch_kernel() -> Path:
    """Return the folder of the newer kernel; fetch and unpack it when the cache has none.

    Raises:
        LabError: the archive cannot be reached or has no such kernel.
    """
    with cache.locked(cache.cache_folder() / "fetch"):
        if cached := cached_kernel():
            print(f"lab: kernel {cached[0]} is in {cached[1]}")
            return cached[1]
        with cache.scratch(cache.cache_folder() / "fetch") as folder:
            apt = Apt(folder)
            print(f"lab: looking for the kernel in {apt.uri} {SUITE}", flush=True)
            version, downloads = apt.find()
            if version != WANTED:
                print(f"lab: {WANTED} is not there; taking the newest that is, {version}")
            total = sum(item.size for item in downloads) / 1e6
            print(f"lab: fetching kernel {version}: {len(downloads)} packages, {total:.0f} MB", flush=True)
            apt.run("apt-get", "-q", "download", *(item.package for item in downloads), show=True)
            place = cache.cache_folder() / f"qemu-{version}"
            print("lab: unpacking", flush=True)
            with cache.building(place) as part:
                unpack(version, sorted((apt.folder / "debs").glob("*.deb")), apt.folder / "tree", part)
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6
    print(f"lab: kernel {version} is in {place} ({size:.0f} MB)")
    return place


def is_kept(module: Path) -> bool:
    """Tell whether a module, named from the kernel's tree (net/tls/tls.ko.xz), is wanted."""
    return any(module.is_relative_to(folder) for folder in KEPT) or str(module.parent) in KEPT_FLAT


def unpack(version: str, debs: list[Path], tree: Path, place: Path) -> None:
    """Unpack packages and lay the kernel out as virtme-ng wants it: boot/vmlinuz-V, lib/modules/V with plain .ko files.

    Args:
        version: the kernel's.
        debs: package files.
        tree: scratch folder.
        place: where to lay it out.
    """
    for deb in debs:
        subprocess.run(["dpkg-deb", "-x", str(deb), str(tree)], check=True)
    source = tree / "usr/lib/modules" / version
    target = place / "lib/modules" / version
    target.mkdir(parents=True)
    (place / "boot").mkdir()
    shutil.move(source / "vmlinuz.unsigned", place / "boot" / f"vmlinuz-{version}")
    for path in source.glob("modules.*"):
        shutil.move(path, target / path.name)
    for module in (source / "kernel").rglob("*.ko*"):
        name = module.relative_to(source / "kernel")
        if is_kept(name):
            (target / "kernel" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(module, target / "kernel" / name)
    # virtme-ng's initramfs loads plain modules only.
    packed = [str(path) for path in target.rglob("*.ko.xz")]
    if packed:
        subprocess.run(["xz", "-d", *packed], check=True)
    depmod = packages.find_program("depmod", os.environ.get("PATH", "")) or "depmod"
    subprocess.run([depmod, "-b", str(place), version], check=True)

"""The lab's folder outside the repository: fetched kernels, module indexes, and a folder for each run.

Two runs at once are safe: what is shared is built beside its place and renamed into it under a lock; a run's own
folder is locked while it lasts, so that one whose run was killed can be told from one in use, and swept.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .errors import LabError


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return $XDG_CACHE_HOME/ktls/lab, or the same under ~/.cache; it is made when first written to.

    Raises:
        LabError: its name cannot stand on a kernel's command line.
    """
    base = environment.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    root = Path(base) if base.startswith("/") else Path(environment.get("HOME") or Path.home()) / ".cache"
    folder = root / "ktls" / "lab"
    if any(character in str(folder) for character in " \t\n,\"'"):
        # It goes on a kernel's command line and into QEMU's options, which split there.
        raise LabError(f"the cache folder {str(folder)!r} has a blank, comma or quote", hint="set XDG_CACHE_HOME")
    return folder


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder (made when missing).

    Args:
        folder: whose lock; the file is `FOLDER.lock`, beside it.
        wait: wait for the present holder, or give False at once.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "a") as file:  # noqa: PTH123 - a name with dots
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give an empty folder of this name and remove it, if it is still there, when the block ends.

    The caller holds a lock, so that what is there already is of a run that was killed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def building(place: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `place` when the block ends well; the caller holds the lock of `place`."""
    with scratch(place.with_name(place.name + ".part")) as part:
        yield part
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """Give a folder for one run, removed at its end; sweep those of runs that were killed.

    Raises:
        LabError: the cache folder cannot be written.
    """
    runs = cache_folder() / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        sweep(runs)
        folder = Path(tempfile.mkdtemp(dir=runs))
    except OSError as error:
        raise LabError(
            f"cannot write to the cache folder {runs}: {error.strerror}", hint="set XDG_CACHE_HOME to one that you own"
        ) from error
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep(runs: Path) -> None:
    """Remove the folders in `runs` that no living run holds."""
    for folder in runs.iterdir():
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # gone since, or another user's
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between mkdtemp and flock a living run holds none; an empty folder is left for the next sweep.
            if any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(handle)

"""Whether the files of a keyring can be read, asked before a policy that needs them is taken."""

import errno
import os
import stat
from pathlib import Path

from ktls.errors import PolicyError
from policy.problems import quote

PATH_MAX = 4096  # include/uapi/linux/limits.h
FILE_MAX = 16 << 20  # bytes; the CRLs of large authorities have a few million


def readable(path: Path, *, directory: bool = False) -> None:
    """Check that a file of a keyring is there and that we may read it. What is in it is seen when it is opened.

    Args:
        path: of a file.
        directory: a directory will do.

    Raises:
        PolicyError: it is not there, not a file, empty, too large, or not for us.
    """
    shown = quote(str(path), PATH_MAX)
    try:
        # Not blocking: opening a FIFO would wait for its writer.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = "its symbolic links form a loop" if error.errno == errno.ELOOP else error.strerror
        raise PolicyError(f"cannot read {shown}: {why}") from error
    try:
        found = os.fstat(opened)
    finally:
        os.close(opened)
    if stat.S_ISDIR(found.st_mode) and directory:
        return
    if not stat.S_ISREG(found.st_mode):
        raise PolicyError(f"{shown} is not a file{' or directory' if directory else ''}")
    if not 0 < found.st_size <= FILE_MAX:
        raise PolicyError(f"{shown} has {found.st_size} bytes: 1 to {FILE_MAX} are permitted")

"""The record of connections: one line for each, protected or not, in a local file that never outgrows its bound.

Two files take turns: when the newer one is half of what is permitted it becomes the older one, and the oldest is gone.
Several agents may write to the same files; each line is one write() to a file opened for appending, and whoever turns
them holds a lock.
"""

import contextlib
import fcntl
import os
from pathlib import Path

BYTES = 32 << 20
"""Of both files together: some hundred thousand connections."""
KEPT = frozenset({"clear", "observed", "denied", "failed", "end", "clear-end"})
"""Events to be kept: the last word about a connection, and the first about one in clear: it may outlive us."""


class Ledger:
    """Where records go.

    Args:
        path: the newer file, made with mode 0600, its directory with 0700. The older one is beside it,
            with ".1" at its end.
        most: bytes of both together.
    """

    __slots__ = ("_fd", "_most", "_path")

    def __init__(self, path: Path, most: int = BYTES) -> None:
        self._path, self._most = path, most
        self._fd: int | None = None

    def write(self, event: str, line: bytes) -> None:
        """Keep a line, if it is one of those to be kept.

        Raises:
            OSError: it could not be kept.
        """
        if event not in KEPT:
            return
        fd = self._open(self._path)
        if os.fstat(fd).st_size + len(line) > self._most // 2:
            fd = self._turn(self._path, fd, len(line))
        os.write(fd, line)

    def _open(self, path: Path) -> int:
        """Open the newer file; another agent may have turned them since the last line, or somebody removed it."""
        if self._fd is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._fd), path.stat()):
                    return self._fd
            self.close()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        return self._fd

    def _turn(self, path: Path, fd: int, more: int) -> int:
        """Make the newer file the older one, unless another agent has done so while we waited for the lock."""
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()) and os.fstat(fd).st_size + more > self._most // 2:
                path.rename(path.with_name(path.name + ".1"))
        return self._open(path)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

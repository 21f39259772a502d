"""The last good policy on disk, for a start without the database.

One line of JSON, and then the document as it was committed. It says which connections are protected, so a file that
somebody else may write is not used.
"""

import json
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from policy.store.errors import SnapshotError
from policy.store.pieces import digest
from policy.store.records import SHORT, Revision

FORMAT = 1
FILE_MAX = 65 << 20  # bytes: the largest document, and the line before it
_HEADER_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is in the file.

    Args:
        number: of the revision.
        hash: of the revision.
        base: the directory that relative paths in the document start from.
        document: the policy's text.
    """

    number: int
    hash: str
    base: Path
    document: str

    @classmethod
    def of(cls, revision: Revision, document: str) -> "Snapshot":
        """Make that of a revision."""
        return cls(revision.number, revision.hash, revision.base, document)

    @property
    def file(self) -> Path:
        """Return what messages about the document call it; relative paths start from there."""
        return self.base / f"revision-{self.number}"

    @property
    def sum(self) -> str:
        """Return the SHA-256 of all of it."""
        return digest([FORMAT, self.number, self.hash, str(self.base), self.document])

    def __str__(self) -> str:
        return f"{self.number} ({self.hash[:SHORT]})"


def save(path: Path, snapshot: Snapshot) -> None:
    """Replace the file in one step; whoever reads has the old one or the new one, also after a power cut.

    Args:
        path: of the file; it is readable for its owner only, and so is its directory if that has to be made.
        snapshot: what to write.

    Raises:
        SnapshotError: it cannot be written; the old one is still there.
    """
    head = {
        "format": FORMAT,
        "number": snapshot.number,
        "hash": snapshot.hash,
        "base": str(snapshot.base),
        "sum": snapshot.sum,
    }
    data = f"{json.dumps(head)}\n{snapshot.document}".encode()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, data)
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written: {error.strerror}") from error


def _replace(path: Path, data: bytes) -> None:
    opened, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> Snapshot:
    """Read the file.

    Raises:
        SnapshotError: it is not there, not as it was written, or others may write it.
    """
    try:
        # Not blocking: opening a FIFO would wait for its writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            _refuse_foreign(path, os.fstat(file.fileno()))
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read: {error.strerror}") from error
    first, _, document = data.partition(b"\n")
    try:
        if len(first) > _HEADER_MAX or len(data) > FILE_MAX:
            raise ValueError("is too long")
        head = json.loads(first)
        snapshot = Snapshot(head["number"], head["hash"], Path(head["base"]), document.decode())
        right = head["format"] == FORMAT and head["sum"] == snapshot.sum
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotError(f"{path}: is not a policy's snapshot") from error
    if not right:
        raise SnapshotError(f"{path}: is not as it was written")
    return snapshot


def _refuse_foreign(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SnapshotError(f"{path}: is not a file")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        mode = f"{found.st_mode & 0o777:04o}"
        raise SnapshotError(
            f"{path}: belongs to user {found.st_uid} and has mode {mode}, so that others may write it",
            hint="look at what is in it; then remove it, and the next activation writes it anew",
        )

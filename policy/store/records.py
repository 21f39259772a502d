"""What the store tells of a revision and of an activation."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from policy.store.pieces import digest

SHORT = 12  # hex digits of a hash, for people
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of the policy, for good.

    Args:
        number: 1 for the first, and one more for each that follows.
        parent: the number of the one before; None for the first.
        parent_hash: its hash, empty for the first.
        author: whoever committed it.
        time: when, UTC.
        message: why.
        base: the directory that relative paths in it start from.
        content: SHA-256 of the document.
        policy: the revision of the policy that it compiles to, as logs have it.
    """

    number: int
    parent: int | None
    parent_hash: str
    author: str
    time: datetime
    message: str
    base: Path
    content: str
    policy: str

    @property
    def hash(self) -> str:
        """Return the SHA-256 of all of it, and by way of its parent's hash of all that came before."""
        said = [self.author, write_time(self.time), self.message, str(self.base), self.content, self.policy]
        return digest([self.number, self.parent_hash, *said])

    @property
    def file(self) -> Path:
        """Return what messages about its document call it; relative paths start from there."""
        return self.base / f"revision-{self.number}"

    def __str__(self) -> str:
        return f"{self.number} ({self.hash[:SHORT]})"


@dataclass(frozen=True, slots=True)
class Activation:
    """One time that a revision was made the one in force.

    Args:
        number: 1 for the first, and one more for each that follows.
        revision: which.
        author: whoever did it.
        time: when, UTC.
        returns_to: for a roll-back the number of the activation that it returned to.
    """

    number: int
    revision: Revision
    author: str
    time: datetime
    returns_to: int | None = None

    @property
    def stands_for(self) -> int:
        """Return the number of the activation from which to go on rolling back."""
        return self.number if self.returns_to is None else self.returns_to


def write_time(when: datetime) -> str:
    """Write a time as it is stored.

    >>> write_time(datetime(2026, 1, 2, tzinfo=UTC))
    '2026-01-02T00:00:00.000000Z'
    """
    return when.astimezone(UTC).strftime(_TIME)


def read_time(stored: str) -> datetime:
    """Read a stored time."""
    return datetime.strptime(stored, _TIME).replace(tzinfo=UTC)

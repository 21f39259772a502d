"""The agent's report: one JSON object a line, when a connection opens or fails and when it ends.

A line is one write() to a file opened for appending, so lines of several agents do not mix. Key material never gets
here: callers pass named facts, not objects.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ktls.agent.ledger import Ledger


class Report:
    """Where events go.

    Args:
        path: the file, made with mode 0600; None for nowhere.
        ledger: keeps the last line of each connection.

    Raises:
        OSError: it cannot be opened.
    """

    __slots__ = ("_fd", "_ledger", "lost")

    def __init__(self, path: Path | None, ledger: Ledger | None = None) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = None if path is None else os.open(path, flags, 0o600)
        self._ledger = ledger
        self.lost = 0
        """Lines that could not be written (a full disk): connections go on without them, the next line tells."""

    @property
    def keeps(self) -> bool:
        """Whether anything is written anywhere."""
        return self._fd is not None or self._ledger is not None

    def write(self, event: str, facts: Mapping[str, object]) -> None:
        """Append one event; facts that are None are left out."""
        if not self.keeps:
            return
        line: dict[str, object] = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        line |= {"agent": os.getpid()} | {key: value for key, value in facts.items() if value is not None}
        if self.lost:
            line["lost"] = self.lost
        data = json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
        try:
            whole = self._fd is None or os.write(self._fd, data) == len(data)
            if self._ledger is not None:
                self._ledger.write(event, data)
        except OSError:
            whole = False
        self.lost = 0 if whole else self.lost + 1

    def close(self) -> None:
        """Close the files."""
        if self._ledger is not None:
            self._ledger.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

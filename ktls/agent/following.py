"""An agent under the policy that is in force in the database: at its start, and from then on.

It never has no policy: the database's, or the last good one from disk, or one that denies every connection. Which of
them it began with, and whatever stands in the way later, is said on standard error and in the report.
"""

import logging
import threading
from typing import TYPE_CHECKING

from ktls.agent.report import Report
from ktls.agent.swap import Swap
from ktls.errors import UsageError
from ktls.sources import Database
from policy.model import Policy, Verdict

if TYPE_CHECKING:
    from policy.store.follow import Followed

_log = logging.getLogger(__name__)


class Following:
    """Keeps an agent's policy the one in force.

    Args:
        database: what to follow.
        report: is told.

    Raises:
        UsageError: what reaches databases is not installed, or the URL is none.
    """

    def __init__(self, database: Database, report: Report) -> None:
        try:
            from policy.store.follow import Follower  # noqa: PLC0415 - heavy, and an extra
        except ModuleNotFoundError as error:
            raise UsageError(str(error), hint="pip install 'ktls[database]'") from error
        self._report = report
        self._swap: Swap | None = None
        self._attached = threading.Event()
        self._stopped = False
        self._follower = Follower(
            database.url,
            snapshot=database.snapshot,
            deliver=self._use,
            say=self._say,
            without=Verdict.CLEAR if database.allow else Verdict.DENY,
        )

    def start(self) -> Policy:
        """Return the policy to begin with, and follow from there. Not in a loop's thread: it waits for the database."""
        first = self._follower.start()
        facts = {"source": first.source, "number": first.number or None, "revision": first.policy.revision}
        self._report.write("policy", facts | {"rules": len(first.policy.rules)})
        return first.policy

    def attach(self, swap: Swap) -> None:
        """Let what comes from now on take effect."""
        self._swap = swap
        self._attached.set()

    def stop(self) -> None:
        """Follow no longer. The policy stays what it is. Not in a loop's thread: it waits for the follower's."""
        if not self._stopped:
            self._stopped = True
            self._attached.set()
            self._follower.stop()

    # --- the follower's thread -----------------------------------------------------------------------------------

    def _use(self, followed: "Followed") -> None:
        self._attached.wait()
        if self._swap is not None:
            self._swap.use(followed.policy)

    def _say(self, what: str) -> None:
        _log.warning("%s", what)
        self._report.write("database", {"message": what})

"""Following the policy in force: a thread that hands over finished policies, and never takes one away.

    loop = asyncio.get_running_loop()
    follower = Follower(
        "postgresql://ktls@db.example/policy",
        snapshot=Path("/var/lib/ktls/policy.snapshot"),
        deliver=lambda followed: loop.call_soon_threadsafe(use, followed.policy),
        say=log.warning,
    )
    use((await asyncio.to_thread(follower.start)).policy)
    ...
    await asyncio.to_thread(follower.stop)

What is activated is read, checked and compiled beside the policy that decides, and handed over when it is ready. One
that is not right here (a keyring's file is missing on this host) leaves the old one in place, is said, and is tried
again now and then. While the database is away the last policy goes on deciding.

At the start there is a policy in any case: that of the database; without it the last good one from disk; without that,
one that denies every connection.
"""

import os
import random
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ktls.errors import KtlsError, PolicyError
from policy.load import parse
from policy.model import Policy, Verdict
from policy.snapshot import build
from policy.store import read
from policy.store.connect import read_url, shown, translated
from policy.store.errors import SnapshotError
from policy.store.snapshot_file import Snapshot, load, save
from policy.store.watch import Watch, open_watch

POLL_SECONDS = 30.0
"""A net below PostgreSQL's notifications, and below whatever stands between us and it."""
RETRY_SECONDS = 60.0  # until a revision that was not right here is tried again
_BACK_OFF = (0.5, 10.0)  # seconds between attempts to reach the database: at first, and at most

Source = Literal["database", "snapshot", "none"]


@dataclass(frozen=True, slots=True)
class Followed:
    """A policy that is ready to decide.

    Args:
        policy: compiled.
        source: where it came from; "none" is the one for want of any.
        number: of the revision, 0 for none.
        hash: of the revision, empty for none.
    """

    policy: Policy
    source: Source
    number: int = 0
    hash: str = ""


class Follower:
    """See the module.

    Args:
        url: of the database, as for `open_store`.
        snapshot: file for the last good policy; None to keep none.
        deliver: is called, in the follower's thread, with each policy after the first. With a KtlsError it says that
            the policy is not right here: as one that does not compile.
        say: is called, in whichever thread, with what an operator has to know.
        without: the verdict for every connection where there is neither database nor snapshot.
        poll: seconds after which to ask though nothing was heard.
    """

    def __init__(
        self,
        url: str,
        *,
        snapshot: Path | None,
        deliver: Callable[[Followed], object],
        say: Callable[[str], object],
        without: Verdict = Verdict.DENY,
        poll: float = POLL_SECONDS,
    ) -> None:
        self._url = read_url(url)
        self._snapshot = snapshot
        self._deliver = deliver
        self._say = say
        self._without = without
        self._poll = poll
        self._hash = ""  # of the revision that was handed over last
        self._refused = ("", 0.0)  # the hash of one that was not right here, and when to try it again
        self._said = ""  # what was said last, so as not to repeat it for as long as the database is away
        self._watch: Watch | None = None
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="ktls-policy", daemon=True)

    def start(self) -> Followed:
        """Return the policy to begin with, and follow from there. It may take as long as it takes to connect."""
        first: Followed | None = None
        try:
            found = self._look()
        except KtlsError as error:
            self._lose(error)
        else:
            first = found and self._accept(*found)
        if first is None:
            first = self._last_good()
        self._thread.start()
        return first

    def stop(self) -> None:
        """End the thread. The policies that were handed over stay what they are."""
        self._stopping = True
        if self._thread.ident is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        self._close()
        os.close(self._wake)

    def again(self) -> None:
        """Look now, also at a revision that was not right here: something has changed, as a keyring's file."""
        self._refused = ("", 0.0)
        os.eventfd_write(self._wake, 1)

    # --- the thread ---

    def _run(self) -> None:
        delay, most = _BACK_OFF
        while not self._stopping:
            try:
                found = self._look()
                if found is not None:
                    self._hand_over(*found)
                delay = _BACK_OFF[0]
                if self._watch is not None:
                    self._watch.wait(self._poll, self._wake)
            except KtlsError as error:
                self._lose(error)
                # Not all at the same moment: a fleet loses its database together.
                self._pause(delay * random.uniform(0.5, 1.5))  # noqa: S311
                delay = min(2 * delay, most)
            with suppress(BlockingIOError):  # nobody woke us
                os.eventfd_read(self._wake)

    def _look(self) -> tuple[Snapshot, Policy] | None:
        """Ask what is in force; return it when it is new and right."""
        if self._watch is None:
            self._watch = open_watch(self._url)
        with translated(self._url):
            self._watch.forget()
            connection = self._watch.connection
            with connection.begin():
                active = read.active(connection)
                if active is None:
                    self._tell("no revision is active yet")
                    return None
                if active.revision.hash == self._hash:
                    self._settle(f"revision {active.revision} stays in use")
                    return None
                if active.revision.hash == self._refused[0] and time.monotonic() < self._refused[1]:
                    return None
                snapshot = Snapshot.of(active.revision, read.document(connection, active.revision))
        return self._compile(snapshot)

    def _compile(self, snapshot: Snapshot) -> tuple[Snapshot, Policy] | None:
        try:
            return snapshot, parse(snapshot.document.encode(), snapshot.file)
        except PolicyError as error:
            self._refuse(snapshot, error)
            return None

    def _hand_over(self, snapshot: Snapshot, policy: Policy) -> None:
        try:
            self._deliver(Followed(policy, "database", snapshot.number, snapshot.hash))
        except KtlsError as error:
            self._refuse(snapshot, error)
        else:
            self._accept(snapshot, policy)

    def _refuse(self, snapshot: Snapshot, error: KtlsError) -> None:
        self._refused = (snapshot.hash, time.monotonic() + RETRY_SECONDS)
        self._tell(f"revision {snapshot} is active but not right here, and the policy before it stays: {error}")

    def _accept(self, snapshot: Snapshot, policy: Policy) -> Followed:
        self._hash, self._refused = snapshot.hash, ("", 0.0)
        self._settle(f"revision {snapshot} is in use")
        if self._snapshot is not None:
            try:
                save(self._snapshot, snapshot)
            except SnapshotError as error:
                self._say(f"the policy is in use, but would not be there after a start without the database: {error}")
        return Followed(policy, "database", snapshot.number, snapshot.hash)

    # --- without the database ---

    def _last_good(self) -> Followed:
        if self._snapshot is not None:
            try:
                snapshot = load(self._snapshot)
                policy = parse(snapshot.document.encode(), snapshot.file)
            except (SnapshotError, PolicyError) as error:
                self._say(f"no last good policy to begin with: {error}")
            else:
                self._hash = snapshot.hash
                self._say(f"begins with revision {snapshot} from {self._snapshot}, which may not be the active one")
                return Followed(policy, "snapshot", snapshot.number, snapshot.hash)
        self._say(f"there is no policy: the verdict for every connection is {self._without}")
        return Followed(build((), self._without, "no policy"), "none")

    def _lose(self, error: KtlsError) -> None:
        self._close()
        self._tell(f"{error}{f' ({error.hint})' if error.hint else ''}")

    def _close(self) -> None:
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.close()

    def _pause(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.poll(seconds * 1000)

    def _settle(self, what: str) -> None:
        """Say that what was said is over."""
        if self._said:
            self._tell(what)
            self._said = ""

    def _tell(self, what: str) -> None:
        """Say something that goes on, once."""
        if what != self._said:
            self._said = what
            self._say(f"policy database {shown(self._url)}: {what}")

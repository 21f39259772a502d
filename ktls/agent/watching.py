"""The files that an agent's policy came from and that its keyrings name, watched by content.

A thread of its own looks whenever something happens where they are, and now and then in any case: not every file system
tells. What has changed is opened and checked as a whole; only what is right replaces what is in use. What is not right
may be half written: it is said once it has stood like that for two looks, and once for each content. Time can mend it
too (a certificate that is not valid yet, a file that a policy names), so it is tried again now and then.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ktls.agent.describe import Failure
from ktls.agent.report import Report
from ktls.agent.swap import Swap, keyrings_of
from ktls.contents import content_hash, files_of, places, signature
from ktls.errors import KtlsError, PolicyError
from ktls.keyring import Keyring
from policy.document import read_file
from policy.load import content_of, load

START = 1.0
"""Seconds until the first look: most programs under `ktls run` have ended by then."""
LOOK = 2.0
"""Seconds between looks when nothing is heard."""
QUIET = 200
"""Milliseconds without another event that end a change."""
RETRY = 10.0
"""Seconds until what was not right is tried again as it is; ten times what the attempt took, if that is more."""

HINT = "put it right where it is: it is taken as soon as it is whole, and nothing needs a restart"

Watch = Callable[..., Iterable[object]]
"""watchfiles.watch: waits for changes and yields them; nothing after `rust_timeout` without any."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
    """One thing that is used or refused as a whole.

    Args:
        what: "policy" or "keyring".
        name: of the keyring; empty for a policy.
        files: that it is made of.
        take: opens, checks and uses what is there now.
        used: tells whether this content is the one in use.
        hash_of: gives the content of files.
        content: hash of what was looked at last.
        seen: signature of the same.
        failed: why the last attempt failed, if it did.
        told: content that has been said not to be right.
        due: when it is to be tried again without a change, for one that failed.
    """

    what: str
    name: str
    files: tuple[Path, ...]
    take: Callable[[], None]
    used: Callable[[str], bool]
    hash_of: Callable[[tuple[Path, ...]], str] = content_hash
    content: str = ""
    seen: tuple[object, ...] = ()
    failed: Failure | None = None
    told: str = ""
    due: float = 0.0

    @property
    def title(self) -> str:
        """What people call it."""
        return f"keyring {self.name!r}" if self.name else f"policy {self.files[0]}"

    def facts(self) -> dict[str, object]:
        """Return what the report calls it."""
        files = [str(file) for file in self.files]
        return {"what": self.what, "keyring": self.name or None, "files": files}


class Watcher:
    """Watches from `start` to `stop`.

    Args:
        swap: takes what is new.
        report: is told.
        policy_file: where the policy came from; None to watch its keyrings only.
    """

    def __init__(self, swap: Swap, report: Report, policy_file: Path | None) -> None:
        self._swap, self._report = swap, report
        self._keyrings: dict[Keyring, Watched] = {}
        self._policy = None if policy_file is None else self._watched_policy(policy_file)
        self._looked = 0.0  # when
        self._deaf = ""  # why nothing tells of changes, as it was said last
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a policy that is just being compiled is not waited for."""
        self._stop.set()
        self._thread.join(1.0)

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._stop.wait(START):
            return
        from watchfiles import watch  # noqa: PLC0415 - not for programs that are over before

        while not self._stop.is_set():
            try:
                self._look(told=False)
                self._listen(watch, self._places())
            except Exception as error:  # the boundary is total: an agent that looks no more would keep old keys
                # A directory has just gone, or the system has no more watches: looking does it, if later.
                if str(error) != self._deaf:
                    _log.warning("changes of files are seen within %g s, since nothing tells of them: %r", LOOK, error)
                self._deaf = str(error)
                self._stop.wait(LOOK)

    def _listen(self, watch: Watch, watched: frozenset[Path]) -> None:
        """Look whenever something happens, until it is elsewhere that it would happen."""
        if not watched:
            self._stop.wait(LOOK)
            return
        for changes in watch(
            *watched,
            watch_filter=self._concerns,
            step=QUIET,
            stop_event=self._stop,
            rust_timeout=int(LOOK * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
            ignore_permission_denied=True,
        ):
            self._look(told=bool(changes))
            if self._places() != watched:
                return

    def _places(self) -> frozenset[Path]:
        return places(file for watched in self._all() for file in watched.files)

    def _concerns(self, _: object, path: str) -> bool:
        """Leave out what goes on beside our files. Symbolic links on the way have other names: those count too."""
        if time.monotonic() > self._looked + LOOK:  # where there is always something going on nothing times out
            return True
        changed = Path(path)
        names = {file.name for watched in self._all() for file in watched.files}
        folders = {file for watched in self._all() for file in watched.files if file.is_dir()}
        return changed.name in names or changed.is_symlink() or not changed.exists() or changed.parent in folders

    def _all(self) -> list[Watched]:
        return [*self._keyrings.values(), *([self._policy] if self._policy else [])]

    def _look(self, *, told: bool) -> None:
        self._looked = time.monotonic()
        self._follow_policy()
        for watched in self._all():
            self._look_at(watched, told=told)

    def _follow_policy(self) -> None:
        """Watch the keyrings of the policy that decides now."""
        wanted = keyrings_of(self._swap.policy)
        for keyring in [keyring for keyring in self._keyrings if keyring not in wanted]:
            del self._keyrings[keyring]
        for keyring in wanted - self._keyrings.keys():
            self._keyrings[keyring] = self._watched_keyring(keyring)

    def _look_at(self, watched: Watched, *, told: bool) -> None:
        seen = signature(watched.files)
        if not told and seen == watched.seen and watched.failed is None:
            return
        content = watched.hash_of(watched.files)
        stood = content == watched.content
        watched.content, watched.seen = content, seen
        if watched.used(content):
            self._is_right(watched)
        elif not stood or time.monotonic() >= watched.due:
            self._try(watched)
        if stood and watched.failed is not None:
            self._tell_failure(watched, watched.failed)

    def _try(self, watched: Watched) -> None:
        began = time.monotonic()
        try:
            watched.take()
        except KtlsError as error:
            watched.failed = Failure.of(error)
        except Exception as error:  # the boundary is total: whatever was not foreseen is told, and the old one stays
            _log.exception("%s could not be read", watched.title)
            watched.failed = Failure.internal(error)
        else:
            self._is_right(watched)
            return
        now = time.monotonic()
        watched.due = now + max(RETRY, 10 * (now - began))

    def _is_right(self, watched: Watched) -> None:
        if watched.told:
            self._report.write("restored", watched.facts())
            _log.warning("%s is right again", watched.title)
        watched.failed, watched.told = None, ""

    def _tell_failure(self, watched: Watched, failure: Failure) -> None:
        if watched.told == watched.content:
            return
        watched.told = watched.content
        facts = {"error": failure.reason, "message": failure.message, "hint": failure.hint or HINT}
        self._report.write("refused", watched.facts() | facts)
        _log.error("%s is not right, and the old one stays: %s", watched.title, failure.message)

    # --- what is watched -----------------------------------------------------------------------------------------

    def _watched_keyring(self, keyring: Keyring) -> Watched:
        return Watched(
            "keyring",
            keyring.name,
            files_of(keyring),
            take=lambda: self._swap.renew(keyring),
            used=lambda content: content == self._swap.content(keyring),
        )

    def _watched_policy(self, file: Path) -> Watched:
        used = {self._swap.policy.content}

        def take() -> None:
            policy = load(file)
            self._swap.use(policy)
            used.clear()
            used.add(policy.content)

        return Watched("policy", "", (file,), take, used=used.__contains__, hash_of=policy_content)


def policy_content(files: tuple[Path, ...]) -> str:
    """Return the hash of a policy file, as a loaded policy has it."""
    try:
        return content_of(read_file(files[0]))
    except PolicyError as error:
        return error.message

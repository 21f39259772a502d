"""Where an agent's policy comes from: the command line, a file that is watched, a revision, or the database it follows.

Imports are few: this runs before every program.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ktls.errors import UsageError
from ktls.run_options import RunOptions

if TYPE_CHECKING:
    from policy.model import Policy

SNAPSHOT = "KTLS_POLICY_SNAPSHOT"


class Database(NamedTuple):
    """A policy database to follow.

    Attributes:
        url: as for `policy.store.open_store`.
        snapshot: file for the last good policy.
        allow: let every connection pass in clear while there is neither; otherwise deny it.
    """

    url: str
    snapshot: Path
    allow: bool = False


class Source(NamedTuple):
    """A policy, and what may change it: exactly one of `policy` and `database` is there.

    Attributes:
        policy: to begin with.
        file: where that came from, to be watched.
        database: says what is in force.
    """

    policy: "Policy | None" = None
    file: Path | None = None
    database: Database | None = None


def source_of(options: RunOptions, environment: Mapping[str, str]) -> Source | None:
    """Find what says which connections of a program to protect.

    Args:
        options: the command line of `ktls run`; it wins.
        environment: KTLS_AGENT comes next, then KTLS_POLICY.

    Returns:
        None where the policy of the agent in KTLS_AGENT holds.

    Raises:
        PolicyError: it has mistakes; all are named.
        UsageError: nothing says what to protect.
    """
    if not options.ports and options.policy is None and environment.get("KTLS_AGENT"):
        if options.log is not None or options.observe:
            raise UsageError("--log and --observe are for an agent of its own; the one in KTLS_AGENT has its own ways")
        return None
    word = options.policy or environment.get("KTLS_POLICY")
    if options.ports or (options.observe and not word):
        from policy.secure_port import secure_port  # noqa: PLC0415 - not needed with a file

        return Source(
            secure_port(
                inbound=list(options.inbound),
                outbound=list(options.outbound),
                certificate=_absolute(options.certificate),
                private_key=_absolute(options.private_key),
                trust=() if options.trust is None else (str(Path(options.trust).absolute()),),
                engine=options.engine or "auto",
            )
        )
    if not word:
        raise UsageError(
            "nothing says which connections to protect",
            hint="give --inbound PORT, --outbound PORT or --policy FILE; `ktls run --help` has examples",
        )
    return find(word, environment)


def find(
    word: str,
    environment: Mapping[str, str],
    *,
    database: str | None = None,
    snapshot: Path | None = None,
    allow: bool = False,
) -> Source:
    """Find the policy that somebody means.

    Args:
        word: a file; "@active" for what is in force in the database, from then on; "@7" and the like for a revision.
        environment: names the database and the snapshot where the arguments do not.
        database: its URL or path.
        snapshot: file for the last good policy.
        allow: pass all connections where there is neither.

    Raises:
        PolicyError: the file has mistakes; all are named.
        KtlsError: the revision cannot be had.
    """
    if not word.startswith("@"):
        from policy.load import load  # noqa: PLC0415 - not needed with an agent

        file = Path(word).absolute()
        return Source(load(file), file)
    from policy.admin.source import ACTIVE, VARIABLE, default_database, load_source  # noqa: PLC0415 - as above

    default = default_database(environment)
    url = database or environment.get(VARIABLE) or default
    if word != ACTIVE:
        return Source(load_source(word, url))
    kept = snapshot or Path(environment.get(SNAPSHOT) or _snapshot_beside(default, url))
    return Source(database=Database(url, kept.absolute(), allow))


def _snapshot_beside(default: str, url: str) -> Path:
    """One for each database, so that an agent never begins with another one's policy."""
    import hashlib  # noqa: PLC0415 - only with a database

    return Path(default).with_name(f"in-force-{hashlib.sha256(url.encode()).hexdigest()[:12]}.snapshot")


def _absolute(file: str | None) -> Path | None:
    return None if file is None else Path(file).absolute()

"""Records of connections, as agents keep them: JSON lines, read back as facts, verdicts and counts.

The same line is the agent's report (docs/policy-tools.md). Only what a decision needs is read; lines of other events,
and of later versions with more fields, are passed over. A line that is cut short by a full disk is counted, not fatal.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ktls.errors import PolicyError
from policy.decide import Decision, decide
from policy.model import Facts, Policy, Verdict
from policy.problems import quote
from policy.questions import read_question

DECIDED = frozenset({"clear", "denied", "observed", "failed", "open", "end", "clear-end"})
"""Events that tell of a decision; those of one connection share their number."""
_SAID = ("direction", "remote", "local", "remote_name", "program", "user", "group", "unit")
LINE_MAX = 1 << 16  # bytes; an agent's are a few hundred


@dataclass(frozen=True, slots=True)
class Record:
    """One connection.

    Args:
        facts: as the policy saw it.
        verdict: what it got: an observed one stayed clear.
        rule: by which rule; None for the default.
        line: of the record, for messages.
    """

    facts: Facts
    verdict: Verdict
    rule: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Change:
    """A recorded connection that another policy decides otherwise."""

    record: Record
    decision: Decision


@dataclass(frozen=True, slots=True)
class Records:
    """What a file holds; `unread` counts lines that are no records."""

    records: tuple[Record, ...]
    unread: int


def records_path(environment: Mapping[str, str]) -> Path | None:
    """Tell where agents keep the record of connections.

    Args:
        environment: KTLS_RECORDS names a file, or is "off"; else it is in XDG_STATE_HOME, root's in /var/lib/ktls.

    >>> records_path({"KTLS_RECORDS": "off"}) is None
    True
    """
    said = environment.get("KTLS_RECORDS")
    if said:
        return None if said == "off" else Path(said).absolute()
    if environment.get("XDG_STATE_HOME"):
        return Path(environment["XDG_STATE_HOME"], "ktls", "connections.jsonl")
    if os.geteuid() == 0:
        return Path("/var/lib/ktls/connections.jsonl")
    home = environment.get("HOME")
    return Path(home, ".local/state/ktls/connections.jsonl") if home else None


def kept_records(environment: Mapping[str, str]) -> list[Path]:
    """List the files in which agents have kept records, the older one first."""
    path = records_path(environment)
    return [] if path is None else [one for one in (path.with_name(path.name + ".1"), path) if one.exists()]


def read_records(paths: Iterable[Path]) -> Records:
    """Read records.

    Args:
        paths: of JSON-lines files, the oldest first.

    Returns:
        One record a connection.

    Raises:
        PolicyError: a file cannot be read.
    """
    found: dict[tuple[str, ...], Record] = {}
    unread = 0
    for path in paths:
        for number, line in _lines(path):
            record = _record(line, number)
            if record is None:
                unread += 1
            elif record[1] is not None:
                found.setdefault(record[0], record[1])
    return Records(tuple(found.values()), unread)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(iter(lambda: file.readline(LINE_MAX), b""), 1)
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from error


def _record(line: bytes, number: int) -> tuple[tuple[str, ...], Record | None] | None:
    """What tells the connection from others, and its record; None for what is no line of an agent.

    Numbers of agents and connections come again after a restart, ports on both sides hardly do. There is no record for
    other events.
    """
    try:
        said = json.loads(line)
        if not isinstance(said, dict) or not isinstance(said.get("event"), str):
            return None
        if said["event"] not in DECIDED or said.get("remote") is None:
            return (), None
        verdict = Verdict.CLEAR if said["event"] in ("observed", "clear-end") else Verdict(said["verdict"])
        facts = read_question({key: said.get(key) for key in _SAID} | {"at": said["time"]})
    except (ValueError, KeyError, RecursionError, PolicyError):
        return None
    which = tuple(str(said.get(key)) for key in ("agent", "id", "pid", "local", "remote"))
    return which, Record(facts, verdict, said.get("rule"), number)


def replay(policy: Policy, records: Iterable[Record]) -> tuple[Change, ...]:
    """Try a policy on recorded connections.

    Args:
        policy: to be tried.
        records: of connections that were made, each tried at its own time.

    Returns:
        Those whose verdict would be another.
    """
    decided = ((record, decide(policy, record.facts)) for record in records)
    return tuple(Change(record, decision) for record, decision in decided if decision.verdict is not record.verdict)


def describe(facts: Facts) -> str:
    """Call a connection by who, where and whither, on one line."""
    who = facts.program or "an unknown program"
    whom = f" as {facts.user}" if facts.user else ""
    way, other = ("to", facts.remote) if facts.direction == "outbound" else ("from", facts.remote)
    name = f" ({quote(facts.remote_name)[1:-1]})" if facts.remote_name else ""
    return f"{who}{whom} {way} {other[0]}{name} port {other[1]}"

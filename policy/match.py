"""Whether a connection fits a rule. One table, key -> condition, which deciding and explaining share.

What is not known fits no condition: a rule about a program is not about a connection whose program nobody could name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ktls.errors import PolicyError, UsageError
from policy.model import AddressRange, Direction, Endpoint, Facts, Glob, Match, NumberRange, TimeWindow
from policy.values import DAYS, address

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

_DELETED = " (deleted)"  # fs/d_path.c: behind the path of a running program whose file was replaced, as by an upgrade


class Subject(NamedTuple):
    """The facts of one connection in the form that conditions compare; see `Facts`."""

    direction: Direction
    local: tuple[int, int] | None
    local_port: int | None
    remote: tuple[int, int] | None
    remote_port: int | None
    remote_name: str | None
    program: str | None
    user: str | None
    uid: int | None
    groups: tuple[str | int, ...]
    unit: str | None
    when: "datetime"
    facts: Facts


def subject(facts: Facts) -> Subject:
    """Prepare facts for matching.

    Args:
        facts: of one connection. An end without an address, as one that has gone already has, is not known.

    Raises:
        UsageError: `when` has no time zone.
    """
    if facts.when.utcoffset() is None:
        raise UsageError(f"the time {facts.when} has no zone, so that no rule can tell whether it holds")
    local, local_port = _endpoint(facts.local)
    remote, remote_port = _endpoint(facts.remote)
    return Subject(
        direction=facts.direction,
        local=local,
        local_port=local_port,
        remote=remote,
        remote_port=remote_port,
        remote_name=facts.remote_name and facts.remote_name.lower().removesuffix("."),
        program=facts.program and facts.program.removesuffix(_DELETED),
        user=facts.user,
        uid=facts.uid,
        groups=(*(() if facts.gid is None else (facts.gid,)), *facts.groups, *facts.group_names),
        unit=facts.unit,
        when=facts.when,
        facts=facts,
    )


def _endpoint(endpoint: Endpoint | None) -> tuple[tuple[int, int] | None, int | None]:
    if endpoint is None:
        return None, None
    try:
        return address(endpoint[0]), endpoint[1]
    except PolicyError:
        return None, None


@dataclass(frozen=True, slots=True)
class Condition:
    """How one key of a match is tried.

    Args:
        holds: whether the connection fits; called only where the match has the key.
        shows: what the connection has there, for people.
    """

    holds: Callable[[Match, Subject], bool]
    shows: Callable[[Subject], object]


def failing(match: Match, subject: Subject) -> str | None:
    """Return the first key of a match that a connection does not fit; None when it fits the match."""
    for key in match.keys:
        if not CONDITIONS[key].holds(match, subject):
            return key
    return None


def compare(key: str, match: Match, subject: Subject) -> tuple[bool, str]:
    """Say how a connection compares with one key of a match.

    Args:
        key: of the match.
        match: of a rule.
        subject: the connection.

    Returns:
        Whether it fits, and a text as 'remote_port 80 is not in 443, 8000-8999'.
    """
    condition = CONDITIONS[key]
    wanted = getattr(match, key)
    listed = ", ".join(map(str, wanted)) if isinstance(wanted, tuple) else str(wanted)
    shown = condition.shows(subject)
    holds = condition.holds(match, subject)
    if shown is None:
        return holds, f"{key} is not known, and would have to be in {listed}"
    return holds, f"{key} {shown} is {'' if holds else 'not '}in {listed}"


# --- conditions ------------------------------------------------------------------------------------------------------


def _in_addresses(found: tuple[int, int] | None, ranges: tuple[AddressRange, ...]) -> bool:
    if found is None:
        return False
    version, number = found
    return any(one.version == version and one.first <= number <= one.last for one in ranges)


def _in_numbers(found: int | None, ranges: tuple[NumberRange, ...]) -> bool:
    return found is not None and any(one.first <= found <= one.last for one in ranges)


def _in_globs(found: str | None, globs: tuple[Glob, ...]) -> bool:
    return found is not None and any(glob.matches(found) for glob in globs)


def _in_users(subject: Subject, users: tuple[str | NumberRange, ...]) -> bool:
    ids = tuple(one for one in users if isinstance(one, NumberRange))
    return subject.user in users or _in_numbers(subject.uid, ids)


def _in_groups(subject: Subject, groups: tuple[str | NumberRange, ...]) -> bool:
    ids = tuple(one for one in groups if isinstance(one, NumberRange))
    return any(_in_numbers(one, ids) if isinstance(one, int) else one in groups for one in subject.groups)


def in_window(window: TimeWindow | None, when: "datetime") -> bool:
    """Tell whether a moment lies in a window. What lies after midnight belongs to the day on which the window began."""
    if window is None:
        return True
    local = when.astimezone(None if window.zone is None else _zone(window.zone))
    minute, day = local.hour * 60 + local.minute, local.weekday()
    if window.start < window.end:
        return day in window.days and window.start <= minute < window.end
    return (day in window.days and minute >= window.start) or ((day - 1) % 7 in window.days and minute < window.end)


def moment_in(window: TimeWindow | None) -> "datetime":
    """Make up a moment that lies in a window."""
    from datetime import datetime, timedelta  # noqa: PLC0415 - the agent has it from its caller

    monday = datetime(2026, 1, 5, tzinfo=None if window is None or window.zone is None else _zone(window.zone))
    if window is None:
        return monday.astimezone()
    start = monday + timedelta(days=min(window.days), minutes=window.start)
    return start.astimezone()


@lru_cache(maxsize=64)
def _zone(name: str) -> "tzinfo":
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few policies have a zone

    return ZoneInfo(name)


def _clock(subject: Subject) -> str:
    return f"{DAYS[subject.when.weekday()]} {subject.when:%H:%M %Z}"


def _user(subject: Subject) -> str | None:
    if subject.uid is None or subject.user is None:
        return subject.user if subject.uid is None else str(subject.uid)
    return f"{subject.user} ({subject.uid})"


def _groups(subject: Subject) -> str | None:
    return ", ".join(map(str, subject.groups)) or None


def _of_facts(end: Callable[[Facts], Endpoint | None]) -> Callable[[Subject], object]:
    return lambda subject: (end(subject.facts) or (None,))[0] or None


CONDITIONS: dict[str, Condition] = {
    "direction": Condition(lambda match, has: match.direction == has.direction, lambda has: has.direction),
    "local_port": Condition(
        lambda match, has: _in_numbers(has.local_port, match.local_port), lambda has: has.local_port
    ),
    "remote_port": Condition(
        lambda match, has: _in_numbers(has.remote_port, match.remote_port), lambda has: has.remote_port
    ),
    "local": Condition(lambda match, has: _in_addresses(has.local, match.local), _of_facts(lambda facts: facts.local)),
    "remote": Condition(
        lambda match, has: _in_addresses(has.remote, match.remote), _of_facts(lambda facts: facts.remote)
    ),
    "remote_name": Condition(
        lambda match, has: _in_globs(has.remote_name, match.remote_name), lambda has: has.remote_name
    ),
    "program": Condition(lambda match, has: _in_globs(has.program, match.program), lambda has: has.program),
    "user": Condition(lambda match, has: _in_users(has, match.user), _user),
    "group": Condition(lambda match, has: _in_groups(has, match.group), _groups),
    "unit": Condition(lambda match, has: _in_globs(has.unit, match.unit), lambda has: has.unit),
    "time": Condition(lambda match, has: in_window(match.time, has.when), _clock),
}
"""For each key of `Match`."""

"""Warnings: what a policy may say, but hardly anybody means."""

from collections.abc import Iterator
from typing import Any, cast

from policy.match import Subject, moment_in
from policy.model import (
    AddressRange,
    Direction,
    Facts,
    Glob,
    Match,
    NumberRange,
    Policy,
    Rule,
    TimeWindow,
    Verdict,
)
from policy.problems import Problem, quote


def warnings(policy: Policy) -> tuple[str, ...]:
    """Look for what is probably a mistake. Nothing here stops a policy from being used.

    Args:
        policy: as loaded.

    Returns:
        Lines as those of a PolicyError, in the order of the file.
    """
    found = [*_shadowed(policy), *_actions(policy)]
    return tuple(problem.text(policy.file) for problem in sorted(found))


def _label(rule: Rule) -> str:
    return f"[rule {quote(rule.name)}]"


def shadowed(policy: Policy) -> Iterator[tuple[Rule, Rule]]:
    """Find rules that can never match, each with the first one before it that is about all that it is about.

    Such a rule fits every connection that the later one fits, so one of those is made up, and only what fits it is
    looked at.
    """
    for rule in policy.rules:
        for earlier in policy.classifier.every(_example(rule.match)):
            if earlier is rule:
                break
            if covers(earlier.match, rule.match):
                yield rule, earlier
                break


def _example(match: Match) -> Subject:
    """Make up a connection that fits a match, and of which nothing more is known. Patterns fit themselves."""

    def one(values: tuple[Any, ...]) -> Any:  # noqa: ANN401 - each key has its own type
        return values[0] if values else None

    def lowest(values: tuple[Any, ...]) -> int | None:
        return values[0].first if values else None

    def area(values: tuple[AddressRange, ...]) -> tuple[int, int] | None:
        return (values[0].version, values[0].first) if values else None

    user, group = one(match.user), one(match.group)
    return Subject(
        direction=cast("Direction", match.direction),  # None, which fits no condition
        local=area(match.local),
        local_port=lowest(match.local_port),
        remote=area(match.remote),
        remote_port=lowest(match.remote_port),
        remote_name=match.remote_name[0].text if match.remote_name else None,
        program=match.program[0].text if match.program else None,
        user=user if isinstance(user, str) else None,
        uid=user.first if isinstance(user, NumberRange) else None,
        groups=() if group is None else (group.first if isinstance(group, NumberRange) else group,),
        unit=match.unit[0].text if match.unit else None,
        when=moment_in(match.time),
        facts=cast("Facts", None),  # for people, who never see it
    )


def _shadowed(policy: Policy) -> Iterator[Problem]:
    for rule, earlier in shadowed(policy):
        what = f"never matches: rule {quote(earlier.name)} comes first, and is about all that this one is about"
        yield Problem(rule.line, _label(rule), "", what)


def _actions(policy: Policy) -> Iterator[Problem]:
    for rule in policy.rules:
        action = rule.action
        if action is None:
            continue
        if rule.verdict is not Verdict.TLS:
            yield Problem(rule.line, _label(rule), "action", f"is not used: the verdict is {quote(str(rule.verdict))}")
            continue
        if action.keylog is not None:
            what = f"whoever can read {quote(str(action.keylog))} can read what these connections carry"
            yield Problem(rule.line, _label(rule), "keylog", what)
        if action.verify == "none" and not action.peer_identities and rule.match.direction != "inbound":
            yield Problem(rule.line, _label(rule), "verify", 'with "none" anybody can be the server')


# --- is one match about all that another is about? -------------------------------------------------------------------


def covers(wide: Match, narrow: Match) -> bool:
    """Tell whether every connection that fits `narrow` fits `wide`, as far as one look at each key can tell.

    Returns:
        True is certain; False may be wrong where names, users or times are written in two ways.

    >>> covers(Match(), Match("inbound"))
    True
    """
    return all(key in narrow.keys and _key_covers(getattr(wide, key), getattr(narrow, key)) for key in wide.keys)


def _key_covers(wide: object, narrow: object) -> bool:
    if isinstance(wide, tuple) and isinstance(narrow, tuple):
        return all(_element_covered(wide, element) for element in narrow)
    return wide == narrow or (isinstance(wide, TimeWindow) and isinstance(narrow, TimeWindow) and _always(wide))


def _always(window: TimeWindow) -> bool:
    return len(window.days) == 7 and window.start == 0 and window.end == 1440


def _element_covered(wide: tuple[object, ...], element: object) -> bool:
    match element:
        case Glob():
            plain = "*" not in element.text and "?" not in element.text
            globs = [one for one in wide if isinstance(one, Glob)]
            return element in globs or any(
                set(one.text) == {"*"} or (plain and one.matches(element.text)) for one in globs
            )
        case AddressRange():
            same = [
                (one.first, one.last)
                for one in wide
                if isinstance(one, AddressRange) and one.version == element.version
            ]
            return _spanned(same, element.first, element.last)
        case NumberRange():
            numbers = [(one.first, one.last) for one in wide if isinstance(one, NumberRange)]
            return _spanned(numbers, element.first, element.last)
    return element in wide


def _spanned(ranges: list[tuple[int, int]], first: int, last: int) -> bool:
    """Tell whether ranges, put side by side, hold all from first to last."""
    for low, high in sorted(ranges):
        if low <= first <= high:
            first = high + 1
        if first > last:
            return True
    return False

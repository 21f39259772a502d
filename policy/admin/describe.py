"""Rules as people and programs read them."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from policy.model import Action, Match, Rule

_DEFAULTS = Action()


def conditions(match: Match) -> str:
    """Say in one line when a rule holds.

    >>> conditions(Match("inbound"))
    'inbound'
    """
    texts = []
    for key in match.keys:
        value = getattr(match, key)
        listed = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        texts.append(listed if key == "direction" else f"{key} {listed}")
    return "; ".join(texts) or "always"


def rule_row(rule: Rule) -> tuple[object, ...]:
    """Make a row of `ktls policy list`."""
    action = rule.action and (rule.action.name or "(its own)")
    return rule.priority, rule.name, rule.verdict, action, conditions(rule.match)


def rule_facts(rule: Rule) -> dict[str, object]:
    """Make JSON of a rule, with everything that it comes to."""
    match = {key: _plain(getattr(rule.match, key)) for key in rule.match.keys}
    facts = {"name": rule.name, "priority": rule.priority, "line": rule.line, "verdict": str(rule.verdict)}
    return facts | {"match": match, "action": _plain(rule.action)}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "text"):
        return value.text
    if is_dataclass(value) and not isinstance(value, type) and type(value).__str__ is object.__str__:
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def rule_lines(rule: Rule) -> Iterator[str]:
    """Write a rule out for people; what is the default says so."""
    yield f'rule "{rule.name}", priority {rule.priority}' + (f", line {rule.line}" if rule.line else "")
    yield f"  when     {conditions(rule.match)}"
    yield f"  verdict  {rule.verdict}"
    if rule.action is None:
        return
    yield f"  action   {rule.action.name or '(its own)'}"
    for part in fields(rule.action):
        value = getattr(rule.action, part.name)
        if part.name == "name":
            continue
        default = "   (default)" if value == getattr(_DEFAULTS, part.name) else ""
        yield f"    {part.name:<24}{_words(value)}{default}"


def _words(value: object) -> str:
    plain = _plain(value)
    if isinstance(plain, dict):
        return ", ".join(f"{key} {_words(one)}" for key, one in plain.items() if one not in (None, [], ""))
    if isinstance(plain, list):
        return ", ".join(map(str, plain)) or "-"
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return "-" if plain in (None, "") else str(plain)

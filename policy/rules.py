"""The [[rule]] tables: which connections, and what becomes of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ktls.errors import PolicyError
from policy import values
from policy.actions import Means, ReadAction, read_action
from policy.checks import NAME_MAX, Check, Node, choice, each, integer, name, of_text, similar, text
from policy.model import Direction, Match, Rule, TimeWindow, Verdict
from policy.names import program, remote_name, unit
from policy.problems import quote, refuse
from policy.tls import check_tls_rule

PRIORITY_MAX = 2_000_000_000
RULES_MAX = 200_000


def _direction(node: Node) -> Direction | None:
    word = choice("inbound", "outbound", "both")(node)
    return None if word == "both" else "inbound" if word == "inbound" else "outbound"


def _of_value(parse: Callable[[int | str], object]) -> Check:
    """Make a check of a function that reads a text or a number."""

    def check(node: Node) -> object:
        if isinstance(node.value, bool) or not isinstance(node.value, int | str):
            refuse(node.value, 'is not a number or a range, as "6000-6999"')
        return parse(node.value)

    return check


def _time(node: Node) -> TimeWindow:
    given = node.read(
        {
            "days": each(of_text(values.days), least=1),
            "from": of_text(values.minutes),
            "to": of_text(values.minutes),
            "zone": of_text(values.zone),
        }
    )
    fields = {"days": "day_sets", "from": "start", "to": "end", "zone": "zone"}
    return values.time_window(**{fields[key]: value for key, value in given.items()})  # type: ignore[arg-type]


_MATCH: Mapping[str, Check] = {
    "direction": _direction,
    "local": each(of_text(values.address_range)),
    "local_port": each(_of_value(values.port_range)),
    "remote": each(of_text(values.address_range)),
    "remote_port": each(_of_value(values.port_range)),
    "remote_name": each(of_text(remote_name)),
    "program": each(of_text(program)),
    "user": each(_of_value(values.user)),
    "group": each(_of_value(values.group)),
    "unit": each(of_text(unit)),
    "time": _time,
}


@dataclass(frozen=True, slots=True)
class Names:
    """What rules refer to: actions, and what an action written inside a rule refers to."""

    actions: Mapping[str, ReadAction]
    means: Means


def read_rules(root: Node, names: Names) -> list[Rule]:
    """Read all rules.

    Args:
        root: the value of "rule".
        names: what they refer to.

    Returns:
        Those without problems, in the order of the file.

    Raises:
        PolicyError: it is no list of tables, or too long.
    """
    if not isinstance(root.value, list):
        refuse(root.value, "is not a list of rules; each is written [[rule]]")
    if len(root.value) > RULES_MAX:
        raise PolicyError(f"{len(root.value)} rules are too many: at most {RULES_MAX}")
    rules: list[Rule] = []
    taken: dict[str, int] = {}
    for number, value in enumerate(root.value):
        node = root.child(number, value=value).called(_label(number, value))
        try:
            rule = _read_rule(node, names)
        except PolicyError as error:
            node.problem(error.message)
            continue
        line = node.positions.line(node.place)
        if rule.name in taken:
            node.problem(f"{quote(rule.name)} is the rule in line {taken[rule.name]} already", "name")
        taken.setdefault(rule.name, line)
        rules.append(rule)
    return rules


def _label(number: int, value: object) -> str:
    """Call a rule by its name, or where it has none by its number, from 1."""
    called = value.get("name") if isinstance(value, dict) else None
    return f"[rule {quote(called, NAME_MAX) if isinstance(called, str) and called else number + 1}]"


def _read_rule(node: Node, names: Names) -> Rule:
    used: list[ReadAction] = []

    def action(node: Node) -> None:
        used.append(_read_action(node, names))

    given = node.read(
        {
            "name": name,
            "priority": integer(1, PRIORITY_MAX),
            "verdict": choice(*Verdict),
            **_MATCH,
            "action": action,
        },
        required=("name", "verdict"),
    )
    match = Match(**{key: given[key] for key in _MATCH if key in given})  # type: ignore[arg-type]
    verdict = Verdict(str(given.get("verdict", Verdict.DENY)))
    if verdict is Verdict.TLS:
        if used:
            check_tls_rule(node, match, used[0])
        elif "action" not in node.table():
            node.problem('a verdict of "tls" needs an action: the name of one, or { ... }', "verdict")
    return Rule(
        name=str(given.get("name", node.where)),
        verdict=verdict,
        match=match,
        action=used[0].action if used else None,
        line=node.positions.line(node.place),
        **{key: given[key] for key in ("priority",) if key in given},  # type: ignore[arg-type]
    )


def _read_action(node: Node, names: Names) -> ReadAction:
    if isinstance(node.value, dict):
        return read_action(node, "", names.means)
    called = text(node)
    if called not in names.actions:
        near = similar(called, names.actions)
        refuse(called, f"is not an action of this file{f'; did you mean {quote(near)}?' if near else ''}")
    return names.actions[called]

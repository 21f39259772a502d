"""From AT-TLS statements to a policy: TOML with a comment wherever a person has to look.

A condition that has no counterpart makes a rule hold more often. For one that protects that errs on the safe side and
is noted; one that leaves connections clear is written as a comment, so that nothing becomes clear that was not.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from policy.attls.actions import Translated, action_of
from policy.attls.conditions import KNOWN, addresses, ports, times
from policy.attls.references import Library, Notes
from policy.attls.statements import Statement, read_statements
from policy.problems import quote

REFERENCES = frozenset({"ttlsgroupactionref", "ttlsenvironmentactionref", "ttlsconnectionactionref"})
PRIORITY_DEFAULT = 1


NOBODY = """\
# SAFCheck asks RACF which user a certificate belongs to: say it here, as often as there are users. Until then nobody is
# let in by the rules that need it.
[[map]]
identity = "DNS:nobody.invalid"
user = "nobody"
"""


@dataclass(frozen=True, slots=True)
class Import:
    """A translated file.

    Args:
        text: the policy, TOML.
        notes: what a person must look at, each with its line in the AT-TLS file.
    """

    text: str
    notes: tuple[tuple[int, str], ...]


def translate(text: str, file: str) -> Import:
    """Translate an AT-TLS policy file.

    Args:
        text: its content.
        file: its name, for messages and for the heading.

    Raises:
        PolicyError: it cannot be read as one.
    """
    notes = Notes()
    library = Library(read_statements(text, file), notes)
    keyrings: dict[str, str] = {}
    rules = [part for rule in library.of("TTLSRule") for part in _rule(rule, library, keyrings)]
    for statement in library.unused():
        if statement.kind.lower() != "ttlsrule":
            called = f"{statement.kind} {statement.label}".strip()
            notes.add(statement.line, f"{called}: nothing refers to it, or nothing here is like it; left out")
    listed = sorted(notes.found)
    head = [
        f"# Translated from {Path(file).name}, an AT-TLS policy. Read it: the notes say what has no counterpart.",
        "#",
    ]
    head += [f"# line {line}: {what}" for line, what in listed] or ["# Nothing was left out."]
    maps = [NOBODY] if any('client_auth = "map"' in rule for rule in rules) else []
    parts = ["\n".join(head) + '\nversion = 1\ndefault = "clear"\n', *maps, *keyrings.values(), *rules]
    return Import("\n".join(parts), tuple(listed))


def _rule(rule: Statement, library: Library, keyrings: dict[str, str]) -> list[str]:
    library.used.add(id(rule))
    before = len(library.notes.found)
    keys = _conditions(rule, library)
    when = times(rule, library)
    lost = len(library.notes.found) > before  # conditions that do not narrow the rule any more
    made = action_of(rule, library)
    if made.keyring is not None:
        keyrings.setdefault(*made.keyring)
    return [
        _written(rule, number, len(when), [*keys, *([f"time = {_toml(time)}"] if time else [])], made, lost)
        for number, time in enumerate(when or [None], 1)
    ]


def _conditions(rule: Statement, library: Library) -> list[str]:
    keys = []
    priority = rule.value("Priority")
    if priority is not None and priority.isdigit() and int(priority) > 0:
        keys.append(f"priority = {int(priority)}")
    elif priority is not None:
        library.notes.add(rule.line, f"Priority {priority}: not understood; it is a number from 1 on")
    direction = (rule.value("Direction") or "Both").lower()
    if direction in ("inbound", "outbound"):
        keys.append(f'direction = "{direction}"')
    elif direction != "both":
        library.notes.add(rule.line, f"Direction {direction}: not understood; it is one of inbound, outbound, both")
    for end in ("Local", "Remote"):
        for what, found in (
            (end.lower(), addresses(rule, end, library)),
            (f"{end.lower()}_port", ports(rule, end, library)),
        ):
            if found is not None:
                keys.append(f"{what} = {_toml(list(dict.fromkeys(found)))}")
    user = rule.value("Userid")
    if user:
        keys.append(f"user = {_toml([user.lower()])}")
        library.notes.add(rule.line, f"Userid {user}: login names are in lower case here; is {user.lower()} the one?")
    for parameter in rule.every("Jobname"):
        words = " ".join(parameter.words)
        library.notes.add(parameter.line, f"Jobname {words}: no counterpart; name the program or the unit instead")
    for parameter in rule.parameters:
        if parameter.key.lower() not in KNOWN | REFERENCES:
            words = " ".join((parameter.key, *parameter.words))
            library.notes.add(parameter.line, f"{words}: no counterpart, left out")
    return keys


def _written(rule: Statement, number: int, of: int, keys: list[str], made: Translated, lost: bool) -> str:
    name = re.sub(r"[^\x20-\x7e]", "?", rule.label or f"rule of line {rule.line}")[:90]
    lines = ["[[rule]]", f"name = {_toml(name if of < 2 else f'{name} ({number})')}", *keys]
    lines.append(f'verdict = "{made.verdict}"')
    if made.verdict == "tls":
        lines.append(f"action = {_toml(made.action)}" if made.action else "action = {}")
    comments = [f"# {comment}" for comment in made.comments]
    if lost and made.verdict == "clear":
        comments.append("# Not active: without the conditions that have no counterpart it would leave more in clear.")
        lines = [f"# {line}" for line in lines]
    return "\n".join([*comments, *lines]) + "\n"


def _toml(value: object) -> str:
    """Write a value as TOML, on one line."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(held)}" for key, held in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return quote(value, len(value))
    return str(value)

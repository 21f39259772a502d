"""From checked rules to the policy that decides: sorted, immutable, with a revision that follows from what it says."""

import hashlib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass

from policy.classify import Classifier
from policy.model import Mode, Policy, Rule, Verdict

REVISION_LENGTH = 12  # hex digits: enough to tell a site's policies apart, short enough to read out


def build(rules: Iterable[Rule], default: Verdict, file: str = "", mode: Mode = "enforce") -> Policy:
    """Make a policy.

    Args:
        rules: in the order of the file.
        default: the verdict where none of them matches.
        file: where they came from.
        mode: "observe" to decide without doing it.

    >>> build([Rule("a", Verdict.DENY), Rule("b", Verdict.CLEAR, priority=5)], Verdict.CLEAR).rules[0].name
    'b'
    """
    ordered = tuple(sorted(rules, key=lambda rule: -rule.priority))  # sorted() keeps the order among equals
    said = f"{default!s}{'' if mode == 'enforce' else ' ' + mode} {_normal(ordered)}".encode()
    revision = hashlib.sha256(said).hexdigest()[:REVISION_LENGTH]
    return Policy(ordered, default, revision, file, Classifier(ordered), mode)


def _normal(value: object) -> str:
    """Write a value in one way only, leaving out what is the default and what is there for people (compare=False)."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_normal, value))}]"
    if isinstance(value, frozenset):
        return _normal(tuple(sorted(value)))
    if is_dataclass(value):
        held = ((part.name, part.default, getattr(value, part.name)) for part in fields(value) if part.compare)
        return f"{{{','.join(f'{name}={_normal(given)}' for name, default, given in held if given != default)}}}"
    return repr(str(value))

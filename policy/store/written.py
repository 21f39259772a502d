"""Writing a rule, action or keyring as people write it: one key a line, tables inside on one line."""

import re
from collections.abc import Mapping

from ktls.errors import PolicyError
from policy.problems import quote
from policy.store.pieces import Kind

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def write(kind: Kind, name: str, values: Mapping[str, object]) -> str:
    """Write one piece as TOML.

    Args:
        kind: rule, action or keyring.
        name: of it.
        values: its keys, without the name.

    Raises:
        PolicyError: a value is of a type that no key of the language has.

    >>> print(write("rule", "web", {"verdict": "deny", "remote_port": ["80"]}), end="")
    [[rule]]
    name = "web"
    verdict = "deny"
    remote_port = ["80"]
    """
    head = f"[[rule]]\nname = {value(name)}\n" if kind == "rule" else f"[{kind}.{_key(name)}]\n"
    return head + "".join(f"{_key(key)} = {value(given)}\n" for key, given in values.items())


def value(given: object) -> str:
    """Write one value.

    Raises:
        PolicyError: it is of a type that no key of the language has.

    >>> value({"days": ["mon-fri"], "zone": "Europe/Berlin"})
    '{ days = ["mon-fri"], zone = "Europe/Berlin" }'
    """
    match given:
        case bool():
            return str(given).lower()
        case int() | float():
            return repr(given)
        case str():
            return f'"{"".join(map(_char, given))}"'
        case list() | tuple():
            return f"[{', '.join(map(value, given))}]"
        case Mapping():
            inside = ", ".join(f"{_key(key)} = {value(one)}" for key, one in given.items())
            return f"{{ {inside} }}" if inside else "{ }"
    raise PolicyError(f"{quote(str(given))} is no text, number, boolean, list or table")


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else value(key)


def _char(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\u{ord(char):04x}" if ord(char) < 32 or ord(char) == 127 else char

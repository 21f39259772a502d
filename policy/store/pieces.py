"""A policy in pieces: the top level, and each rule, action and keyring, with the text it was written as.

The texts one after the other are the document again, letter by letter. The comment lines right above a header go with
what begins there; all else goes with what is before it.

A table may be written in several places ([keyring.web] here and [[keyring.web.sni]] further down): it is a piece of
several parts, and the first has the data. One written inside the top level (`action = { modern = { } }`) has no text of
its own.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ktls.errors import PolicyError
from policy.positions import Place, index

Kind = Literal["top", "rule", "action", "keyring"]
KINDS: tuple[Kind, ...] = ("top", "rule", "action", "keyring")
Key = tuple[Kind, str, int]
"""What a piece is called in its revision: kind, name (empty for the top level), part."""


@dataclass(frozen=True)
class Piece:
    """One part of a policy.

    Args:
        kind: of table.
        name: of the rule, action or keyring.
        part: 0 for the first; see above.
        data: what it says, as JSON with its keys sorted; None but for the first part.
        text: as it was written.
    """

    kind: Kind
    name: str
    part: int
    data: str | None
    text: str

    @property
    def key(self) -> Key:
        """Return what it is called in its revision."""
        return self.kind, self.name, self.part

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 of all of it, under which it is stored."""
        return digest([self.kind, self.name, self.part, self.data, self.text])


def digest(value: object) -> str:
    """Return the SHA-256, in hex, of a value written as JSON in one way only."""
    return hashlib.sha256(_json(value).encode()).hexdigest()


def split(document: str) -> tuple[Piece, ...]:
    """Take a policy apart.

    Args:
        document: TOML text in the shape of docs/policy.md.

    Returns:
        The pieces in the order of the text, those without text after the first.

    Raises:
        PolicyError: it is no TOML, or its tables have no names.

    >>> [piece.key for piece in split("version = 1\\n[action.a]\\n[[rule]]\\nname = 'b'\\n")]
    [('top', '', 0), ('action', 'a', 0), ('rule', 'b', 0)]
    """
    text = document.replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
        said = dict(_said(data))
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"is not TOML: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise PolicyError("has a rule, action or keyring that is no table with a name") from error
    written = list(_segments(document, text, data))
    pieces: list[Piece] = []
    parts: dict[tuple[Kind, str], int] = {}
    for kind, name, own in written:
        part = parts[kind, name] = parts.get((kind, name), -1) + 1
        pieces.append(Piece(kind, name, part, said[kind, name] if part == 0 else None, own))
    inside = [Piece(kind, name, 0, value, "") for (kind, name), value in said.items() if (kind, name) not in parts]
    return (pieces[0], *inside, *pieces[1:])


def join(texts: Iterable[str]) -> str:
    """Put the texts of pieces together again."""
    return "".join(texts)


def _said(data: dict[str, object]) -> Iterator[tuple[tuple[Kind, str], str]]:
    """Give what each table says; the order is that of the text within each kind."""
    yield ("top", ""), _json({key: value for key, value in data.items() if key not in KINDS})
    rules: list[dict[str, str]] = data.get("rule", [])  # type: ignore[assignment]  # what it is not raises
    for rule in rules:
        yield ("rule", rule["name"] + ""), _json(rule)
    for kind in ("action", "keyring"):
        tables: dict[str, object] = data.get(kind, {})  # type: ignore[assignment]  # what it is not raises
        for name, value in tables.items():
            yield (kind, name), _json(value)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _segments(document: str, text: str, data: dict[str, object]) -> Iterator[tuple[Kind, str, str]]:
    """Cut the document where another table begins."""
    lines = document.split("\n")
    lines[:-1] = [f"{line}\n" for line in lines[:-1]]
    rules: list[dict[str, str]] = data.get("rule", [])  # type: ignore[assignment]  # _said has looked
    owner: tuple[Kind, str] = ("top", "")
    begun = 0
    for header in index(text).headers:
        next_owner = _owner(header.place, rules)
        if next_owner == owner:
            continue
        cut = header.line - 1
        while cut > max(header.after, begun) and lines[cut - 1].lstrip().startswith("#"):
            cut -= 1
        yield (*owner, "".join(lines[begun:cut]))
        owner, begun = next_owner, cut
    yield (*owner, "".join(lines[begun:]))


def _owner(place: Place, rules: list[dict[str, str]]) -> tuple[Kind, str]:
    match place:
        case ("rule", int() as number, *_):
            return "rule", rules[number]["name"]
        case ("action" | "keyring" as kind, str() as name, *_):
            return kind, name
    return "top", ""

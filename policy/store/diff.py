"""What another revision says differently: by rule, action and keyring, and by key."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from policy.store.order import rising
from policy.store.pieces import Kind, Piece

What = Literal["added", "removed", "changed", "moved", "rewritten"]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key with another value; None where the key is not there."""

    key: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class Change:
    """One rule, action or keyring that is not what it was, or the top level.

    Args:
        kind: of it.
        name: of it, empty for the top level.
        what: "changed" has other keys; "moved" is a rule that is tried in another place, with the same keys;
            "rewritten" says the same with other comments or layout.
        keys: of one that is changed, in the order of the alphabet; keys of tables inside with dots.
        moved: a rule that is changed and moved, or moved only.
    """

    kind: Kind
    name: str
    what: What
    keys: tuple[KeyChange, ...] = ()
    moved: bool = False


def compare(old: Iterable[Piece], new: Iterable[Piece]) -> tuple[Change, ...]:
    """Compare two policies.

    Args:
        old: as `policy.store.pieces.split` gives them.
        new: as `old`.

    Returns:
        Those that changed, in the order of the new one, and then those that are gone in the order of the old one.
    """
    was, now = _gathered(old), _gathered(new)
    moved = _moved(list(was), list(now))
    changes = [change for key in now for change in _changes(key, was.get(key), now[key], moved=key in moved)]
    return (*changes, *(Change(*key, "removed") for key in was if key not in now))


_Name = tuple[Kind, str]
_Said = tuple[str, str]
"""JSON, and text."""


def _gathered(pieces: Iterable[Piece]) -> dict[_Name, _Said]:
    gathered: dict[_Name, _Said] = {}
    for piece in pieces:
        data, text = gathered.get((piece.kind, piece.name), ("", ""))
        gathered[piece.kind, piece.name] = (data + (piece.data or ""), text + piece.text)
    return gathered


def _moved(old: list[_Name], new: list[_Name]) -> set[_Name]:
    """Find the rules that stand in another order; that of the rest does not matter."""
    places = {name: place for place, name in enumerate(old)}
    common = {name: places[name] for name in new if name[0] == "rule" and name in places}
    stayed = rising(list(common.values()))
    return {name for name, place in common.items() if place not in stayed}


def _changes(name: _Name, old: _Said | None, new: _Said, *, moved: bool) -> Iterator[Change]:
    if old is None:
        yield Change(*name, "added")
    elif old[0] != new[0]:
        was, now = _flat(json.loads(old[0])), _flat(json.loads(new[0]))
        differ = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
        yield Change(*name, "changed", tuple(KeyChange(key, was.get(key), now.get(key)) for key in differ), moved)
    elif moved:
        yield Change(*name, "moved", moved=True)
    elif old[1].strip() != new[1].strip():
        yield Change(*name, "rewritten")


def _flat(table: dict[str, object], before: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat

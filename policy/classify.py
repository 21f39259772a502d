"""The compiled form of a policy's rules: the first rule that fits, found without trying them all.

A tree. Each node looks at one key of a match: rules that name values there hang below those values, rules that do not
(or whose patterns no table can hold) hang below `others`. A look-up follows the connection's value and the others, and
leaves out every branch whose first rule comes after the best one found so far. What is left at a leaf is tried as in
`policy.match`, but for the keys that the way down has settled. Immutable once made, so all connections share it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from policy.intervals import Block, blocks
from policy.match import Subject
from policy.model import AddressRange, Glob, Match, NumberRange, Rule
from policy.tree import NEVER, Entry, Leaf, Line, Node, Table

LEAF = 4  # rules that are tried one after the other rather than sorted further
_IPV6 = 1 << 128  # where IPv6 begins on the number line that both families share: aligned for every prefix


# --- keys: where a match hangs, and where a connection looks ----------------------------------------------------------


class Key(NamedTuple):
    """How the rules of a node are told apart by one key of their matches.

    Args:
        places: where a match hangs; None where no table can hold one of its values.
        node: makes the node, from what hangs at each place and the others.
    """

    places: Callable[[Match], Sequence[object] | None]
    node: Callable[[Mapping[Any, Node], Node], Node]


def _address_places(ranges: Iterable[AddressRange]) -> list[Block]:
    bases = ((_IPV6 if one.version == 6 else 0, one) for one in ranges)
    return [block for base, one in bases for block in blocks(base + one.first, base + one.last)]


def _number_places(ranges: Iterable[NumberRange]) -> list[Block]:
    return [block for one in ranges for block in blocks(one.first, one.last)]


def _on_line(address: tuple[int, int] | None) -> int | None:
    if address is None:
        return None
    version, number = address
    return number + _IPV6 if version == 6 else number


def _id_places(ids: Iterable[str | NumberRange]) -> list[object] | None:
    if any(isinstance(one, NumberRange) and one.first != one.last for one in ids):
        return None
    return [one.first if isinstance(one, NumberRange) else one for one in ids]


def _glob_places(globs: Iterable[Glob], fixed: Callable[[str], str | None]) -> list[object] | None:
    places = [fixed(glob.text) for glob in globs]
    return None if None in places else list(places)


def _whole(text: str) -> str | None:
    return None if "*" in text or "?" in text else text


def _name_place(text: str) -> str | None:
    """ "*.example" hangs at ".example", which is no name."""
    return _whole(text.removeprefix("*")) if text.startswith("*.") else _whole(text)


def _name_values(has: Subject) -> Iterable[str]:
    name = has.remote_name
    if name is None:
        return ()
    parts, start = [name], name.find(".")
    while start >= 0:
        parts.append(name[start:])
        start = name.find(".", start + 1)
    return parts


def _path_place(text: str) -> str | None:
    """ "/opt/app/*" hangs at "/opt/app/", which is no program."""
    return _whole(text.removesuffix("*")) if text.endswith("/*") else _whole(text)


def _path_values(has: Subject) -> Iterable[str]:
    path = has.program
    if path is None:
        return ()
    parts, end = [path], path.find("/")
    while end >= 0:
        parts.append(path[: end + 1])
        end = path.find("/", end + 1)
    return parts


KEYS: dict[str, Key] = {
    "remote": Key(
        lambda match: _address_places(match.remote),
        lambda found, others: Line(lambda has: _on_line(has.remote), found, others),
    ),
    "local": Key(
        lambda match: _address_places(match.local),
        lambda found, others: Line(lambda has: _on_line(has.local), found, others),
    ),
    "remote_name": Key(
        lambda match: _glob_places(match.remote_name, _name_place),
        lambda found, others: Table(_name_values, found, others),
    ),
    "program": Key(
        lambda match: _glob_places(match.program, _path_place),
        lambda found, others: Table(_path_values, found, others),
    ),
    "unit": Key(
        lambda match: _glob_places(match.unit, _whole),
        lambda found, others: Table(lambda has: (has.unit,), found, others),
    ),
    "user": Key(
        lambda match: _id_places(match.user),
        lambda found, others: Table(lambda has: (has.user, has.uid), found, others),
    ),
    "group": Key(
        lambda match: _id_places(match.group), lambda found, others: Table(lambda has: has.groups, found, others)
    ),
    "remote_port": Key(
        lambda match: _number_places(match.remote_port),
        lambda found, others: Line(lambda has: has.remote_port, found, others),
    ),
    "local_port": Key(
        lambda match: _number_places(match.local_port),
        lambda found, others: Line(lambda has: has.local_port, found, others),
    ),
    "direction": Key(
        lambda match: (match.direction,), lambda found, others: Table(lambda has: (has.direction,), found, others)
    ),
}
"""For each key of `Match` that can tell rules apart; the time is looked at last, in the leaves."""


# --- making the tree --------------------------------------------------------------------------------------------------


class Division(NamedTuple):
    """The rules of a node by one key; `cost` is how many of them a look-up has yet to go through."""

    cost: float
    key: str
    found: dict[Any, list[Entry]]
    others: list[Entry]


class Classifier:
    """Find the first rule that fits a connection.

    Args:
        rules: in the order in which they are tried.
    """

    __slots__ = ("_root", "_rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._root = _grow([Entry(rank, rule.match, rule.match.keys) for rank, rule in enumerate(rules)], tuple(KEYS))

    def first(self, has: Subject) -> Rule | None:
        """Return the first rule that fits, or None."""
        rank = self._root.first(has, NEVER)
        return None if rank == NEVER else self._rules[rank]

    def every(self, has: Subject) -> Iterator[Rule]:
        """Return all rules that fit, each once, in their order."""
        yield from (self._rules[rank] for rank in sorted(set(self._root.every(has))))

    def __reduce__(self) -> tuple[type["Classifier"], tuple[Sequence[Rule]]]:
        """Travel as the rules, and be made again where they arrive."""
        return Classifier, (self._rules,)


def _grow(entries: list[Entry], keys: tuple[str, ...]) -> Node:
    if len(entries) <= LEAF:
        return Leaf(entries)
    divisions = [division for key in keys if (division := _divide(entries, key)) is not None]
    best = min(divisions, key=lambda division: division.cost, default=None)
    if best is None:
        return Leaf(entries)
    left = tuple(key for key in keys if key != best.key)
    found = {place: _grow(held, left) for place, held in best.found.items()}
    return KEYS[best.key].node(found, _grow(best.others, left))


@cache
def _without(keys: tuple[str, ...], key: str) -> tuple[str, ...]:
    return tuple(one for one in keys if one != key)


def _divide(entries: list[Entry], key: str) -> Division | None:
    """Hang the rules at their places; None where that would tell too few of them apart."""
    found: dict[Any, list[Entry]] = defaultdict(list)
    others = []
    places_of = KEYS[key].places
    for entry in entries:
        places = places_of(entry.match) if key in entry.keys else None
        if places is None:
            others.append(entry)
            continue
        settled = Entry(entry.rank, entry.match, _without(entry.keys, key))
        for place in places:
            found[place].append(settled)
    hung = sum(map(len, found.values()))
    if not hung:
        return None
    cost = len(others) + sum(len(held) ** 2 for held in found.values()) / hung
    return Division(cost, key, found, others) if cost < len(entries) - 1 else None

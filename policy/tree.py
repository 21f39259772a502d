"""The nodes of the tree that finds rules; policy/classify.py grows it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple, Protocol

from policy.intervals import Block, IntervalMap
from policy.match import CONDITIONS, Subject
from policy.model import Match

NEVER = 1 << 62  # after every rule


class Entry(NamedTuple):
    """A rule on its way down the tree: its place in the order, its match, and the keys not settled yet."""

    rank: int
    match: Match
    keys: tuple[str, ...]


class Node(Protocol):
    """A part of the tree; `least` is the rank of its first rule."""

    least: int

    def first(self, has: Subject, best: int) -> int:
        """Return the rank of the first rule that fits, if it is below `best`; else `best`."""

    def every(self, has: Subject) -> Iterator[int]:
        """Return the ranks of all rules that fit; one may come twice."""


@cache
def _conditions(keys: tuple[str, ...]) -> tuple[Callable[[Match, Subject], bool], ...]:
    return tuple(CONDITIONS[key].holds for key in keys)


class Leaf:
    """A few rules, tried in order."""

    __slots__ = ("entries", "least")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.least = entries[0].rank if entries else NEVER
        self.entries = tuple((entry.rank, entry.match, _conditions(entry.keys)) for entry in entries)

    def first(self, has: Subject, best: int) -> int:
        """Try them."""
        for rank, match, conditions in self.entries:
            if rank >= best:
                break
            for holds in conditions:
                if not holds(match, has):
                    break
            else:
                return rank
        return best

    def every(self, has: Subject) -> Iterator[int]:
        """Try them."""
        for rank, match, conditions in self.entries:
            if all(holds(match, has) for holds in conditions):
                yield rank


class Table:
    """Rules by values that a table finds: names, numbers of users, how a path begins, how a host's name ends."""

    __slots__ = ("found", "least", "others", "values")

    def __init__(
        self, values: Callable[[Subject], Iterable[object]], found: Mapping[object, Node], others: Node
    ) -> None:
        self.values, self.found, self.others = values, dict(found), others
        self.least = min(others.least, *(node.least for node in found.values()))

    def first(self, has: Subject, best: int) -> int:
        """Look at the rules of each of the connection's values, then at the others."""
        for value in self.values(has):
            node = self.found.get(value)
            if node is not None and node.least < best:
                best = node.first(has, best)
        return self.others.first(has, best) if self.others.least < best else best

    def every(self, has: Subject) -> Iterator[int]:
        """Look everywhere the connection's values lead."""
        for value in self.values(has):
            if (node := self.found.get(value)) is not None:
                yield from node.every(has)
        yield from self.others.every(has)


class Line:
    """Rules by ranges of numbers."""

    __slots__ = ("least", "number", "others", "ranges")

    def __init__(self, number: Callable[[Subject], int | None], found: Mapping[Block, Node], others: Node) -> None:
        self.number, self.others = number, others
        self.ranges: IntervalMap[Node] = IntervalMap(found)
        self.least = min(others.least, *(node.least for node in found.values()))

    def first(self, has: Subject, best: int) -> int:
        """Look at the rules of every range that holds the number, then at the others."""
        number = self.number(has)
        if number is not None:
            for node in self.ranges[number]:
                if node.least < best:
                    best = node.first(has, best)
        return self.others.first(has, best) if self.others.least < best else best

    def every(self, has: Subject) -> Iterator[int]:
        """Look everywhere the number leads."""
        number = self.number(has)
        for node in () if number is None else self.ranges[number]:
            yield from node.every(has)
        yield from self.others.every(has)

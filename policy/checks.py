"""Reading a table by a table: key -> check.

A check takes a `Node` and returns the value the model holds. It raises PolicyError for what is wrong with the node as a
whole; `Node.read` adds file, line, rule and key, notes it and goes on, so that one look finds every mistake. The keys
that were wrong are left out of the result and so have their defaults, which nobody sees: such a file is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ktls.errors import PolicyError
from policy.positions import Place, Positions
from policy.problems import PROBLEMS_MAX, Problems, quote, refuse

LIST_MAX = 1024  # elements; a longer list of addresses wants prefixes
TEXT_MAX = 4096  # characters; nothing in the language is longer than a path (include/uapi/linux/limits.h)
NAME_MAX = 100  # characters of the name of a rule, action or keyring, which logs repeat

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the file, with its place.

    Args:
        value: as tomllib gave it.
        place: in the file.
        where: for messages, the rule or table, as '[rule "web"]'.
        depth: how many parts of `place` make up `where`; the rest is the key.
        positions: of the file.
        problems: of the file.
    """

    value: object
    place: Place
    where: str
    depth: int
    positions: Positions
    problems: Problems

    def problem(self, what: str, *inside: str | int) -> None:
        """Note what is wrong with this value, or with one inside it."""
        place = (*self.place, *inside)
        key = ".".join(str(part) for part in place[self.depth :] if isinstance(part, str))
        self.problems.add(self.positions.line(place), self.where, key, what)

    def child(self, *inside: str | int, value: object) -> "Node":
        """Return the node of a value inside."""
        return Node(value, (*self.place, *inside), self.where, self.depth, self.positions, self.problems)

    def called(self, where: str) -> "Node":
        """Return the same node, as one that messages call by this name."""
        return Node(self.value, self.place, where, len(self.place), self.positions, self.problems)

    def table(self) -> dict[str, object]:
        """Return the value, which must be a table.

        Raises:
            PolicyError: it is none.
        """
        if not isinstance(self.value, dict):
            refuse(self.value, "is not a table")
        return self.value

    def read(self, checks: "Mapping[str, Check]", required: tuple[str, ...] = ()) -> dict[str, object]:
        """Read this table.

        Args:
            checks: the keys there may be.
            required: those there must be.

        Returns:
            The values of the keys that are there and right.

        Raises:
            PolicyError: this is no table.
        """
        given = self.table()
        values: dict[str, object] = {}
        for key, value in given.items():
            child = self.child(key, value=value)
            if key not in checks:
                many = len(self.problems.found) > PROBLEMS_MAX  # nobody reads what was meant by each of a million
                child.problem("unknown key" if many else unknown(key, checks))
                continue
            try:
                values[key] = checks[key](child)
            except PolicyError as error:
                child.problem(error.message)
        for key in required:
            if key not in given:
                self.problem("is missing", key)
        return values


Check = Callable[[Node], object]
"""What makes a value of a node, or raises PolicyError."""


def unknown(word: str, known: Mapping[str, object]) -> str:
    """Say that a word is not known, and which was meant.

    >>> unknown("prioritty", {"priority": 1, "name": 2})
    'unknown key; did you mean "priority"?'
    """
    near = similar(word, known)
    return f"unknown key; did you mean {quote(near)}?" if near else f"unknown key; permitted: {', '.join(known)}"


def similar(word: str, known: Mapping[str, object]) -> str | None:
    """Return the known word that looks most like this one, if any does."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where there is a mistake

    return next(iter(get_close_matches(word[:NAME_MAX].lower(), known, 1)), None)


# --- plain values ----------------------------------------------------------------------------------------------------


def text(node: Node) -> str:
    """Check for a text that is not empty."""
    value = node.value
    if not isinstance(value, str):
        refuse(value, 'is not a text in quotes, as "..."')
    if not 0 < len(value) <= TEXT_MAX or "\0" in value:
        refuse(value, f"is not a text of 1 to {TEXT_MAX} characters")
    return value


def name(node: Node) -> str:
    """Check for a name that can be shown and logged."""
    value = text(node)
    if len(value) > NAME_MAX or not value.isprintable() or value != value.strip():
        refuse(value, f"is not a name: 1 to {NAME_MAX} printable characters, no space at either end")
    return value


def flag(node: Node) -> bool:
    """Check for true or false."""
    if not isinstance(node.value, bool):
        refuse(node.value, "is not true or false, without quotes")
    return node.value


def choice(*permitted: str) -> Callable[[Node], str]:
    """Make a check for one of these words."""

    def check(node: Node) -> str:
        if not isinstance(node.value, str) or node.value not in permitted:
            refuse(node.value, f"is not one of {', '.join(quote(word) for word in permitted)}")
        return node.value

    return check


def integer(lowest: int, highest: int, unit: str = "") -> Callable[[Node], int]:
    """Make a check for a whole number; the unit is for the message."""

    def check(node: Node) -> int:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            refuse(value, f"is not a whole number{unit and ' of '}{unit} from {lowest} to {highest}")
        return value

    return check


def seconds(lowest: float, highest: float) -> Callable[[Node], float]:
    """Make a check for a number of seconds."""

    def check(node: Node) -> float:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            refuse(value, f"is not a number of seconds from {lowest:g} to {highest:g}")
        return float(value)

    return check


# --- made of others --------------------------------------------------------------------------------------------------


def of_text(parse: Callable[[str], T]) -> Callable[[Node], T]:
    """Make a check of a function that reads a text."""
    return lambda node: parse(text(node))


def each(check: Callable[[Node], T], *, least: int = 0) -> Callable[[Node], tuple[T, ...]]:
    """Make a check for a list whose elements this one checks; no two may be the same.

    Args:
        check: of an element.
        least: how many there must be.
    """

    def check_all(node: Node) -> tuple[T, ...]:
        if not isinstance(node.value, list):
            refuse(node.value, 'is not a list, as ["..."]')
        if len(node.value) > LIST_MAX:
            raise PolicyError(f"{len(node.value)} elements are too many: at most {LIST_MAX}")
        if len(node.value) < least:
            raise PolicyError("an empty list says nothing: give at least one, or leave the key out")
        found: list[T] = []
        for number, value in enumerate(node.value):
            child = node.child(number, value=value)
            try:
                element = check(child)
            except PolicyError as error:
                child.problem(error.message)
                continue
            if element in found:
                child.problem(f"{quote(value)} is there twice")
            found.append(element)
        return tuple(found)

    return check_all

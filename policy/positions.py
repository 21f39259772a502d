"""Where in a TOML text each table, key and list element stands, since tomllib does not tell.

It reads the shape of the text only: headers, keys, and enough of values to find their ends (TOML 1.0). tomllib checks
what it reads, so where it meets something it does not know it stops, and what comes later has no line of its own. It
never raises for what is in a text.

A place is a tuple: ("action", "modern", "ciphers"), ("rule", 0, "remote", 2).
"""

import re
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass

Place = tuple[str | int, ...]

DEPTH_MAX = 50  # of lists and tables in each other; the language needs 4

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")  # what may stand between the elements of a list, and between lines
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\s,\[\]{}#\"']+(?: [0-9:.+Z-]+)?")  # number, boolean, or date with a space before the time


@dataclass(frozen=True, slots=True)
class Header:
    """One [table] or [[table]] line.

    Args:
        place: of the table that begins; of an array of tables it has the number.
        line: of the header, from 1.
        after: the line on which what is before it ends, 0 for none: between the two are blank lines and comments.
    """

    place: Place
    line: int
    after: int


@dataclass(frozen=True, slots=True)
class Positions:
    """The index.

    Args:
        lines: place -> line, from 1, where it is first written.
        duplicates: (place, first line, later line) of tables and keys that are there twice.
        headers: in the order of the text.
    """

    lines: dict[Place, int]
    duplicates: tuple[tuple[Place, int, int], ...]
    headers: tuple[Header, ...] = ()

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest thing around it that has one; 1 for the whole file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def index(text: str) -> Positions:
    """Index a TOML text.

    >>> index("[a]\\nb = [\\n 1,\\n 2]\\n").line(("a", "b", 1))
    4
    """
    scanner = _Scanner(text)
    with suppress(_Unknown):
        scanner.document()
    return Positions(scanner.lines, tuple(scanner.duplicates), tuple(scanner.headers))


class _Unknown(Exception):
    """The text is not what TOML has here."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.lines: dict[Place, int] = {}
        self.duplicates: list[tuple[Place, int, int]] = []
        self.headers: list[Header] = []
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._counts: dict[Place, int] = {}  # arrays of tables: how many tables so far
        self._tables: set[Place] = set()  # those that had a header

    def document(self) -> None:
        table: Place = ()
        ended = 0  # the line on which what is before the gap ends
        self._skip(_GAP)
        while self.at < len(self.text):
            if self._peek("["):
                line = self._line(self.at)
                table = self._header()
                self.headers.append(Header(table, line, ended))
            else:
                self._pair(table, 0)
            ended = self._line(self.at - 1)
            self._skip(_GAP)

    def _header(self) -> Place:
        start = self.at
        several = self._peek("[[")
        self.at += 2 if several else 1
        keys = self._keys()
        self._expect("]]" if several else "]")
        place: Place = ()
        for key in keys[:-1]:
            place = self._latest((*place, key))
        place = (*place, keys[-1])
        if several:
            count = self._counts[place] = self._counts.get(place, 0) + 1
            self._note(place, start)
            place = (*place, count - 1)
        elif place in self._tables or place in self._counts:
            self.duplicates.append((place, self.lines[place], self._line(start)))
        self._tables.add(place)
        self._note(place, start)
        return place

    def _latest(self, place: Place) -> Place:
        return (*place, self._counts[place] - 1) if place in self._counts else place

    def _pair(self, table: Place, depth: int) -> None:
        start = self.at
        keys = self._keys()
        self._expect("=")
        self._skip(_BLANK)
        place = table
        for key in keys[:-1]:
            place = (*place, key)
            self._note(place, start)
        place = (*place, keys[-1])
        if place in self.lines:
            self.duplicates.append((place, self.lines[place], self._line(start)))
        self._note(place, start)
        self._value(place, depth)

    def _keys(self) -> list[str]:
        keys = [self._key()]
        while self._peek("."):
            self.at += 1
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        self._skip(_BLANK)
        if key := self._skip(_BARE_KEY):
            self._skip(_BLANK)
            return key
        if not self._peek('"') and not self._peek("'"):
            raise _Unknown("not TOML")
        import tomllib  # noqa: PLC0415 - hardly any key has quotes

        quoted = self._skip(_STRING)
        self._skip(_BLANK)
        try:
            return str(tomllib.loads(f"key = {quoted}")["key"])
        except ValueError:
            raise _Unknown("not TOML") from None

    def _value(self, place: Place, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise _Unknown("not TOML")
        if self._peek("["):
            self._list(place, depth + 1)
        elif self._peek("{"):
            self._inline_table(place, depth + 1)
        elif not self._skip(_STRING) and not self._skip(_PLAIN):
            raise _Unknown("not TOML")

    def _list(self, place: Place, depth: int) -> None:
        self.at += 1
        number = 0
        self._skip(_GAP)
        while not self._peek("]"):
            self._note((*place, number), self.at)
            self._value((*place, number), depth)
            number += 1
            self._skip(_GAP)
            if not self._peek("]"):
                self._expect(",")
                self._skip(_GAP)
        self._expect("]")

    def _inline_table(self, place: Place, depth: int) -> None:
        self.at += 1
        self._skip(_BLANK)
        while not self._peek("}"):
            self._pair(place, depth)
            self._skip(_BLANK)
            if not self._peek("}"):
                self._expect(",")
                self._skip(_BLANK)
        self._expect("}")

    def _skip(self, what: re.Pattern[str]) -> str:
        found = what.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def _peek(self, what: str) -> bool:
        return self.text.startswith(what, self.at)

    def _expect(self, what: str) -> None:
        if not self._peek(what):
            raise _Unknown("not TOML")
        self.at += len(what)

    def _note(self, place: Place, at: int) -> None:
        self.lines.setdefault(place, self._line(at))

    def _line(self, at: int) -> int:
        return bisect_left(self._breaks, at) + 1

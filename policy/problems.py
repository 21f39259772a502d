"""Everything wrong with a policy, collected with its place, and told at once.

What reads a value raises PolicyError for it alone; `Problems` gathers those, and raises one PolicyError for the file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from ktls.errors import PolicyError

PROBLEMS_MAX = 1000  # lines of one message; a file that is not a policy at all has no end of them
QUOTED_MAX = 60  # characters of a wrong value shown in a message


def quote(value: object, most: int = QUOTED_MAX) -> str:
    r"""Show a wrong value as it could stand in the file, on one line and of a text not more than `most` characters.

    >>> print(quote("a\nb"), quote(True), quote(["x"]))
    "a\nb" true a list
    """
    match value:
        case bool():
            return str(value).lower()
        case str():
            text = value if len(value) <= most else value[: most - 3] + "..."
            if text.isprintable() and '"' not in text and "\\" not in text:
                return f'"{text}"'
            shown = (char if char.isprintable() and char not in '"\\' else _escape(char) for char in text)
            return f'"{"".join(shown)}"'
        case dict():
            return "a table"
        case list():
            return "a list"
        case int() if value.bit_length() > 64:
            return "a huge number"
    return str(value)


def _escape(char: str) -> str:
    return f"\\{char}" if char in '"\\' else char.encode("unicode_escape").decode("ascii")


def refuse(value: object, what: str) -> NoReturn:
    """Raise for one wrong value.

    Args:
        value: shown in front.
        what: is wrong with it, and what is permitted.

    Raises:
        PolicyError: always.
    """
    raise PolicyError(f"{quote(value)} {what}")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One line of the message.

    Args:
        line: in the file, from 1; 0 where there is none.
        where: the rule or table, as '[rule "web"]'; may be empty.
        key: in it; may be empty.
        what: is wrong, and what is permitted.
    """

    line: int
    where: str
    key: str
    what: str

    def text(self, file: str) -> str:
        """Write it as `file:line: [rule "name"] key: what`.

        >>> Problem(7, '[rule "web"]', "priority", "0 is out of range").text("site.toml")
        'site.toml:7: [rule "web"] priority: 0 is out of range'
        """
        place = f"{file}:{self.line}" if self.line else file
        inside = f"{self.where} {self.key}".strip()
        return ": ".join(part for part in (place, inside, self.what) if part)


@dataclass(frozen=True, slots=True)
class Problems:
    """The problems of one file so far."""

    file: str
    found: list[Problem] = field(default_factory=list)

    def add(self, line: int, where: str, key: str, what: str) -> None:
        """Note a problem; see `Problem`."""
        self.found.append(Problem(line, where, key, what))

    @contextmanager
    def noting(self, key: str) -> Iterator[None]:
        """Note a PolicyError raised inside as a problem of this key, and go on."""
        try:
            yield
        except PolicyError as error:
            self.add(0, "", key, error.message)

    def raise_any(self) -> None:
        """Tell all of them, in the order of the file.

        Raises:
            PolicyError: there is at least one.
        """
        if not self.found:
            return
        lines = [problem.text(self.file) for problem in sorted(set(self.found))]
        if len(lines) > PROBLEMS_MAX:
            lines[PROBLEMS_MAX:] = [f"{self.file}: and {len(lines) - PROBLEMS_MAX} more"]
        raise PolicyError("\n".join(lines))

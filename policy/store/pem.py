"""Keys stay where they are: nothing that looks like PEM gets into the database, whichever way it is written."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

from policy.positions import Place, index
from policy.problems import Problems

MARK = "-----BEGIN"  # RFC 7468 section 2; the schema refuses the same
_WHAT = "holds PEM, and keys and certificates never go into the database: write the path of the file that has it"


def refuse(text: str, file: Path) -> None:
    """Look for PEM in a policy's text: in comments, in keys, and in strings however they are escaped.

    Args:
        text: of the policy. What is no TOML is looked through as text only.
        file: for messages.

    Raises:
        PolicyError: there is some; one line for each place.
    """
    problems = Problems(str(file))
    for number, line in enumerate(text.split("\n"), 1):
        if MARK in line:
            problems.add(number, "", "", _WHAT)
    if not problems.found and "\\" in text:  # an escape may hide one
        _refuse_escaped(text, problems)
    problems.raise_any()


def _refuse_escaped(text: str, problems: Problems) -> None:
    try:
        data = tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError):
        return  # and policy.load says what it is
    hidden = [place for place, value in _texts(data, ()) if MARK in value]
    positions = index(text.replace("\r\n", "\n")) if hidden else None
    for place in hidden:
        problems.add(positions.line(place) if positions else 0, "", "", _WHAT)


def _texts(value: object, place: Place) -> Iterator[tuple[Place, str]]:
    match value:
        case str():
            yield place, value
        case dict():
            for key, inside in value.items():
                yield (*place, key), key
                yield from _texts(inside, (*place, key))
        case list():
            for number, inside in enumerate(value):
                yield from _texts(inside, (*place, number))

"""A TOML file as nodes with places: what every file of the policy language starts from."""

import errno
import os
import re
import stat
import tomllib
from pathlib import Path

from ktls.errors import PolicyError
from policy.checks import Node
from policy.positions import Positions, index
from policy.problems import Problems, quote

FILE_MAX = 64 << 20  # bytes; a hundred thousand rules need a third of it

_TOMLLIB_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def open_document(data: bytes, file: str) -> Node:
    """Make a node of a file's content.

    Args:
        data: the content.
        file: its name, for messages.

    Returns:
        The root; its `problems` gather what readers find, and are raised by the caller.

    Raises:
        PolicyError: it is not TOML.
    """
    problems = Problems(file)
    text = _decode(data, problems)
    positions = index(text)
    return Node(_parse(text, positions, problems), (), "", 0, positions, problems)


def read_file(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        PolicyError: it cannot be read, is no file or is too long.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PolicyError(f"{path}: is not a file")
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        why = "its symbolic links form a loop" if error.errno == errno.ELOOP else error.strerror
        raise PolicyError(f"{path}: cannot be read: {why}") from error
    except ValueError as error:
        raise PolicyError(f"{quote(str(path))}: cannot be read: no path has a null character") from error
    if len(data) > FILE_MAX:
        raise PolicyError(f"{path}: has more than {FILE_MAX} bytes, which no policy needs")
    return data


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a FIFO would wait for its writer


def _decode(data: bytes, problems: Problems) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = data[error.start]
        problems.add(data.count(b"\n", 0, error.start) + 1, "", "", f"byte 0x{wrong:02x} is not UTF-8, which TOML is")
        problems.raise_any()
        raise
    if text.startswith("\ufeff"):
        problems.add(1, "", "", "starts with a byte order mark: save it as UTF-8 without one")
        problems.raise_any()
    return text.replace("\r\n", "\n")


def _parse(text: str, positions: Positions, problems: Problems) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        problems.add(1, "", "", "its lists or tables are nested too deeply")
    except ValueError as error:  # TOMLDecodeError, and what int() says to a number with thousands of digits
        place = _TOMLLIB_PLACE.search(str(error))
        line = text.count("\n") + 1 if place is None or place[1] is None else int(place[1])
        twice = [found for found in positions.duplicates if found[2] == line]
        for name, first, later in positions.duplicates if twice else ():
            problems.add(later, "", ".".join(map(str, name)), f"is there twice; the first one is in line {first}")
        if not twice:
            problems.add(line, "", "", f"is not TOML: {_TOMLLIB_PLACE.sub('', str(error))}")
    problems.raise_any()
    return {}

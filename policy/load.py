"""From a policy file to a policy, or to one PolicyError with everything that is wrong with the file."""

import errno
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

from ktls.errors import PolicyError
from policy.actions import ReadAction, read_actions
from policy.checks import Check, Node, choice, integer
from policy.keyrings import read_keyrings
from policy.model import Keyring, Policy, Rule, Verdict
from policy.positions import Positions, index
from policy.problems import Problems, quote
from policy.rules import Names, read_rules
from policy.snapshot import build

FILE_MAX = 1 << 20  # bytes; a thousand rules need a fifth of it
VERSION = 1  # of the language

_TOMLLIB_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def load(path: Path) -> Policy:
    """Load a policy file.

    Args:
        path: of a TOML file in the language of docs/policy.md. Paths inside start from its directory.

    Returns:
        The policy, ready to decide.

    Raises:
        PolicyError: it cannot be read, or has mistakes: all of them, one on each line of the message.
    """
    return parse(_read(path), path)


def parse(data: bytes, path: Path) -> Policy:
    """Load a policy that has been read already.

    Args:
        data: the content of the file.
        path: for messages, and for the directory that paths inside start from.

    Raises:
        PolicyError: as `load`.
    """
    problems = Problems(str(path))
    text = _decode(data, problems)
    positions = index(text)
    root = Node(_parse(text, positions, problems), (), "", 0, positions, problems)
    policy = _compile(root, path.absolute().parent)
    problems.raise_any()
    return policy


def _read(path: Path) -> bytes:
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


def _compile(root: Node, base: Path) -> Policy:
    keyrings: dict[str, Keyring] = {}
    actions: dict[str, ReadAction] = {}
    rules: list[Rule] = []
    # In this order whatever that of the file: each refers to those before it.
    checks: Mapping[str, Check] = {
        "version": integer(VERSION, VERSION),
        "default": choice(Verdict.CLEAR, Verdict.DENY),
        "keyring": lambda node: keyrings.update(read_keyrings(node, base)),
        "action": lambda node: actions.update(read_actions(node, keyrings, base)),
        "rule": lambda node: rules.extend(read_rules(node, Names(actions, keyrings, base))),
    }
    given = root.table()
    ordered = {key: given[key] for key in (*checks, *given) if key in given}
    values = root.child(value=ordered).read(checks, required=("version",))
    return build(rules, Verdict(str(values.get("default", Verdict.CLEAR))), root.problems.file)

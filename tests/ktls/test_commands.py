"""The commands that are not in a hurry."""

import enum
import json
import os
from dataclasses import dataclass

import pytest

from ktls import commands
from ktls.errors import UsageError


class Colour(enum.IntEnum):
    RED = 1


@dataclass(frozen=True)
class Paint:
    colour: Colour
    layers: tuple[int, ...]
    names: frozenset[str]
    price: float | None = None


def test_data_becomes_what_json_can_hold():
    plain = commands._plain({Colour.RED: Paint(Colour.RED, (1, 2), frozenset({"b", "a"})), "other": b"x"})
    assert json.loads(json.dumps(plain)) == {
        "RED": {"colour": "RED", "layers": [1, 2], "names": ["a", "b"], "price": None},
        "other": "b'x'",
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "yes"),
        (False, "no"),
        (None, "-"),
        ("", "-"),
        ([], "none"),
        ({}, "none"),
        (["a", True], "a, yes"),
        ({"TLSv1.3": ["a", "b"], "TLSv1.2": []}, "TLSv1.3: a, b\nTLSv1.2: none"),
        (3, "3"),
    ],
)
def test_data_is_shown_in_words(value, words):
    assert commands._words(value) == words


def test_probe_speaks_to_programs(capsys):
    assert commands.main(["probe", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out)["kernel_tls"], bool)


def test_probe_speaks_to_people(capsys):
    assert commands.main(["probe"]) == 0
    assert os.uname().release in capsys.readouterr().out


def test_agent_refuses_a_policy_that_is_not_there(tmp_path, capsys):
    status = commands.main(["agent", "--socket", str(tmp_path / "s"), "--policy", str(tmp_path / "none.toml")])
    assert status == 2
    assert "none.toml" in capsys.readouterr().err


def test_agent_needs_to_be_told_where_and_what(capsys):
    assert commands.main(["agent"]) == 2
    assert "--socket" in capsys.readouterr().err


def test_agents_directory_is_made_private(tmp_path):
    commands._private_directory(tmp_path / "run" / "ktls")
    assert (tmp_path / "run" / "ktls").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o720])
def test_agents_directory_that_others_may_write_is_refused(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(UsageError, match="can be written by others"):
        commands._private_directory(tmp_path)

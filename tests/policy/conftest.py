"""Policies from text: loaded, or the problems they have."""

from pathlib import Path

import pytest

from ktls.errors import PolicyError
from policy.load import load

FILES = ("web.pem", "web.key", "shop.pem", "shop.key", "ca.pem", "ca.crl", "web.p12", "password")
"""What keyrings in tests may name. Not what these names promise: loading looks only whether they can be read."""

HEAD = "version = 1\n"
TLS_RULE = '[[rule]]\nname = "out"\ndirection = "outbound"\nverdict = "tls"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory for policy.toml with the files of FILES in it."""
    for name in FILES:
        (tmp_path / name).write_text("something")
    return tmp_path


@pytest.fixture
def load_text(folder: Path):
    """Load a policy from a text."""

    def load_it(text: str, *, head: str = HEAD):
        path = folder / "policy.toml"
        path.write_text(head + text)
        return load(path)

    return load_it


@pytest.fixture
def problems(load_text, folder: Path):
    """List the problems of a text, as "line: where key: what". version = 1 is line 1, so the text starts at 2."""

    def find(text: str, *, head: str = HEAD) -> list[str]:
        try:
            load_text(text, head=head)
        except PolicyError as error:
            place = f"{folder}/policy.toml:"
            lines = error.message.split("\n")
            assert all(line.startswith(place) for line in lines), lines
            return [line.removeprefix(place) for line in lines]
        return []

    return find

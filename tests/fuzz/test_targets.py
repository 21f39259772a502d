"""The parsers and drivers that face the outside, with any bytes as a script of what goes wrong (tests/fuzz/targets.py).

`make fuzz` goes on from here, guided by coverage; what it finds is put into tests/fuzz/corpus and tried here for good.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = {"handshake": 250, "relay": 150}
FOUND = [(name, path) for name in TARGETS for path in sorted((CORPUS / name).glob("*"))]


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_ends_as_it_should(name: str):
    @settings(derandomize=True, deadline=None, max_examples=EXAMPLES.get(name, 1000))
    @given(st.binary(max_size=300))
    def any_bytes(data: bytes) -> None:
        TARGETS[name](data)

    any_bytes()


@pytest.mark.parametrize(("name", "path"), FOUND, ids=[f"{name}-{path.name}" for name, path in FOUND])
def test_what_was_found_once_is_not_found_again(name: str, path: Path):
    TARGETS[name](path.read_bytes())

"""The shim's parsing against a kernel made of bytes (tests/fuzz/shim), with what `make fuzz` has found in it so far.

The fuzzers need clang; what they found is replayed with any compiler that has AddressSanitizer.
"""

import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CORPUS = {path.name.removeprefix("shim-"): path for path in sorted((FOLDER / "corpus").glob("shim-*"))}


@pytest.fixture(scope="module")
def replays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program for each target that takes files of its corpus."""
    folder = tmp_path_factory.mktemp("replays")
    subprocess.run(
        ["make", "--no-print-directory", "-s", "-C", FOLDER / "shim", "replays", f"OUT={folder}"], check=True
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_what_was_found_once_is_not_found_again(replays: Path, name: str):
    files = [path for path in CORPUS[name].iterdir() if path.is_file()]
    done = subprocess.run([replays / f"replay-{name}", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(files)} replayed\n"

"""Rules about the repository that no other tool checks."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ktls import run_options

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ktls", "policy", "offload")
LINES_MAX = 300

# Modules without a test file of their own name. This list can only get shorter. Those of the agent are held by its
# tests as a process (tests/agent/test_connection.py, test_server.py), the pump by tests/ktls/test_relay.py.
UNTESTED = {
    "ktls/agent/asked.py",
    "ktls/agent/handshaking.py",
    "ktls/agent/installing.py",
    "ktls/agent/main.py",
    "ktls/agent/wire.py",
    "ktls/pump.py",
}

# Longer modules, with the lines they have: they can only get shorter too.
LONG = {"ktls/pump.py": 373}

# Backwards, so that this file does not hold what it looks for.
FOREIGN = tuple(word[::-1] for word in ("/krow/", "ecalpkrow", "OEC", "ngised/derahs", "dm.stcaf", "edualc", "/toor/"))


def files() -> list[Path]:
    """List the files under version control, or all but what is built where there is none."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]
    pytest.skip("not a git checkout")


def modules() -> list[Path]:
    """List the modules of the packages that hold code."""
    return [
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]


def has_test(module: Path) -> bool:
    """Whether tests/<package>/test_<module>.py exists; ktls/agent/x.py may also be in tests/agent."""
    name = f"test_{module.name}"
    folders = (ROOT / "tests" / module.parent, ROOT / "tests" / module.parent.name)
    return any((folder / name).is_file() for folder in folders)


def test_every_module_has_a_test_file_of_its_name():
    missing = {str(module) for module in modules() if not has_test(module)}
    assert missing - UNTESTED == set()


def test_the_list_of_untested_modules_holds_only_such():
    missing = {str(module) for module in modules() if not has_test(module)}
    assert UNTESTED - missing == set(), "these have a test now, or are gone: take them off the list"


def test_modules_are_short():
    long = {str(module): lines for module in modules() if (lines := len(module.read_text().splitlines())) > LINES_MAX}
    assert {module for module, lines in long.items() if lines > LONG.get(module, 0)} == set()
    assert set(LONG) <= set(long), "these are short now: take them off the list"


def test_nothing_speaks_of_where_it_was_made():
    found = []
    for path in files():
        text = path.read_bytes().decode(errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FOREIGN if word in text]
    assert found == []


def test_ci_runs_the_test_command_of_the_readme_and_nothing_else():
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec make test"]
    assert "    make test " in (ROOT / "README.md").read_text()


def documents() -> list[Path]:
    """List what tells people what to type."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def test_documented_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in documents() for name in re.findall(r"(?:^    |`)make ([a-z-]+)", path.read_text(), re.M)}
    assert named
    assert named - targets == set()


def test_documented_commands_exist():
    from ktls.commands import group

    named = {name for path in documents() for name in re.findall(r"(?:^    |`)ktls ([a-z]+)", path.read_text(), re.M)}
    assert {"run", "agent", "probe"} <= named
    assert named - set(group.commands) == set()


def test_documented_examples_are_understood():
    text = (ROOT / "README.md").read_text() + run_options.HELP
    examples = re.findall(r"^ +(?:\w+=\S+ )?ktls run (.*-- .*)$", text, re.MULTILINE)
    assert len(examples) >= 4
    for example in examples:
        assert run_options.parse(example.split()).command


def test_documented_files_exist():
    text = "".join(path.read_text() for path in documents())
    named = set(re.findall(r"\b((?:docs|tools|ktls|tests)/[\w./-]+\w|[A-Z]+\.md)\b", text))
    examples = {"tests/ktls/test_records.py", "ktls/records.py"}
    assert {name for name in named - examples if not (ROOT / name).exists()} == set()


@pytest.mark.slow
def test_wheel_has_the_shim_and_fits_every_python(tmp_path):
    # From a copy: setuptools leaves a build folder behind, and takes what it finds there.
    source = tmp_path / "source"
    for path in files():
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*words, tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert re.fullmatch(r"ktls-[\d.]+-py3-none-(many)?linux\w+\.whl", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    assert "ktls/shim/libktls.so" in names
    assert "ktls/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "tools/")) or name.endswith((".c", ".o"))]

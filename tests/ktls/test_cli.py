"""The `ktls` command as people type it."""

import subprocess
import sys
from pathlib import Path

import pytest


def ktls(*arguments, **options):
    """Run `ktls` with these arguments."""
    words = [sys.executable, "-m", "ktls", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, **options)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_introduces_the_commands(arguments):
    result = ktls(*arguments)
    assert result.returncode == 0
    for command in ("run", "agent", "probe", "version"):
        assert f"\n  {command}" in result.stdout


def test_no_command_shows_the_help_and_is_an_error():
    result = ktls()
    assert result.returncode == 2
    assert "Usage: ktls" in result.stdout + result.stderr


def test_unknown_command_is_an_error():
    result = ktls("rnu")
    assert result.returncode == 2
    assert "No such command 'rnu'" in result.stderr


def test_run_has_a_parser_of_its_own_however_it_is_reached():
    assert ktls("run", "--nosuch").stderr.startswith("ktls: no such option: --nosuch")
    assert ktls("run", "--help").stdout.startswith("Usage: ktls run [OPTIONS]")


def test_version_names_what_a_bug_report_needs():
    words = ktls("version").stdout
    assert words.startswith("ktls ")
    assert "OpenSSL" in words
    assert "Linux" in words


def test_run_imports_neither_click_nor_what_only_the_agent_needs():
    script = (
        "import sys; from ktls.cli import main; sys.argv = ['ktls', 'run', '--help']; main(); "
        "heavy = {'click', 'rich', 'OpenSSL', 'cryptography', 'service_identity', 'asyncio', 'policy', 'offload'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"


def test_script_is_installed_beside_python():
    script = Path(sys.executable).with_name("ktls")
    assert subprocess.run([script, "version"], capture_output=True, check=False).returncode == 0

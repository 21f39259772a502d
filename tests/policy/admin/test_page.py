"""docs/policy-tools.md shows what really comes out."""

import re
import shlex
from pathlib import Path

import click.testing
import pytest

from ktls.commands import group

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "policy-tools.md").read_text()
FILES = re.findall(r"^```toml\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RECORDS = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```console\n\$ ktls (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES:
        (tmp_path / name).write_text(f"# {name}\n{text}")
    (tmp_path / "report.jsonl").write_text("".join(RECORDS))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command.split()[1] for command, _ in COMMANDS])
def test_a_command_of_the_page_says_what_the_page_shows(command, shown):
    result = click.testing.CliRunner().invoke(group, shlex.split(command))
    assert result.stderr + result.stdout == shown


def test_the_page_has_them_all():
    assert {command.split()[1] for command, _ in COMMANDS} == {
        *("check", "list", "shadow", "explain", "test", "replay", "suggest")
    }

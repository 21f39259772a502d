"""docs/keyrings.md shows what really comes out, but for days, owners and directories."""

import re
import shlex
from pathlib import Path

import click.testing
import pytest

from ktls.commands import group
from tests.ktls.certificates import make, write_chain, write_key

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "keyrings.md").read_text()
((NAME, POLICY),) = re.findall(r"^```toml\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```console\n\$ ktls (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The directory /etc/ktls of the page."""
    root = make("root")
    write_chain(tmp_path / "ca.pem", root)
    for name, until in (("web", -9.5), ("shop", 11.5)):
        leaf = make(name, root, names=[f"{name}.example"], days=(-90, until))
        write_chain(tmp_path / f"{name}.pem", leaf)
        write_key(tmp_path / f"{name}.key", leaf)
    (tmp_path / "web.key").chmod(0o640)
    (tmp_path / NAME).write_text(f"# {NAME}\n{POLICY}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plain(text: str, folder: Path | None = None) -> list[str]:
    text = text.replace(f"{folder}/", "/etc/ktls/")
    text = re.sub(r"\d{4}-\d\d-\d\d", "DATE", text)
    text = re.sub(r"\S+:\S+ (0[0-7]{3})", r"OWNER \1", text)
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command.split()[1] for command, _ in COMMANDS])
def test_a_command_of_the_page_says_what_the_page_shows(folder, command, shown):
    result = click.testing.CliRunner().invoke(group, shlex.split(command))
    assert plain(result.stderr + result.stdout, folder) == plain(shown)


def test_the_page_has_them_all():
    assert {command.split()[1] for command, _ in COMMANDS} == {"list", "check"}

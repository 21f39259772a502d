"""`ktls policy` as a command line."""

import json
from pathlib import Path

import click.testing
import pytest

from ktls.commands import group
from ktls.errors import KtlsError

POLICY = """\
version = 1
default = "deny"
[[rule]]
name = "postgres out"
priority = 10
direction = "outbound"
remote = ["10.0.0.0/8"]
remote_port = ["5432"]
user = ["app"]
verdict = "tls"
action = { min_version = "1.3" }
[[rule]]
name = "web"
remote_port = ["443"]
verdict = "clear"
[[rule]]
name = "web too"
remote_port = ["443"]
remote = ["10.0.0.0/8"]
verdict = "clear"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(POLICY)
    return path


def command(name: str):
    """Call it with words for (exit status, standard output, standard error); --json output comes parsed."""

    def run(*words: object) -> tuple[int, object, str]:
        result = click.testing.CliRunner().invoke(group, [name, *map(str, words)])
        if isinstance(result.exception, KtlsError):
            return 2, result.stdout, result.exception.message
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout) if "--json" in words else result.stdout, result.stderr

    return run


@pytest.fixture
def ktls_policy():
    return command("policy")


@pytest.fixture
def ktls_keyring():
    return command("keyring")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ktls_policy) -> str:
    """A database of its own, ready for use, named by the environment as an administrator would."""
    path = str(tmp_path / "policy.db")
    monkeypatch.setenv("KTLS_POLICY_DATABASE", path)
    assert ktls_policy("init")[0] == 0
    return path

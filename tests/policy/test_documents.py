"""The policies people can start from, and those in the documentation, are ones that load."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policy.actions import CIPHERS
from policy.decide import decide
from policy.identities import Keyring
from policy.lint import warnings
from policy.load import load
from policy.model import Action, Facts, Policy, Rule

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "policies").glob("*.toml"))
DOCUMENT = (ROOT / "docs" / "policy.md").read_text()
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def loaded(text: str, folder: Path) -> Policy:
    """Load a policy in a directory that has the files it names."""
    for table in tomllib.loads(text).get("keyring", {}).values():
        for name in files(table):
            (folder / name).write_text("something")
    (folder / "policy.toml").write_text(text)
    return load(folder / "policy.toml")


def files(value: object) -> list[str]:
    match value:
        case dict():
            return [name for key, held in value.items() if key != "names" for name in files(held)]
        case list():
            return [name for held in value for name in files(held)]
    return [str(value)]


def verdict(policy: Policy, direction, remote, **more) -> tuple[str, str | None]:
    when = datetime(2026, 3, 4, tzinfo=UTC)
    decision = decide(policy, Facts(direction=direction, remote=remote, when=when, **more))
    return str(decision.verdict), decision.rule


def test_there_are_three_policies_to_start_from():
    assert [path.stem for path in SAMPLES] == ["mutual-tls", "postgresql-clients", "secure-port"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_policy_to_start_from_loads_without_a_warning(path, tmp_path):
    assert warnings(loaded(path.read_text(), tmp_path)) == ()


def test_secure_port(tmp_path):
    policy = loaded((ROOT / "policies/secure-port.toml").read_text(), tmp_path)
    here = ("10.0.0.1", 8443)
    assert verdict(policy, "inbound", ("192.0.2.1", 999), local=here) == ("tls", "8443 in")
    assert verdict(policy, "outbound", ("192.0.2.1", 8443)) == ("tls", "8443 out")
    assert verdict(policy, "outbound", ("192.0.2.1", 80), local=here) == ("clear", None)


def test_mutual_tls(tmp_path):
    policy = loaded((ROOT / "policies/mutual-tls.toml").read_text(), tmp_path)
    assert verdict(policy, "inbound", ("10.20.3.4", 999)) == ("tls", "services")
    assert verdict(policy, "outbound", ("2001:db8:20::1", 999)) == ("tls", "services")
    assert verdict(policy, "outbound", ("::1", 999)) == ("clear", "this machine")
    assert verdict(policy, "outbound", ("192.0.2.1", 53)) == ("clear", "DNS over TCP")
    assert verdict(policy, "inbound", ("192.0.2.1", 999)) == ("deny", None)


def test_postgresql_clients(tmp_path):
    policy = loaded((ROOT / "policies/postgresql-clients.toml").read_text(), tmp_path)
    assert verdict(policy, "outbound", ("192.0.2.1", 5432), remote_name="a.db.example") == ("tls", "databases")
    assert verdict(policy, "outbound", ("192.0.2.1", 5432)) == ("deny", "databases by address")
    assert verdict(policy, "outbound", ("198.51.100.1", 5432)) == ("clear", None)


def test_there_are_policies_in_the_document():
    assert len(BLOCKS) == 4
    assert DOCUMENT.count("```") == 2 * len(BLOCKS)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_policy_in_the_document_loads_without_a_warning(number, tmp_path):
    assert warnings(loaded(BLOCKS[number], tmp_path)) == ()


def table_keys(heading: str) -> set[str]:
    section = DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {key for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", cell)}


def test_every_key_is_in_the_document():
    from policy.model import Match

    assert table_keys("Actions") == set(Action.__slots__) - {"name", "users"}
    assert table_keys("Keyrings") == set(Keyring.__slots__) - {"name"}
    assert table_keys("Rules") == {*Rule.__slots__, *Match.__slots__} - {"match", "line", "keys"}


def test_the_document_names_the_words_of_each_choice():
    from typing import get_args, get_type_hints

    words = {word for hint in get_type_hints(Action).values() for word in get_args(hint) if isinstance(word, str)}
    assert {word for word in words if f'"{word}"' not in DOCUMENT} <= {"smtp", "ftp", "postgres", "ldap", "xmpp"}
    assert all(name.startswith("TLS_") for name in CIPHERS)

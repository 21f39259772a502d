"""The policies people can start from, and those in the documentation, are ones that load."""

import re
import tomllib
from pathlib import Path

import pytest

from policy.actions import CIPHERS
from policy.decide import decide
from policy.expectations import read_expectations, try_expectations
from policy.explain import explain
from policy.identities import Keyring
from policy.lint import warnings
from policy.load import load
from policy.model import Action, Policy, Rule

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted(path for path in (ROOT / "policies").glob("*.toml") if not path.name.endswith(".test.toml"))
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


def test_there_are_policies_to_start_from():
    assert [path.stem for path in SAMPLES] == [
        *("ftp", "groups-and-times", "mutual-tls", "postgresql-clients", "redis", "secure-port", "shared-port"),
        *("tls-only", "users-by-certificate"),
    ]


def test_each_of_them_has_a_live_test():
    text = (ROOT / "tests/e2e/test_sample_policies.py").read_text()
    assert [path.stem for path in SAMPLES if f"def test_{path.stem.replace('-', '_')}(" not in text] == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_policy_to_start_from_does_what_is_expected_of_it_and_explains_itself(path, tmp_path):
    """As `ktls policy test` and `ktls policy explain` do it; each rule is expected to decide something."""
    policy = loaded(path.read_text(), tmp_path)
    expectations = read_expectations(path.with_suffix(".test.toml"))
    assert [one.line() for one in try_expectations(policy, expectations) if not one.held] == []
    assert {rule.name for rule in policy.rules} <= {one.rule for one in expectations}
    for one in expectations:
        explanation = explain(policy, one.facts)
        assert explanation.decision == decide(policy, one.facts)
        assert explanation.decision.reason in explanation.lines()[-1]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_policy_to_start_from_loads_without_a_warning(path, tmp_path):
    assert warnings(loaded(path.read_text(), tmp_path)) == ()


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

"""Changes to what the database holds."""

import pytest

pytestmark = pytest.mark.usefixtures("database")
RULE = '# nobody telnets\n[[rule]]\nname = "no telnet"\nremote_port = ["23"]\nverdict = "deny"\n'


@pytest.fixture
def stored(ktls_policy, site, database):
    assert ktls_policy("import", site)[0] == 0


@pytest.fixture
def editor(monkeypatch, tmp_path):
    """Make $EDITOR a program that replaces one text by another."""

    def use(old: str, new: str) -> None:
        script = tmp_path / "editor"
        script.write_text(f"#!/bin/sh\nsed -i 's|{old}|{new}|' \"$1\"\n")
        script.chmod(0o755)
        monkeypatch.setenv("VISUAL", str(script))

    return use


@pytest.mark.usefixtures("stored")
def test_a_rule_is_added_where_it_is_told_and_removed_again(ktls_policy, tmp_path):
    before = ktls_policy("export", "head")[1]
    (tmp_path / "rule.toml").write_text(RULE)
    assert ktls_policy("add", tmp_path / "rule.toml", "--before", "web")[0] == 0
    text = ktls_policy("export", "head")[1]
    assert text.index("postgres out") < text.index("no telnet") < text.index('"web"')
    assert ktls_policy("remove", "rule", "no telnet")[0] == 0
    assert ktls_policy("export", "head")[1].split() == before.split()


@pytest.mark.usefixtures("stored")
def test_what_is_there_already_is_not_added(ktls_policy, tmp_path):
    (tmp_path / "rule.toml").write_text(RULE.replace("no telnet", "web"))
    status, _, message = ktls_policy("add", tmp_path / "rule.toml")
    assert (status, message) == (2, 'rule "web" is there already')


@pytest.mark.usefixtures("stored")
def test_edit_commits_what_the_editor_left(ktls_policy, editor):
    editor("5432", "5433")
    assert ktls_policy("edit", "-m", "another port")[0] == 0
    assert 'remote_port = ["5433"]' in ktls_policy("export", "head")[1]
    assert ktls_policy("edit")[1] == "nothing was changed\n"


@pytest.mark.usefixtures("stored")
def test_edit_keeps_a_text_with_a_mistake(ktls_policy, editor):
    editor("5432", "99999")
    status, _, message = ktls_policy("edit")
    assert (status, "99999" in message) == (2, True)
    assert len(ktls_policy("history", "--json")[1]) == 1


def test_there_must_be_something_to_change(ktls_policy):
    status, _, message = ktls_policy("remove", "rule", "x")
    assert (status, message) == (2, "the database has no policy yet")

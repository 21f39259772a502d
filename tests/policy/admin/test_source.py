"""Where commands find a policy."""

import os

import click
import pytest

from ktls import commands
from ktls.errors import KtlsError
from policy.admin.source import complete_source, default_database, load_source, read_source


def test_a_path_is_a_file_and_an_at_sign_a_revision(ktls_policy, site, database):
    ktls_policy("import", site)
    for source in (str(site), "@head", "@1"):
        assert [rule.name for rule in load_source(source, database).rules] == ["postgres out", "web", "web too"]


def test_a_database_that_is_not_there_is_told(tmp_path):
    with pytest.raises(KtlsError):
        load_source("@head", str(tmp_path / "nowhere.db"))


def test_the_default_is_the_users_own(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_database({"HOME": "/home/a"}) == "/home/a/.local/state/ktls/policy.db"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_database({"HOME": "/root"}) == "/var/lib/ktls/policy.db"


def test_a_source_is_its_text_and_its_file(ktls_policy, site, database):
    ktls_policy("import", site)
    assert read_source(str(site)) == (site.read_bytes(), site)
    text, file = read_source("@head", database)
    assert (text, file.parent) == (site.read_bytes(), site.parent)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("@", [("@active", "plain"), ("@head", "plain")]),
        ("@h", [("@head", "plain")]),
        ("@7", []),
        ("si", [("si", "file")]),
    ],
)
def test_shells_complete_files_and_revisions(typed, found):
    context = click.Context(click.Command("x"))
    completed = complete_source(context, click.Argument(["source"]), typed)
    assert [(item.value, item.type) for item in completed] == found


@pytest.mark.parametrize("words", ["ktls keyring check @", "ktls policy list @"])
def test_completion_is_what_a_shell_asks_for(words, monkeypatch, capsys):
    monkeypatch.setenv("_KTLS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "3")
    with pytest.raises(SystemExit):
        commands.main([])
    assert capsys.readouterr().out.split() == ["plain,@active", "plain,@head"]

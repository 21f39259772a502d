"""Where commands find a policy."""

import os

import pytest

from ktls.errors import KtlsError
from policy.admin.source import default_database, load_source


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

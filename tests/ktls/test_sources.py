"""Where a policy comes from, and who wins."""

from pathlib import Path

import pytest

from ktls import sources
from ktls.errors import KtlsError, PolicyError, UsageError
from ktls.run_options import RunOptions
from policy.store import open_store

OPTIONS = RunOptions(command=("true",))
DENY = 'version = 1\ndefault = "deny"\n'


def test_agent_in_the_environment_holds_unless_the_command_line_says_more(tmp_path):
    assert sources.source_of(OPTIONS, {"KTLS_AGENT": "/agent", "KTLS_POLICY": "/nonexistent"}) is None
    with pytest.raises(PolicyError):
        sources.source_of(OPTIONS._replace(policy=str(tmp_path / "none")), {"KTLS_AGENT": "/agent"})
    with pytest.raises(PolicyError):
        sources.source_of(OPTIONS, {"KTLS_POLICY": str(tmp_path / "none")})


def test_without_any_word_nothing_is_run():
    with pytest.raises(UsageError, match="nothing says"):
        sources.source_of(OPTIONS, {})


def test_ports_make_a_policy_that_comes_from_no_file():
    source = sources.source_of(OPTIONS._replace(outbound=((None, 443),)), {})
    assert source is not None
    assert source.policy is not None
    assert (len(source.policy.rules), source.file, source.database) == (1, None, None)


def test_a_file_is_there_to_be_watched(tmp_path, monkeypatch):
    (tmp_path / "p.toml").write_text(DENY)
    monkeypatch.chdir(tmp_path)
    source = sources.find("p.toml", {})
    assert source.file == tmp_path / "p.toml"
    assert source.policy is not None
    assert str(source.policy.default) == "deny"


def test_a_revision_by_number_is_what_it_is_for_good(tmp_path):
    url = str(tmp_path / "policy.db")
    with open_store(url, upgrade=True) as store:
        store.commit(DENY, author="ann", message="m", parent=None)
    source = sources.find("@1", {"KTLS_POLICY_DATABASE": url})
    assert source.policy is not None
    assert (str(source.policy.default), source.file, source.database) == ("deny", None, None)
    with pytest.raises(KtlsError):
        sources.find("@2", {"KTLS_POLICY_DATABASE": url})


def test_what_is_in_force_is_followed_and_nobody_is_asked_yet():
    environment = {"KTLS_POLICY_DATABASE": "postgresql://db.invalid/p", "KTLS_POLICY_SNAPSHOT": "/s/kept"}
    assert sources.find("@active", environment) == sources.Source(
        database=sources.Database("postgresql://db.invalid/p", Path("/s/kept"))
    )


def test_each_database_has_a_snapshot_of_its_own():
    one, other = (sources.find("@active", {}, database=f"/d/{name}.db").database for name in ("one", "other"))
    assert one is not None
    assert other is not None
    assert one.snapshot != other.snapshot
    assert one.snapshot.parent == other.snapshot.parent

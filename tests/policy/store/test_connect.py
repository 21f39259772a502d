import pytest

from ktls.errors import UsageError
from policy.store.connect import read_url, shown


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("/var/lib/policy.db", "sqlite+pysqlite:////var/lib/policy.db"),
        ("sqlite:////var/lib/policy.db", "sqlite+pysqlite:////var/lib/policy.db"),
        ("postgresql://ann@db.example:6432/policy?sslmode=require",
         "postgresql+psycopg://ann@db.example:6432/policy?sslmode=require"),
        ("postgresql+psycopg://db.example/policy", "postgresql+psycopg://db.example/policy"),
    ],
)  # fmt: skip
def test_what_is_a_database(given, url):
    assert read_url(given).render_as_string() == url


def test_a_relative_path_is_that_of_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_url("policy.db").database == read_url("sqlite:///policy.db").database == f"{tmp_path}/policy.db"


@pytest.mark.parametrize(
    "given",
    ["", "a\0b", "mysql://ann:secret@host/db", "nonsense://", "://", "sqlite://", "sqlite:///:memory:",
     "sqlite://host/file", "postgresql+psycopg2://host/db", "postgresql://ann:secret@host:port/db"],
)  # fmt: skip
def test_what_is_none_is_refused_without_the_password(given):
    with pytest.raises(UsageError, match="is not the URL of a policy database") as caught:
        read_url(given)
    assert "secret" not in caught.value.message


def test_people_see_no_password_and_no_driver():
    assert shown(read_url("postgresql://ann:secret@host/db?password=secret")) == "postgresql://ann:***@host/db"
    assert shown(read_url("/a/b.db")) == "/a/b.db"

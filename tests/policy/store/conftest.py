"""An empty database of each kind."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.store import Store, open_store
from tests.policy.store.postgresql import PostgreSql, make_server

BACKENDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    """A server that all tests share; each has a database of its own."""
    server = make_server()
    yield server
    server.remove()


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSql]:
    """A server for one test, which may stop it."""
    server = make_server()
    yield server
    server.remove()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path}/policy.db"
        return
    server: PostgreSql = request.getfixturevalue("postgresql")
    # A schema, since a database takes a second to make.
    name = f"test_{time.monotonic_ns()}"
    server.execute(f"CREATE SCHEMA {name}")
    yield f"{server.url()}?options=-csearch_path%3D{name}"
    server.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store, of each kind."""
    with open_store(url, upgrade=True) as store:
        yield store


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The path of a policy file that need not be there, beside the files that its keyrings may name."""
    for name in ("web.pem", "web.key", "ca.pem"):
        (tmp_path / name).write_text("something")
    return tmp_path / "site.toml"

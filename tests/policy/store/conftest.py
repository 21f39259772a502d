"""An empty database of each kind. PostgreSQL is Debian's, started once for the run, in a folder of its own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from policy.store import Store, open_store

START_SECONDS = 60
CONNECTIONS = 300
BACKENDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))


@dataclass
class PostgreSql:
    """A server that can be stopped and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @staticmethod
    def programs() -> Path | None:
        """Return where the newest server's programs are; Debian keeps them off PATH."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
        return found[-1].parent if found else None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://ktls@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Make the files of a server with a user ktls whom it trusts."""
        self._run(
            "initdb", "--auth=trust", "--username=ktls", "--encoding=UTF8", "--locale=C", "--no-sync", "-D", "data"
        )

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": str(CONNECTIONS),
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program("postgres"), "-D", "data", *words],
                cwd=self.folder,
                stderr=log,
                stdout=log,
                **self._user(),
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()}")
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it at once, with all its connections."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(START_SECONDS)
            self.process = None

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)

    def _program(self, name: str) -> str:
        folder = self.programs()
        assert folder is not None
        return str(folder / name)

    def _run(self, name: str, *words: str) -> None:
        subprocess.run([self._program(name), *words], cwd=self.folder, check=True, capture_output=True, **self._user())

    @staticmethod
    def _user() -> dict:
        """It refuses to run as root, so root becomes the user that Debian's package made for it."""
        return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def make_server() -> PostgreSql:
    """Make a server and start it, or skip the test where PostgreSQL is not installed and need not be."""
    if PostgreSql.programs() is None:
        message = "PostgreSQL is not installed: tools/packages programs"
        (pytest.fail if os.environ.get("KTLS_REQUIRE_LAB") == "1" else pytest.skip)(message)
    # Not below pytest's folders, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="ktls-postgresql-"))
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    with socket.create_server(("127.0.0.1", 0)) as free:
        server = PostgreSql(folder, free.getsockname()[1])
    server.create()
    server.start()
    return server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    """A server that all tests share; each has a database of its own."""
    server = make_server()
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSql]:
    """A server for one test, which may stop it."""
    server = make_server()
    yield server
    server.stop()
    shutil.rmtree(server.folder)


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

"""A PostgreSQL server for tests and benchmarks: Debian's programs, a folder and a port of its own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

START_SECONDS = 60
CONNECTIONS = 300


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

    def remove(self) -> None:
        """Stop it and take its files away."""
        self.stop()
        shutil.rmtree(self.folder)

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

"""Waiting for an activation: PostgreSQL tells, an SQLite file is looked at ten times a second.

A watch holds one connection, on which its owner also asks what is in force. It may wake its owner for nothing; it never
misses what was activated after `forget` was called.
"""

import select
import sqlite3
import time
from pathlib import Path
from typing import Protocol

from psycopg import Connection as PsycopgConnection
from psycopg import Error as PsycopgError
from psycopg import Notify
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from policy.store.connect import make_engine, shown, translated
from policy.store.errors import StoreUnavailable
from policy.store.migrate import check
from policy.store.schema import CHANNEL

LOOK_SECONDS = 0.1  # between two looks at an SQLite file; each is a stat() and one page read


class Watch(Protocol):
    """What a follower needs of a database."""

    connection: Connection

    def forget(self) -> None:
        """Forget what has been heard: the owner is about to ask what is in force."""

    def wait(self, seconds: float, wake: int) -> None:
        """Return when something may have been activated, when the descriptor `wake` is readable, or after that time.

        Raises:
            StoreUnavailable: the database went away.
        """

    def close(self) -> None:
        """Give the connection back."""


def open_watch(url: URL) -> Watch:
    """Connect.

    Raises:
        StoreUnavailable: the database cannot be reached.
        SchemaError: its tables are not of this program's version.
    """
    with translated(url):
        return SqliteWatch(url) if url.get_backend_name() == "sqlite" else PostgresWatch(url)


def _connect(url: URL) -> Connection:
    connection = make_engine(url, pooled=False).connect()
    try:
        with connection.begin():
            check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


class PostgresWatch:
    """LISTEN on the connection; what is heard while a question is answered counts too."""

    def __init__(self, url: URL) -> None:
        self.connection = _connect(url)
        self._heard = False
        driver = self.connection.connection.driver_connection
        assert isinstance(driver, PsycopgConnection)  # noqa: S101 - for the type; read_url lets no other driver in
        self._driver = driver
        self._driver.add_notify_handler(self._hear)
        with self.connection.begin():
            self.connection.execute(text(f"LISTEN {CHANNEL}"))

    def _hear(self, _: Notify) -> None:
        self._heard = True

    def forget(self) -> None:
        """Forget what has been heard."""
        self._heard = False

    def wait(self, seconds: float, wake: int) -> None:
        """Wait for a notification, or for the end of the connection, which the next question meets."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        try:
            # libpq may have read a notification with the end of the last answer.
            while self._driver.pgconn.notifies() is not None:
                self._heard = True
            if self._heard:
                return
            poll.register(self._driver.fileno(), select.POLLIN)
        except PsycopgError as error:
            raise StoreUnavailable(f"{shown(self.connection.engine.url)}: {error}") from error
        poll.poll(seconds * 1000)

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()


class SqliteWatch:
    """PRAGMA data_version, which changes when another connection has committed."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._path = Path(url.database or "")
        self.connection = _connect(url)
        driver = self.connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - for the type; read_url lets no other driver in
        self._driver = driver
        self._file = self._identity()
        self._version = self._data_version()

    def forget(self) -> None:
        """Forget what has been seen."""
        self._version = self._data_version()

    def wait(self, seconds: float, wake: int) -> None:
        """Look until something was committed."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        until = time.monotonic() + seconds
        while not poll.poll(LOOK_SECONDS * 1000) and time.monotonic() < until:
            if self._identity() != self._file:
                raise StoreUnavailable(f"{shown(self._url)}: is another file now")
            if self._data_version() != self._version:
                return

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()

    def _data_version(self) -> int:
        try:
            (version,) = self._driver.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{shown(self._url)}: {error}") from error
        return int(version)

    def _identity(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise StoreUnavailable(f"{shown(self._url)}: {error.strerror}") from error
        return found.st_dev, found.st_ino

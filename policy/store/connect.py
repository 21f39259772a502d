"""Reaching the database: what a URL means, how a transaction begins, and what its errors are called here."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote as quote_path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from ktls.errors import UsageError
from policy.problems import quote
from policy.store.errors import StoreUnavailable
from policy.store.migrate import LOCK

BUSY_SECONDS = 30  # how long one who writes to an SQLite file waits for another
CONNECT_SECONDS = 10
_GONE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""When PostgreSQL's host counts as gone, though it never said so: after a minute of silence, 20 s without an answer."""
_PERMITTED = (
    'is not the URL of a policy database: "sqlite:////path/of.db", a path, or "postgresql://user@host/database"'
)


def read_url(given: str) -> URL:
    """Read where the database is.

    Args:
        given: a path, which is one of an SQLite file, or a URL.

    Raises:
        UsageError: it is of no database that can be used.

    >>> read_url("/var/lib/ktls/policy.db").render_as_string()
    'sqlite+pysqlite:////var/lib/ktls/policy.db'
    """
    if "://" not in given:
        if not given or "\0" in given:
            raise UsageError(f"{quote(given)} {_PERMITTED}")
        return URL.create("sqlite+pysqlite", database=str(Path(given).absolute()))
    try:
        url = make_url(given)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise UsageError(f"{quote(given.partition('://')[0] + '://...')} {_PERMITTED}") from error
    if backend == "sqlite" and url.database and url.database != ":memory:" and not url.host:
        return url.set(drivername="sqlite+pysqlite", database=str(Path(url.database).absolute()), query={})
    if backend in ("postgresql", "postgres") and url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    raise UsageError(f"{quote(shown(url))} {_PERMITTED}")


def shown(url: URL) -> str:
    """Write a URL for people: without its password, and a file as its path."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    plain = url.set(drivername="postgresql", query={}) if url.drivername == "postgresql+psycopg" else url.set(query={})
    return plain.render_as_string(hide_password=True)


def make_engine(url: URL, *, pooled: bool = True, create: bool = False) -> Engine:
    """Make an engine; nothing is connected yet.

    Args:
        url: as `read_url` gives it.
        pooled: keep connections for the next one who needs one.
        create: make an SQLite file that is not there. Looking at what does not exist should not make it.
    """
    pool: dict[str, Any] = {} if pooled else {"poolclass": NullPool}
    if url.get_backend_name() == "sqlite":
        file = f"file:{quote_path(url.database or '')}?mode={'rwc' if create else 'rw'}"

        def opened() -> sqlite3.Connection:
            return sqlite3.connect(file, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)

        engine = create_engine(url, creator=opened, **pool)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    arguments = {"connect_timeout": CONNECT_SECONDS, "application_name": "ktls", **_GONE}
    pool = {"pool_pre_ping": True} if pooled else pool
    return create_engine(url, connect_args=arguments, **pool)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that sees one state of the database throughout.

    Raises:
        StoreUnavailable: the database cannot be reached or used.
    """
    with translated(engine.url), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection in the one transaction that may write now; others who want to wait.

    Raises:
        StoreUnavailable: the database cannot be reached or used.
    """
    with translated(engine.url), engine.connect() as connection:
        connection.execution_options(ktls_writes=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield connection


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Raise what the database says as an error of ours.

    Raises:
        StoreUnavailable: it said something.
    """
    try:
        yield
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        hint = None
        if isinstance(error, OperationalError | InterfaceError):
            hint = "see whether it is there, runs, and lets this user in"
        raise StoreUnavailable(f"{shown(url)}: {said}", hint=hint) from error
    except ModuleNotFoundError as error:
        hint = "pip install 'ktls[database]'"
        raise StoreUnavailable(f"{shown(url)}: {error.name} is not installed", hint=hint) from error


def _set_up_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # we say when a transaction begins, not the driver
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # One who reads first and writes then could not get the lock any more.
    writes = connection.get_execution_options().get("ktls_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

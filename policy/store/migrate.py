"""Bringing the tables to the version that this program works with."""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from policy.store.errors import SchemaError
from policy.store.schema import VERSION_TABLE

LOCK = 0x6B746C73  # of PostgreSQL's advisory locks, for whoever migrates or writes; "ktls"
UPGRADE_HINT = "bring it up to date with `upgrade`; programs of the older version cannot use it then"
_STEPS = Path(__file__).with_name("migrations")


def version(connection: Connection) -> str | None:
    """Return the version of the tables, None where there are none."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def newest() -> str:
    """Return the version that this program works with."""
    return str(_scripts().get_current_head())


def check(connection: Connection) -> None:
    """See whether the tables are of the version that this program works with.

    Raises:
        SchemaError: there are none, or they are older or newer.
    """
    found = version(connection)
    if found == newest():
        return
    if found is None:
        raise SchemaError("the database has no policy tables yet", hint="make them with `upgrade`")
    _refuse_newer(found)
    raise SchemaError(f"the database is of version {found}, and this program needs {newest()}", hint=UPGRADE_HINT)


def migrate(connection: Connection, to: str = "head") -> None:
    """Bring the tables to a version; the transaction that is open has all of it or nothing.

    Args:
        connection: with a transaction that may write. Others who migrate wait.
        to: the version, "head" for that of this program, "base" for no tables at all, with all that is stored gone.

    Raises:
        SchemaError: they are newer than this program.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    found = version(connection)
    if found is not None:
        _refuse_newer(found)
    elif inspect(connection).has_table("policy_revision"):
        raise SchemaError(
            f"the database has a table policy_revision and no {VERSION_TABLE}: it is not one of ours",
            hint="use a database, or in PostgreSQL a schema, of its own",
        )
    scripts = _scripts()
    order = [step.revision for step in scripts.walk_revisions()]  # newest first
    down = to == "base" or (found is not None and to in order and order.index(to) > order.index(found))

    def steps(current: tuple[str, ...], _: MigrationContext) -> list[MigrationStep]:
        at = current[0] if current else "base"
        found = scripts._downgrade_revs(to, at) if down else scripts._upgrade_revs(to, at)
        return list(found)

    # In place of Alembic's env.py, which would be a module that cannot be imported. SQLite can undo a change of tables.
    with EnvironmentContext(Config(), scripts) as environment:
        environment.configure(connection=connection, version_table=VERSION_TABLE, transactional_ddl=True, fn=steps)
        environment.run_migrations()


def _refuse_newer(found: str) -> None:
    known = {step.revision for step in _scripts().walk_revisions()}
    if found not in known:
        raise SchemaError(
            f"the database is of version {found}, which this program does not know: its newest is {newest()}",
            hint="a newer ktls has brought it up to date: use that, or a newer one, here too",
        )


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(_STEPS, version_locations=[_STEPS])

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from policy.store.connect import make_engine, read_url, reading, writing
from policy.store.errors import SchemaError
from policy.store.migrate import check, migrate, newest, version
from policy.store.schema import VERSION_TABLE, metadata


@pytest.fixture
def engine(url):
    engine = make_engine(read_url(url), create=True)
    yield engine
    engine.dispose()


def test_an_empty_database_is_brought_up(engine):
    with reading(engine) as connection, pytest.raises(SchemaError, match="has no policy tables yet"):
        check(connection)
    with writing(engine) as connection:
        migrate(connection)
        migrate(connection)  # nothing is left to do
    with reading(engine) as connection:
        check(connection)
        assert version(connection) == newest()


def test_the_migrations_make_what_the_schema_says(engine):
    with writing(engine) as connection:
        migrate(connection)
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        found = inspect(connection)
        for table in metadata.sorted_tables:
            names = {check["name"] for check in found.get_check_constraints(table.name)}
            assert {one.name for one in table.constraints if isinstance(one.name, str)} - names == set()


def test_down_takes_all_away_and_up_brings_it_back(engine):
    with writing(engine) as connection:
        migrate(connection)
        migrate(connection, "base")
    with reading(engine) as connection:
        assert set(inspect(connection).get_table_names()) <= {VERSION_TABLE}
        assert version(connection) is None
    with writing(engine) as connection:
        migrate(connection)
    with reading(engine) as connection:
        check(connection)


def test_a_migration_that_fails_leaves_nothing(engine):
    with writing(engine) as connection:
        migrate(connection)
        assert version(connection) == newest()
        transaction = connection.get_transaction()
        assert transaction is not None
        transaction.rollback()
    with reading(engine) as connection:
        assert inspect(connection).get_table_names() == []


def test_a_database_of_a_newer_program_is_refused(engine):
    with writing(engine) as connection:
        migrate(connection)
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with reading(engine) as connection, pytest.raises(SchemaError, match="version 9999, which this") as caught:
        check(connection)
    assert "newer ktls" in caught.value.hint
    with writing(engine) as connection, pytest.raises(SchemaError, match="version 9999"):
        migrate(connection)


def test_the_table_of_somebody_else_is_left_alone(engine):
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE policy_revision (theirs INTEGER)"))
    with writing(engine) as connection, pytest.raises(SchemaError, match="it is not one of ours"):
        migrate(connection)

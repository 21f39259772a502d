"""What the database itself refuses, whoever asks."""

import pytest
from sqlalchemy import text

from policy.store.connect import make_engine, read_url, writing
from policy.store.errors import StoreUnavailable

DOCUMENT = 'version = 1\n[[rule]]\nname = "web"\nverdict = "deny"\n[[rule]]\nname = "mail"\nverdict = "deny"\n'
HASH = "f" * 64


@pytest.fixture
def execute(store, url):
    """Run one statement in a transaction of its own, against a store with two revisions, the second in force."""
    first = store.commit(DOCUMENT, author="ann", message="begin", parent=None)
    store.activate(first, "ann")
    second = store.commit(DOCUMENT.replace("web", "www"), author="ann", message="www", parent=first)
    store.activate(second, "ann")
    engine = make_engine(read_url(url))

    def run(*statements):
        with writing(engine) as connection:
            for statement in statements:
                connection.execute(text(statement))

    yield run
    engine.dispose()


TABLES = ("policy_piece", "policy_revision", "policy_entry", "policy_activation")
COLUMNS = {"policy_piece": "text", "policy_revision": "author", "policy_entry": "piece", "policy_activation": "author"}


@pytest.mark.parametrize("table", TABLES)
def test_what_is_stored_is_neither_changed_nor_taken_away(execute, table):
    for statement in (f"UPDATE {table} SET {COLUMNS[table]} = 'x'", f"DELETE FROM {table}"):
        with pytest.raises(StoreUnavailable, match=r"is never changed|are sealed"):
            execute(statement)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)  # SQLite has no TRUNCATE
@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_not_emptied(execute, table):
    with pytest.raises(StoreUnavailable, match=r"is never changed"):
        execute(f"TRUNCATE {table} CASCADE")


NOW = "'2026-01-01T00:00:00.000000Z'"
PIECE = f"INSERT INTO policy_piece VALUES ('{HASH}', 'rule', 'new', 0, '{{}}', '')"
REVISION = "INSERT INTO policy_revision VALUES ({0}, '{1}', {2}, 'eve', {3}, 'm', '/', '" + HASH + "', '123456789012')"
NEXT = REVISION.format(3, HASH, 2, NOW)
ENTRY = "INSERT INTO policy_entry VALUES ({since}, {position}, {until}, '" + HASH + "', 'rule', '{name}', 0)"
GOOD = ENTRY.format(since=3, position=1, until="NULL", name="new")


def test_what_the_next_tests_bend_is_right(execute):
    execute(PIECE, GOOD, NEXT)


@pytest.mark.parametrize(
    "statements",
    [
        [PIECE, ENTRY.format(since=2, position=1, until="NULL", name="new"), NEXT],  # for a revision that is there
        [PIECE, ENTRY.format(since=4, position=1, until="NULL", name="new"), NEXT],  # for one too far
        [PIECE, ENTRY.format(since=3, position=1, until=4, name="new"), NEXT],
        [PIECE, GOOD],  # and no revision
        [PIECE, ENTRY.format(since=3, position=1, until="NULL", name="other"), NEXT],  # not the piece's name
        [GOOD, NEXT],  # no such piece
        [PIECE, GOOD, ENTRY.format(since=3, position=2, until="NULL", name="new"), NEXT],  # twice
        [PIECE, GOOD, GOOD, NEXT],
        [PIECE, PIECE],
        ["UPDATE policy_entry SET until = 2 WHERE until IS NULL"],  # rewrites revision 2
        ["UPDATE policy_entry SET until = NULL"],  # brings back what was closed
        ["UPDATE policy_entry SET until = 3 WHERE until IS NOT NULL", NEXT],
        ["UPDATE policy_entry SET until = 3 WHERE until IS NULL"],  # and no revision
        ["UPDATE policy_entry SET until = 3 WHERE until IS NULL", NEXT],  # nothing is left: no top level
        ["UPDATE policy_entry SET until = 3, position = position + 1 WHERE until IS NULL", NEXT],
        [REVISION.format(4, HASH, 3, NOW)],  # a gap
        [REVISION.format(3, HASH, 1, NOW)],  # a branch
        [REVISION.format(3, HASH, "NULL", NOW)],  # another beginning
        [REVISION.format(1, HASH, "NULL", NOW)],
        [REVISION.format(0, HASH, "NULL", NOW)],
        [REVISION.format(3, "ff", 2, NOW)],
        [REVISION.format(3, HASH, 2, "'yesterday'")],
        [NEXT.replace("'eve'", "''")],
        [NEXT.replace("'m'", "''")],
        [NEXT.replace("'m'", "'-----BEGIN PRIVATE KEY-----'")],
        [NEXT.replace("'/'", "'etc'")],
        [PIECE.replace("'new'", "''")],
        [PIECE.replace("'rule'", "'role'")],
        [PIECE.replace("'{}'", "NULL")],
        [PIECE.replace(", 0,", ", -1,")],
        [PIECE.replace("''", "'# -----BEGIN PRIVATE KEY-----'")],
        [PIECE.replace("'{}'", '\'{"a":"-----BEGIN PRIVATE KEY-----"}\'')],
        [f"INSERT INTO policy_activation VALUES (3, 2, 3, 'eve', {NOW}, NULL)"],  # no such revision
        [f"INSERT INTO policy_activation VALUES (4, 3, 1, 'eve', {NOW}, NULL)"],  # a gap
        [f"INSERT INTO policy_activation VALUES (3, 1, 1, 'eve', {NOW}, NULL)"],
        [f"INSERT INTO policy_activation VALUES (3, NULL, 1, 'eve', {NOW}, NULL)"],
        [f"INSERT INTO policy_activation VALUES (3, 2, 2, 'eve', {NOW}, 1)"],  # a return to something else
        [f"INSERT INTO policy_activation VALUES (3, 2, 2, 'eve', {NOW}, 2)"],  # a return to what is in force
        [f"INSERT INTO policy_activation VALUES (3, 2, 1, '', {NOW}, 1)"],
    ],
    ids=range(39),
)
def test_nonsense_cannot_be_stored(store, execute, statements):
    with pytest.raises(StoreUnavailable, match=r"(?i)constraint|sealed|already|top level"):
        execute(*statements)
    assert store.document(1) == DOCUMENT
    assert store.head().number == 2
    assert store.active().number == 2


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # PostgreSQL has no REPLACE
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO policy_revision SELECT number, hash, parent, 'eve', time, message, base, content,"
        " policy FROM policy_revision",
        "INSERT OR REPLACE INTO policy_piece SELECT hash, kind, name, part, data, 'x' FROM policy_piece",
        "INSERT OR REPLACE INTO policy_entry SELECT 3, position, NULL, piece, kind, name, part FROM policy_entry"
        " WHERE until IS NULL",
        "INSERT OR REPLACE INTO policy_activation SELECT number, previous, revision, 'eve', time, returns_to"
        " FROM policy_activation",
        "UPDATE OR REPLACE policy_entry SET until = 3, position = 1 WHERE until IS NULL",
    ],
)
def test_replacing_is_changing(execute, statement):
    with pytest.raises(StoreUnavailable, match=r"is never changed|are sealed|already"):
        execute(statement)


def test_a_commit_of_a_rule_and_nothing_else_passes_all_this(store, execute):
    third = store.commit(DOCUMENT, author="ann", message="back", parent=2)
    assert store.document(third) == DOCUMENT

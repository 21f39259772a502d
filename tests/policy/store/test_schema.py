"""test_migrate holds the tables against what makes them, test_first what they refuse."""

from sqlalchemy import CheckConstraint

from policy.store.pem import MARK
from policy.store.pieces import KINDS
from policy.store.schema import metadata


def checks():
    held = [constraint for table in metadata.sorted_tables for constraint in table.constraints]
    held += [one for table in metadata.sorted_tables for column in table.columns for one in column.constraints]
    return {str(one.sqltext) for one in held if isinstance(one, CheckConstraint)}


def test_the_kinds_are_those_of_pieces():
    assert f"kind IN ({', '.join(map(repr, KINDS))})" in checks()


def test_every_text_that_people_write_is_kept_free_of_pem():
    assert len([check for check in checks() if f"'{MARK}'" in check]) >= 4

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from policy.store.records import Activation, Revision, read_time, write_time

REVISION = Revision(
    2, 1, "a" * 64, "ann", datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "why", Path("/etc/ktls"), "b" * 64, "123456789abc"
)


def test_the_hash_changes_with_everything_in_it():
    others = [
        replace(REVISION, number=3),
        replace(REVISION, parent_hash="c" * 64),
        replace(REVISION, author="bob"),
        replace(REVISION, time=REVISION.time + timedelta(microseconds=1)),
        replace(REVISION, message="what"),
        replace(REVISION, base=Path("/etc")),
        replace(REVISION, content="c" * 64),
        replace(REVISION, policy="cba987654321"),
    ]
    assert len({one.hash for one in (REVISION, *others)}) == 9


def test_the_hash_stays_as_it_was_made():
    # Stored hashes are of this form: another form would make them look damaged.
    assert REVISION.hash == "fe2c7f7ac130c61c78d315f1e8777029329b3df84be4fec0e96d681d8fa5d509"


def test_people_see_number_and_short_hash():
    assert str(REVISION) == f"2 ({REVISION.hash[:12]})"


def test_times_come_back_in_utc():
    there = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert read_time(write_time(there)) == there
    assert write_time(there) == "2025-12-31T23:00:00.000000Z"


def test_a_roll_back_stands_for_what_it_returned_to():
    assert Activation(5, REVISION, "ann", REVISION.time).stands_for == 5
    assert Activation(5, REVISION, "ann", REVISION.time, returns_to=2).stands_for == 2

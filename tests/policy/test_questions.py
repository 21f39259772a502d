"""Connections in the words of administrators."""

import grp
import os
import pwd
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import PolicyError
from policy.questions import read_endpoint, read_question, write_endpoint

LEAST = {"direction": "outbound", "remote": "10.1.2.3:5432"}


def test_what_is_not_said_is_not_known():
    facts = read_question(LEAST, datetime(2026, 1, 5, tzinfo=UTC))
    assert (facts.direction, facts.remote, facts.when.day) == ("outbound", ("10.1.2.3", 5432), 5)
    assert (facts.local, facts.remote_name, facts.program, facts.user, facts.uid, facts.unit) == (None,) * 6


def test_a_user_is_known_by_name_and_number():
    me = pwd.getpwuid(os.getuid())
    for text in (me.pw_name, str(me.pw_uid)):
        facts = read_question({**LEAST, "user": text})
        assert (facts.user, facts.uid) == (me.pw_name, me.pw_uid)
    assert read_question({**LEAST, "user": "nobody-here"}).uid is None
    assert read_question({**LEAST, "user": "3999999999"}).user is None


def test_groups_are_known_by_name_and_number():
    mine = grp.getgrgid(os.getgid())
    for text in (mine.gr_name, str(mine.gr_gid), f"{mine.gr_name}, nobody-here, 3999999999"):
        facts = read_question({**LEAST, "group": text})
        assert (facts.group_names[0], facts.groups[0]) == (mine.gr_name, mine.gr_gid)
    assert (facts.group_names[1:], facts.groups[1:]) == (("nobody-here",), (3999999999,))
    assert read_question(LEAST).groups == ()


def test_a_time_may_have_a_zone():
    assert read_question({**LEAST, "at": "2026-01-05T12:00+01:00"}).when == datetime(2026, 1, 5, 11, tzinfo=UTC)
    assert read_question({**LEAST, "at": "2026-01-05T12:00"}).when.utcoffset() is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"remote": ""}, "remote is missing"),
        ({"direction": "sideways"}, "is no direction"),
        ({"remote": "10.1.2.3"}, "is not an address and a port"),
        ({"remote": "::1:80"}, "is not an address and a port"),
        ({"remote": "10.1.2.3:65536"}, "is not an address and a port"),
        ({"remote": "10.1.2.3:" + "9" * 5000}, "is not an address and a port"),
        ({"remote": "db.example:5432"}, "is not an IP address"),
        ({"at": "noon"}, "is no time"),
        ({"port": "80"}, "is no part of a connection"),
    ],
)
def test_what_is_wrong_is_named(changes, words):
    with pytest.raises(PolicyError, match=words):
        read_question({**LEAST, **changes})


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_end_is_read_as_it_is_written(address, port):
    assert read_endpoint(write_endpoint((str(address), port))) == (str(address), port)

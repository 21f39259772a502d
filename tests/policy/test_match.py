import dataclasses
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from ktls.errors import UsageError
from policy import match, values
from policy.model import Facts, Match
from policy.names import program, remote_name, unit

FACTS = Facts(
    direction="outbound",
    local=("10.1.2.3", 40000),
    remote=("192.0.2.5", 5432),
    remote_name="a.db.example",
    program="/usr/bin/psql",
    user="app",
    uid=1000,
    gid=100,
    groups=(27, 44),
    group_names=("users", "sudo", "video"),
    unit="app@1.service",
    when=datetime(2026, 3, 4, 12, 0, tzinfo=UTC),  # a Wednesday
)
NOTHING = Facts(direction="inbound", remote=("", 0), when=FACTS.when)


def ranges(*texts):
    return tuple(map(values.address_range, texts))


def ports(*texts):
    return tuple(map(values.port_range, texts))


FITTING = [
    Match(),
    Match("outbound"),
    Match(local=ranges("10.0.0.0/8")),
    Match(local_port=ports("1-39999", "40000")),
    Match(remote=ranges("2001:db8::/32", "192.0.2.1-192.0.2.5")),
    Match(remote=ranges("::ffff:192.0.2.5")),
    Match(remote_port=ports("5432")),
    Match(remote_name=(remote_name("*.db.example"),)),
    Match(program=(program("/usr/bin/*"),)),
    Match(user=("app",)),
    Match(user=("other", values.port_range(1000))),
    Match(group=("other", "sudo")),
    Match(group=(values.group("100"),)),
    Match(group=(values.group("40-44"),)),
    Match(unit=(unit("app@*.service"),)),
    Match(time=values.time_window((values.days("wed"),), 720, 721, "UTC")),
]
NOT_FITTING = [
    Match("inbound"),
    Match(local=ranges("11.0.0.0/8")),
    Match(local_port=ports("1-39999")),
    Match(remote=ranges("192.0.2.6", "::/0")),
    Match(remote_port=ports("5431", "5433")),
    Match(remote_name=(remote_name("db.example"),)),
    Match(program=(program("/usr/bin"),)),
    Match(user=("root", values.port_range(999))),
    Match(group=("wheel", values.group("45-99"))),
    Match(unit=(unit("app@*.scope"),)),
    Match(time=values.time_window((values.days("wed"),), 0, 720, "UTC")),
]


@pytest.mark.parametrize("rule", FITTING, ids=str)
def test_conditions_that_hold(rule):
    assert match.failing(rule, match.subject(FACTS)) is None


@pytest.mark.parametrize("rule", NOT_FITTING, ids=str)
def test_conditions_that_do_not_hold_are_named(rule):
    assert match.failing(rule, match.subject(FACTS)) == rule.keys[0]


@pytest.mark.parametrize("rule", [rule for rule in FITTING if rule.keys and rule.keys != ("time",)], ids=str)
def test_what_is_not_known_fits_no_condition(rule):
    assert match.failing(rule, match.subject(NOTHING)) == rule.keys[0]


def test_every_key_of_a_match_has_a_condition():
    fields = [field.name for field in dataclasses.fields(Match) if field.name != "keys"]
    assert list(match.CONDITIONS) == fields


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"remote": ("::ffff:192.0.2.5", 1)}, Match(remote=ranges("192.0.2.5"))),
        ({"remote": ("fe80::1%eth0", 1)}, Match(remote=ranges("fe80::/10"))),
        ({"remote_name": "A.DB.Example."}, Match(remote_name=(remote_name("a.db.example"),))),
        ({"program": "/usr/bin/psql (deleted)"}, Match(program=(program("/usr/bin/psql"),))),
        ({"user": None}, Match(user=(values.port_range(1000),))),
    ],
)
def test_facts_are_compared_in_one_spelling(changes, rule):
    assert match.failing(rule, match.subject(dataclasses.replace(FACTS, **changes))) is None


def test_a_mapped_address_is_no_ipv6_address():
    facts = dataclasses.replace(FACTS, remote=("::ffff:192.0.2.5", 1))
    assert match.failing(Match(remote=ranges("::/0")), match.subject(facts)) == "remote"


def test_a_time_without_zone_is_a_mistake_of_the_caller():
    with pytest.raises(UsageError, match="has no zone"):
        match.subject(dataclasses.replace(FACTS, when=datetime(2026, 3, 4)))


NIGHT = values.time_window((values.days("mon-fri"),), 22 * 60, 6 * 60, "UTC")
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "clock", "expected"),
    [
        (0, "21:59", False),
        (0, "22:00", True),
        (1, "05:59", True),  # of Monday's night
        (1, "06:00", False),
        (0, "05:00", False),  # of Sunday's, which is none
        (4, "23:00", True),
        (5, "05:59", True),  # Saturday, of Friday's
        (5, "22:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_began(day, clock, expected):
    when = MONDAY + timedelta(days=day, minutes=values.minutes(clock))
    assert match.in_window(NIGHT, when) is expected


def test_a_window_is_in_the_time_of_its_zone_in_summer_and_winter():
    window = values.time_window((), 8 * 60, 18 * 60, "Europe/Berlin")
    assert match.in_window(window, datetime(2026, 7, 1, 6, 30, tzinfo=UTC))
    assert not match.in_window(window, datetime(2026, 1, 5, 6, 30, tzinfo=UTC))
    assert match.in_window(window, datetime(2026, 1, 5, 17, 0, tzinfo=ZoneInfo("Europe/Berlin")))


def test_a_window_without_zone_is_in_the_machines_time(monkeypatch):
    import time

    window = values.time_window((), 8 * 60, 9 * 60)
    monkeypatch.setenv("TZ", "XXX-5")  # five hours east
    time.tzset()
    try:
        assert match.in_window(window, datetime(2026, 1, 5, 3, 30, tzinfo=UTC))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_comparisons_read_as_sentences():
    has = match.subject(FACTS)
    assert match.compare("remote_port", Match(remote_port=ports("80", "1-9")), has) == (
        False,
        "remote_port 5432 is not in 80, 1-9",
    )
    assert match.compare("user", Match(user=("app",)), has) == (True, "user app (1000) is in app")
    assert match.compare("program", Match(program=(program("/a"),)), match.subject(NOTHING)) == (
        False,
        "program is not known, and would have to be in /a",
    )

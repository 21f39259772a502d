"""Rules from what was seen."""

from datetime import UTC, datetime

from policy.decide import decide
from policy.model import Facts, Verdict
from policy.records import Record
from policy.suggest import suggest


def record(**changes) -> Record:
    facts: dict = {
        "direction": "outbound", "remote": ("10.0.0.1", 5432), "local": ("10.0.0.9", 40000), "user": "app",
        "program": "/usr/bin/psql", "when": datetime(2026, 1, 5, tzinfo=UTC), "remote_name": "db.example",
        "group_names": ("staff",),
    }  # fmt: skip
    return Record(Facts(**(facts | changes)), Verdict.CLEAR, None, 1)


def test_what_was_seen_becomes_a_policy_that_protects_it(load_text):
    records = [record(remote=(f"10.0.0.{host}", 5432)) for host in range(4)]
    records += [record(direction="inbound", program="/usr/sbin/nginx", local=("10.0.0.9", 80), remote_name=None)]
    text = suggest(records)
    assert "# Seen 4 times, as app, in group staff, by the name db.example." in text
    assert 'remote = ["10.0.0.0/30"]' in text
    policy = load_text(text.replace("version = 1\n", ""))
    assert [rule.name for rule in policy.rules] == ["1 psql to port 5432", "2 nginx on port 80"]
    assert decide(policy, records[0].facts).verdict is Verdict.TLS
    assert decide(policy, records[-1].facts).verdict is Verdict.CLEAR


def test_words_from_outside_stay_in_their_line(load_text):
    text = suggest([record(program='/bin/a"\nb', remote_name='x\nverdict = "clear"', user="u\nv")])
    policy = load_text(text.replace("version = 1\n", ""))
    assert [glob.text for glob in policy.rules[0].match.program] == ['/bin/a"\nb']


def test_too_many_addresses_are_no_condition(load_text):
    text = suggest([record(remote=(f"10.{host}.0.{host}", 5432)) for host in range(0, 200, 2)])
    assert "# remote: 100 addresses, too many to name" in text
    assert load_text(text.replace("version = 1\n", "")).rules[0].match.remote == ()


def test_nothing_recorded_is_a_policy_too(load_text):
    assert load_text(suggest([]).replace("version = 1\n", "")).rules == ()

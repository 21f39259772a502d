"""Recorded connections, and what another policy would have made of them."""

import json

import pytest

from ktls.errors import PolicyError
from policy.model import Verdict
from policy.records import describe, read_records, replay


def line(**changes) -> str:
    facts = {
        "event": "clear", "time": "2026-01-05T12:00:00.000+00:00", "id": 1, "verdict": "clear", "direction": "outbound",
        "remote": "10.0.0.1:5432", "program": "/usr/bin/psql", "user": "app", "rule": None, "reason": "something",
    }  # fmt: skip
    return json.dumps({key: value for key, value in {**facts, **changes}.items() if value is not None})


@pytest.fixture
def read(tmp_path):
    def read_lines(*lines: str):
        path = tmp_path / "report.jsonl"
        path.write_text("\n".join(lines) + "\n")
        return read_records([path])

    return read_lines


def test_a_connection_is_one_record_whatever_became_of_it(read):
    held = read(
        line(event="open", verdict="tls"), line(event="end", verdict="tls"), line(id=2), line(event="malformed")
    )
    assert [(record.verdict, record.line) for record in held.records] == [(Verdict.TLS, 1), (Verdict.CLEAR, 3)]
    assert held.unread == 0


def test_the_end_of_a_connection_in_clear_belongs_to_its_record(read):
    held = read(line(agent=7), line(agent=7, event="clear-end", bytes_in=5, ended="closed"))
    assert [record.line for record in held.records] == [1]
    assert read(line(event="clear-end", verdict="tls")).records[0].verdict is Verdict.CLEAR  # its beginning is lost


def test_numbers_that_come_again_after_a_restart_are_other_connections(read):
    held = read(line(agent=7, local="10.0.0.9:40000"), line(agent=7, local="10.0.0.9:40001"))
    assert len(held.records) == 2


def test_an_observed_connection_was_clear_whatever_policy_said(read):
    assert read(line(event="observed", verdict="tls")).records[0].verdict is Verdict.CLEAR


@pytest.mark.parametrize(
    "bad", ["{", "[]", "null", '"x"', "[" * 100000, line(direction="up"), line(remote="nowhere"), line(verdict="so")]
)
def test_what_is_no_record_is_counted(read, bad):
    held = read(bad, line())
    assert (len(held.records), held.unread > 0) == (1, True)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        read_records([tmp_path / "nothing"])


def test_replaying_tells_what_would_change(load_text, read):
    policy = load_text('[[rule]]\nname = "db"\nremote_port = ["5432"]\nuser = ["app"]\nverdict = "deny"\n')
    changes = replay(policy, read(line(), line(id=2, user="root"), line(id=3, remote="[::1]:80")).records)
    assert [(change.record.line, change.decision.verdict, change.decision.rule) for change in changes] == [
        (1, Verdict.DENY, "db")
    ]
    assert describe(changes[0].record.facts) == "/usr/bin/psql as app to 10.0.0.1 port 5432"

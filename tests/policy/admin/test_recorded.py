"""Records from the command line."""

import json

import pytest


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.jsonl"
    facts = {"event": "clear", "time": "2026-01-05T12:00:00+00:00", "verdict": "clear", "direction": "outbound"}
    lines = [json.dumps({**facts, "id": number, "remote": "10.0.0.1:5432", "user": "app"}) for number in range(3)]
    path.write_text("\n".join([*lines, "{cut"]) + "\n")
    return path


def test_replay_counts_what_would_change(ktls_policy, site, report):
    status, out, err = ktls_policy("replay", site, report)
    assert status == 1
    assert out.splitlines()[1].split() == [
        "3",
        "clear",
        "tls",
        "postgres",
        "out",
        "an",
        "unknown",
        "program",
        "as",
        "app",
        "to",
        "10.0.0.1",
        "port",
        "5432",
    ]
    assert out.splitlines()[-1] == "3 of 3 connections would be decided otherwise"
    assert err == "warning: 1 lines are no records, and were passed over\n"
    _, found, _ = ktls_policy("replay", site, report, "--json")
    assert (found["connections"], found["changed"], found["changes"][0]["count"]) == (3, 3, 3)


def test_suggest_writes_a_policy(ktls_policy, report, tmp_path):
    _, out, _ = ktls_policy("suggest", report)
    path = tmp_path / "suggested.toml"
    path.write_text(out)
    assert ktls_policy("check", path)[0] == 0
    assert ktls_policy("replay", path, report)[0] == 1

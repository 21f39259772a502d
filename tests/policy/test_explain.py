"""Why a connection is decided as it is."""

from datetime import UTC, datetime

from policy.explain import explain
from policy.model import Facts


def facts(**changes) -> Facts:
    given: dict = {"direction": "outbound", "remote": ("192.0.2.9", 80), "when": datetime(2026, 1, 5, 12, tzinfo=UTC)}
    return Facts(**(given | changes))


POLICY = """
[[rule]]
name = "no telnet"
priority = 10
remote_port = ["23"]
verdict = "deny"
[[rule]]
name = "database"
direction = "outbound"
remote_name = ["*.db.example"]
remote_port = ["5432"]
verdict = "tls"
action = { eof = "lenient" }
[[rule]]
name = "local"
remote = ["127.0.0.0/8", "::1"]
verdict = "clear"
action = "unused"
[action.unused]
"""


def test_explaining_tells_of_each_rule_up_to_the_one_that_decides(load_text):
    policy = load_text(POLICY)
    assert explain(policy, facts(remote=("192.0.2.5", 5432))).lines() == (
        'rule "no telnet" does not fit: remote_port 5432 is not in 23',
        'rule "database" does not fit: remote_name is not known, and would have to be in *.db.example',
        'rule "local" does not fit: remote 192.0.2.5 is not in 127.0.0.0/8, ::1',
        "clear: no rule fits outbound to 192.0.2.5 port 5432; the default is clear",
    )
    assert explain(policy, facts(remote=("127.0.0.1", 23))).lines() == (
        'rule "no telnet" fits: remote_port 23 is in 23',
        'deny: rule "no telnet" fits outbound to 127.0.0.1 port 23',
    )


def test_a_rule_without_conditions_is_explained_as_such(load_text):
    policy = load_text('[[rule]]\nname = "all"\nverdict = "deny"\n')
    assert explain(policy, facts()).lines()[0] == 'rule "all" fits: it has no conditions'


def test_a_rule_that_one_key_kept_from_fitting_is_a_near_miss(load_text):
    text = """
[[rule]]
name = "database"
direction = "outbound"
remote_port = ["5432"]
user = ["app"]
verdict = "deny"
[[rule]]
name = "web"
direction = "outbound"
remote_port = ["443"]
verdict = "deny"
"""
    explanation = explain(load_text(text), facts(remote=("192.0.2.5", 5432), user="root"))
    assert [one.rule.name for one in explanation.near] == ["database"]
    assert explanation.near[0].misses == ("user root is not in app",)

"""Rules as people read them."""

from policy.admin.describe import conditions, rule_facts, rule_lines
from policy.model import Match, NumberRange, Rule, TimeWindow, Verdict
from policy.names import glob


def test_conditions_are_one_line():
    match = Match("outbound", remote_port=(NumberRange(1, 2), NumberRange(5, 5)), program=(glob("/a/*"),))
    assert conditions(match) == "outbound; remote_port 1-2, 5; program /a/*"
    assert conditions(Match()) == "always"


def test_a_rule_without_action_has_none():
    rule = Rule("a", Verdict.DENY, Match(time=TimeWindow(text="mon 08:00-09:00")), line=3)
    assert rule_facts(rule)["match"] == {"time": "mon 08:00-09:00"}
    assert list(rule_lines(rule)) == [
        'rule "a", priority 1, line 3',
        "  when     time mon 08:00-09:00",
        "  verdict  deny",
    ]

import pytest

from policy.model import Action, Match, NumberRange, Verdict


def rule(load_text, text: str):
    return load_text(f'[[rule]]\nname = "r"\nverdict = "deny"\n{text}').rules[0]


def test_a_rule_with_nothing_to_match_is_about_all(load_text):
    found = rule(load_text, "")
    assert (found.match, found.priority, found.action, found.verdict) == (Match(), 1, None, Verdict.DENY)


def test_everything_a_rule_can_match(load_text):
    found = rule(
        load_text,
        """
priority = 100
direction = "outbound"
local = ["10.0.0.0/8"]
local_port = []
remote = ["192.0.2.0/24", "2001:db8::1-2001:db8::ff"]
remote_port = ["5432", "6000-6999", 7000]
remote_name = ["*.db.example"]
program = ["/usr/bin/psql", "/opt/app/*"]
user = ["app", "1000-1999", 0]
unit = ["app@*.service"]
time = { days = ["mon-fri"], from = "08:00", to = "18:00", zone = "UTC" }
""",
    )
    match = found.match
    assert found.priority == 100
    assert match.direction == "outbound"
    assert [str(one) for one in match.remote] == ["192.0.2.0/24", "2001:db8::1-2001:db8::ff"]
    assert match.remote_port == (NumberRange(5432, 5432), NumberRange(6000, 6999), NumberRange(7000, 7000))
    assert match.user == ("app", NumberRange(1000, 1999), NumberRange(0, 0))
    assert match.time is not None
    assert (sorted(match.time.days), match.time.start, match.time.end, match.time.zone) == (
        [0, 1, 2, 3, 4],
        480,
        1080,
        "UTC",
    )
    assert "local_port" not in match.keys
    assert len(match.keys) == 9


def test_both_directions_are_no_condition(load_text):
    assert rule(load_text, 'direction = "both"').match.direction is None


def test_an_action_may_be_named_or_written_inside(load_text):
    text = """
[[rule]]
name = "named"
verdict = "tls"
direction = "outbound"
action = "a"
[[rule]]
name = "inside"
verdict = "tls"
direction = "outbound"
action = { eof = "lenient" }
[[rule]]
name = "below"
verdict = "tls"
direction = "outbound"
[rule.action]
eof = "lenient"
[action.a]
"""
    assert [one.action for one in load_text(text).rules] == [Action("a"), Action(eof="lenient"), Action(eof="lenient")]


def test_rules_are_tried_by_priority_then_by_their_order(load_text):
    text = "".join(
        f'[[rule]]\nname = "{name}"\npriority = {priority}\nverdict = "clear"\n'
        for name, priority in [("a", 1), ("b", 2_000_000_000), ("c", 50), ("d", 50)]
    )
    assert [one.name for one in load_text(text).rules] == ["b", "c", "d", "a"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("priority = 0", "priority: 0 is not a whole number from 1 to 2000000000"),
        ("priority = 2000000001", "priority: 2000000001 is not a whole number from 1 to 2000000000"),
        ('priority = "1"', 'priority: "1" is not a whole number from 1 to 2000000000'),
        ('direction = "in"', 'direction: "in" is not one of "inbound", "outbound", "both"'),
        ('remote_port = ["70000"]', 'remote_port: "70000" is out of range: a port is 1 to 65535'),
        ("remote_port = [true]", 'remote_port: true is not a number or a range, as "6000-6999"'),
        ('local_port = "443"', 'local_port: "443" is not a list, as ["..."]'),
        ('local_port = ["90-80"]', 'local_port: "90-80" is turned round: "80-90" is the range'),
        ('remote_name = ["192.0.2.1"]', 'remote_name: "192.0.2.1" is an address: those stand in "remote"'),
        (
            'user = ["a b"]',
            'user: "a b" is not a user: a login name ("app"), an id ("1000") or a range of ids ("1000-1999")',
        ),
        ('time = "always"', 'time: "always" is not a table'),
        ('time = { from = "25:00" }', 'time.from: "25:00" is not a time of day, "00:00" to "24:00"'),
        ("time = { days = [] }", "time.days: an empty list says nothing: give at least one, or leave the key out"),
        (
            'time = { from = "08:00", to = "08:00" }',
            "time: from and to leave nothing between them: leave both out for the whole day",
        ),
        ('time = { until = "08:00" }', "time.until: unknown key; permitted: days, from, to, zone"),
        ('action = "modern"', 'action: "modern" is not an action of this file'),
        ("action = 3", 'action: 3 is not a text in quotes, as "..."'),
        ('action = { eof = "no" }', 'action.eof: "no" is not one of "strict", "lenient"'),
        ('programm = ["/a"]', 'programm: unknown key; did you mean "program"?'),
        ('verdict2 = "tls"', 'verdict2: unknown key; did you mean "verdict"?'),
    ],
)
def test_what_is_wrong_with_a_rule(problems, line, what):
    assert problems(f'[[rule]]\nname = "r"\nverdict = "deny"\n{line}\n') == [f'5: [rule "r"] {what}']


def test_elements_of_a_list_have_their_own_lines(problems):
    text = (
        '[[rule]]\nname = "r"\nverdict = "deny"\nremote = [\n  "192.0.2.0/24", # fine\n\n  "x",\n  "192.0.2.1/8",\n]\n'
    )
    first, second = problems(text)
    assert first.startswith('8: [rule "r"] remote: "x" is not an address')
    assert second.startswith('9: [rule "r"] remote: "192.0.2.1/8" has bits set behind its length: "192.0.0.0/8"')


def test_a_dangling_action_is_told_the_nearest_one(problems):
    text = '[[rule]]\nname = "r"\nverdict = "tls"\naction = "modren"\n[action.modern]\n'
    assert problems(text) == ['5: [rule "r"] action: "modren" is not an action of this file; did you mean "modern"?']


def test_rules_without_name_are_called_by_number(problems):
    assert problems('[[rule]]\nverdict = "deny"\n[[rule]]\nname = 3\nverdict = "deny"\n') == [
        "2: [rule 1] name: is missing",
        '5: [rule 2] name: 3 is not a text in quotes, as "..."',
    ]


def test_a_verdict_is_always_said(problems):
    assert problems('[[rule]]\nname = "r"\n') == ['2: [rule "r"] verdict: is missing']
    (problem,) = problems('[[rule]]\nname = "r"\nverdict = "TLS"\n')
    assert problem == '4: [rule "r"] verdict: "TLS" is not one of "tls", "clear", "deny"'


def test_names_of_rules_are_unique(problems):
    text = '[[rule]]\nname = "r"\nverdict = "deny"\n' * 2
    assert problems(text) == ['6: [rule "r"] name: "r" is the rule in line 2 already']


@pytest.mark.parametrize("text", ["rule = 3", "[rule]\nname = 'a'", "rule = [3]"])
def test_rules_are_tables(problems, text):
    (problem,) = problems(text)
    assert "is not a list of rules" in problem or "is not a table" in problem

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import lint
from policy.lint import covers, warnings
from policy.model import Match, NumberRange, Rule, TimeWindow, Verdict
from policy.names import glob
from policy.snapshot import build


def told(policy) -> list[str]:
    return [line.partition("policy.toml:")[2] for line in warnings(policy)]


def pair(load_text, first: str, second: str) -> list[str]:
    return told(
        load_text(
            f'[[rule]]\nname = "a"\nverdict = "deny"\n{first}\n[[rule]]\nname = "b"\nverdict = "clear"\n{second}\n'
        )
    )


SHADOWED = [
    ("", 'direction = "inbound"'),
    ('remote = ["10.0.0.0/8"]', 'remote = ["10.1.0.0/16", "10.2.0.1"]'),
    ('remote = ["10.0.0.0/9", "10.128.0.0/9"]', 'remote = ["10.0.0.0/8"]'),
    ('remote_port = ["1-100", "101-200"]', 'remote_port = ["50-150"]\ndirection = "inbound"'),
    ('program = ["/opt/*"]', 'program = ["/opt/app/run"]'),
    ('program = ["/opt/*"]', 'program = ["/opt/*"]'),
    ('remote_name = ["*"]', 'remote_name = ["*.example"]'),
    ('user = ["app", "0-999"]', 'user = ["5", "app"]'),
    ('time = { days = ["mon"] }', 'time = { days = ["mon"] }'),
    ("time = { }", 'time = { from = "08:00" }'),
]
NOT_SHADOWED = [
    ('direction = "inbound"', ""),
    ('remote = ["10.0.0.0/8"]', 'remote = ["10.0.0.0/8", "::1"]'),
    ('remote = ["10.0.0.0/8"]', 'direction = "inbound"'),
    ('remote = ["::/0"]', 'remote = ["10.0.0.1"]'),
    ('remote_port = ["1-100", "102-200"]', 'remote_port = ["50-150"]'),
    ('program = ["/opt/?"]', 'program = ["/opt/*"]'),
    ('user = ["app"]', 'user = ["1000"]'),
    ('time = { days = ["mon"] }', 'time = { days = ["tue"] }'),
]


@pytest.mark.parametrize(("first", "second"), SHADOWED)
def test_a_rule_that_never_matches_is_told(load_text, first, second):
    (line,) = pair(load_text, first, second)
    assert line.endswith('[rule "b"]: never matches: rule "a" comes first, and is about all that this one is about')


@pytest.mark.parametrize(("first", "second"), NOT_SHADOWED)
def test_a_rule_that_may_match_is_not(load_text, first, second):
    assert pair(load_text, first, second) == []


def test_priority_decides_what_comes_first(load_text):
    (line,) = pair(load_text, 'direction = "inbound"', "priority = 2")
    assert line.startswith('2: [rule "a"]: never matches: rule "b"')


def test_an_action_without_use_and_one_without_protection_are_told(load_text):
    text = """
[[rule]]
name = "a"
verdict = "clear"
remote_port = [1]
action = { }
[[rule]]
name = "b"
verdict = "tls"
direction = "outbound"
action = { keylog = "keys", verify = "none" }
"""
    unused, keylog, verify = told(load_text(text))
    assert unused == '3: [rule "a"] action: is not used: the verdict is "clear"'
    assert keylog.startswith('8: [rule "b"] keylog: whoever can read')
    assert verify == '8: [rule "b"] verify: with "none" anybody can be the server'


def test_every_rule_of_many_is_looked_at():
    rules = [Rule(str(port), Verdict.DENY, Match(remote_port=(NumberRange(port, port),))) for port in range(1, 5000)]
    last = Rule("late", Verdict.DENY, Match(remote_port=(NumberRange(7, 7),), user=("app",)))
    found = list(lint.shadowed(build([*rules, last], Verdict.CLEAR)))
    assert [(rule.name, earlier.name) for rule, earlier in found] == [("late", "7")]


KEYS = st.fixed_dictionaries(
    {},
    optional={
        "direction": st.sampled_from(["inbound", "outbound"]),
        "remote_port": st.sampled_from(
            [(NumberRange(1, 9),), (NumberRange(2, 3), NumberRange(5, 6)), (NumberRange(3, 3),)]
        ),
        "remote_name": st.sampled_from([(glob("*.a"),), (glob("x.a"),), (glob("*"),), (glob("?.a"), glob("b"))]),
        "user": st.sampled_from([("app",), ("root", "app"), (NumberRange(0, 5),), (NumberRange(3, 3),)]),
        "group": st.sampled_from([("app",), ("root", "app"), (NumberRange(0, 5),), (NumberRange(3, 3),)]),
        "time": st.sampled_from([TimeWindow(zone="UTC"), TimeWindow(frozenset({6}), 1320, 300)]),
    },
)


@given(st.lists(KEYS, max_size=12))
def test_what_shadows_is_found_as_by_comparing_all_pairs(keys):
    policy = build([Rule(str(number), Verdict.DENY, Match(**one)) for number, one in enumerate(keys)], Verdict.CLEAR)
    expected = [
        (rule.name, next((one.name for one in policy.rules[:number] if covers(one.match, rule.match)), None))
        for number, rule in enumerate(policy.rules)
    ]
    found = [(rule.name, earlier.name) for rule, earlier in lint.shadowed(policy)]
    assert found == [pair for pair in expected if pair[1] is not None]


RANGES = st.lists(
    st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda ends: NumberRange(min(ends), max(ends))), max_size=3
).map(tuple)


@given(RANGES, RANGES)
def test_covering_is_what_it_is_for_every_single_port(wide, narrow):
    def held(ranges) -> set[int]:
        every = range(1, 65536) if not ranges else [port for one in ranges for port in range(one.first, one.last + 1)]
        return set(every)

    assert covers(Match(remote_port=wide), Match(remote_port=narrow)) == (held(narrow) <= held(wide))

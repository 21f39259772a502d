"""The compiled rules decide as trying them one by one does."""

import datetime
import pickle

from hypothesis import given, settings
from hypothesis import strategies as st

from policy import names, values
from policy.classify import LEAF, Classifier
from policy.match import failing, subject
from policy.model import Facts, Match, NumberRange, Rule, TimeWindow, Verdict

ADDRESSES = ["10.0.0.1", "10.0.0.77", "10.9.0.1", "192.0.2.1", "2001:db8::5", "2001:db8::ff", "::1", "0.0.0.1"]
AREAS = [
    *("10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "10.0.0.70-10.9.0.0", "192.0.2.1", "0.0.0.0"),
    *("2001:db8::/64", "::/0", "2001:db8::1-2001:db8::6", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
]
NAMES = ["a.example", "b.a.example", "example", "other", "x.b.a.example"]
NAME_GLOBS = ["*.example", "a.example", "?.example", "*", "*.a.example", "*a.example", "b.*"]
PROGRAMS = ["/bin/a", "/bin/sub/a", "/opt/b", "/opt/sub/deep/b"]
PROGRAM_GLOBS = ["/bin/*", "/bin/a", "/opt/?", "/*/a", "/opt/sub/*", "/*", "*"]
UNITS = ["a.service", "a@1.service", "b.scope"]
UNIT_GLOBS = ["a.service", "a@1.service", "*.scope", "a*"]
DIRECTIONS = ["inbound", "outbound"]


def some(options, make):
    return st.just(()) | st.lists(st.sampled_from(options).map(make), min_size=1, max_size=3).map(tuple)


PORTS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda ends: NumberRange(min(ends), max(ends)))
PORT_LISTS = st.just(()) | st.lists(PORTS, min_size=1, max_size=2).map(tuple)
USERS = st.sampled_from(["app", "root", NumberRange(0, 0), NumberRange(1000, 1000), NumberRange(0, 999)])
MATCHES = st.builds(
    Match,
    direction=st.sampled_from([None, *DIRECTIONS]),
    local=some(AREAS, values.address_range),
    remote=some(AREAS, values.address_range),
    local_port=PORT_LISTS,
    remote_port=PORT_LISTS,
    remote_name=some(NAME_GLOBS, names.remote_name),
    program=some(PROGRAM_GLOBS, names.program),
    unit=some(UNIT_GLOBS, names.unit),
    user=st.just(()) | st.lists(USERS, min_size=1, max_size=2).map(tuple),
    group=st.just(()) | st.lists(USERS, min_size=1, max_size=2).map(tuple),
    time=st.sampled_from([None, None, TimeWindow(start=480, end=1080, zone="UTC")]),
)
FACTS = st.builds(
    Facts,
    direction=st.sampled_from(DIRECTIONS),
    remote=st.tuples(st.sampled_from(ADDRESSES), st.integers(0, 9)),
    local=st.none() | st.tuples(st.sampled_from(ADDRESSES), st.integers(0, 9)),
    when=st.sampled_from([datetime.datetime(2026, 1, 1, hour, tzinfo=datetime.UTC) for hour in (3, 12)]),
    remote_name=st.none() | st.sampled_from(NAMES),
    program=st.none() | st.sampled_from(PROGRAMS),
    user=st.sampled_from([None, "app", "root"]),
    uid=st.sampled_from([None, 0, 500, 1000]),
    gid=st.sampled_from([None, 0, 500]),
    groups=st.sampled_from([(), (1000,), (500, 1000)]),
    group_names=st.sampled_from([(), ("app",), ("root", "app")]),
    unit=st.none() | st.sampled_from(UNITS),
)


def as_rules(matches):
    return [Rule(f"rule {number}", Verdict.DENY, match) for number, match in enumerate(matches)]


@settings(max_examples=300)
@given(st.lists(MATCHES, max_size=60), st.lists(FACTS, min_size=1, max_size=20))
def test_the_first_rule_that_fits_is_found_whatever_the_rules(matches, connections):
    rules = as_rules(matches)
    classifier = Classifier(rules)
    for facts in connections:
        has = subject(facts)
        assert classifier.first(has) is next((rule for rule in rules if failing(rule.match, has) is None), None)


def test_many_rules_that_say_the_same_are_no_deep_tree():
    rules = as_rules([Match(remote_port=(NumberRange(1, 9),))] * (LEAF * 100))
    has = subject(Facts(direction="outbound", remote=("::1", 5), when=datetime.datetime.now(datetime.UTC)))
    assert Classifier(rules).first(has) is rules[0]


def test_it_can_be_handed_to_another_process():
    rules = as_rules([Match(remote=(values.address_range(area),)) for area in AREAS])
    has = subject(Facts(direction="outbound", remote=("::1", 5), when=datetime.datetime.now(datetime.UTC)))
    copy = pickle.loads(pickle.dumps(Classifier(rules)))
    assert copy.first(has) == Classifier(rules).first(has)

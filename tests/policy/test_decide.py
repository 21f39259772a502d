import fnmatch
import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policy.decide import decide
from policy.explain import explain
from policy.load import parse
from policy.model import Facts, Verdict

WHEN = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def facts(**changes) -> Facts:
    given: dict = {"direction": "outbound", "remote": ("192.0.2.9", 80), "when": WHEN}
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


def test_the_first_rule_that_fits_decides(load_text):
    policy = load_text(POLICY)
    decision = decide(policy, facts(remote=("192.0.2.5", 5432), remote_name="a.db.example"))
    assert (decision.verdict, decision.rule, decision.revision) == (Verdict.TLS, "database", policy.revision)
    assert decision.action is not None
    assert decision.action.eof == "lenient"
    assert decision.reason == 'rule "database" fits outbound to a.db.example (192.0.2.5) port 5432'


def test_deny_goes_before_by_priority(load_text):
    decision = decide(load_text(POLICY), facts(remote=("127.0.0.1", 23)))
    assert (decision.verdict, decision.rule) == (Verdict.DENY, "no telnet")


def test_a_rule_that_is_not_tls_has_no_action(load_text):
    decision = decide(load_text(POLICY), facts(direction="inbound", remote=("::1", 999), local=("::1", 22)))
    assert (decision.verdict, decision.action) == (Verdict.CLEAR, None)
    assert decision.reason == 'rule "local" fits inbound from ::1 to port 22'


@pytest.mark.parametrize("default", ["clear", "deny"])
def test_without_a_rule_the_default_decides(load_text, default):
    decision = decide(load_text(f'default = "{default}"\n{POLICY}'), facts())
    assert (decision.verdict, decision.action, decision.rule) == (default, None, None)
    assert decision.reason == f"no rule fits outbound to 192.0.2.9 port 80; the default is {default}"


@pytest.mark.parametrize("address", ["", "not an address"])
def test_a_connection_from_nowhere_is_denied(load_text, address):
    """What was sent before the peer went could still be read: clear text, where a rule about its address says TLS."""
    decision = decide(load_text(POLICY), facts(direction="inbound", remote=(address, 0)))
    assert (decision.verdict, decision.rule) == (Verdict.DENY, None)
    assert "not known" in decision.reason


def test_a_name_from_outside_cannot_break_the_line(load_text):
    decision = decide(load_text(POLICY), facts(remote_name='a"\n2026 forged'))
    assert "\n" not in decision.reason


# --- the same decision as one made in the plainest way ----------------------------------------------------------------

ADDRESSES = st.sampled_from(
    ["10.0.0.1", "10.0.0.77", "10.9.0.1", "::ffff:10.0.0.1", "2001:db8::5", "2001:db8::ffff", "::1"]
)
AREAS = st.sampled_from(
    [
        *("10.0.0.1", "10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "::ffff:10.0.0.0/121", "10.0.0.70-10.9.0.0"),
        *("2001:db8::/64", "::/0", "2001:db8::1-2001:db8::5"),
    ]
)
PORTS = st.integers(1, 6)
PORT_RANGES = st.tuples(PORTS, st.integers(7, 9)).map(lambda ends: f"{ends[0]}-{ends[1]}") | PORTS.map(str)
NAMES = st.sampled_from(["a.example", "b.a.example", "A.Example.", "other"])
NAME_GLOBS = st.sampled_from(["*.example", "a.example", "?.example", "*"])
PROGRAMS = st.sampled_from(["/bin/a", "/bin/sub/a", "/opt/b", "/bin/a (deleted)"])
PROGRAM_GLOBS = st.sampled_from(["/bin/*", "/bin/a", "/opt/?", "/*/a"])
USERS = st.sampled_from(["app", "root", "1000", "0-999"])
UNITS = st.sampled_from(["a.service", "a@1.service", "b.scope"])
UNIT_GLOBS = st.sampled_from(["a*.service", "*.scope", "a@?.service"])
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = st.sampled_from(["00:00", "08:00", "18:30", "23:00"])
TIMES = st.fixed_dictionaries(
    {"from": HOURS, "to": HOURS, "zone": st.sampled_from(["UTC", "Europe/Berlin"])},
    optional={"days": st.lists(st.sampled_from(DAYS), min_size=1, max_size=4, unique=True)},
).filter(lambda window: window["from"] != window["to"])


def some(values):
    return st.lists(values, max_size=3, unique=True)


RULES = st.lists(
    st.fixed_dictionaries(
        {"verdict": st.sampled_from(["clear", "deny"])},
        optional={
            "priority": st.integers(1, 3),
            "direction": st.sampled_from(["inbound", "outbound", "both"]),
            "local": some(AREAS),
            "local_port": some(PORT_RANGES),
            "remote": some(AREAS),
            "remote_port": some(PORT_RANGES),
            "remote_name": some(NAME_GLOBS),
            "program": some(PROGRAM_GLOBS),
            "user": some(USERS),
            "group": some(USERS),
            "unit": some(UNIT_GLOBS),
            "time": TIMES,
        },
    ),
    max_size=6,
)
FACTS = st.builds(
    Facts,
    direction=st.sampled_from(["inbound", "outbound"]),
    local=st.none() | st.tuples(ADDRESSES, PORTS),
    remote=st.tuples(ADDRESSES, PORTS),
    remote_name=st.none() | NAMES,
    program=st.none() | PROGRAMS,
    user=st.none() | st.sampled_from(["app", "root"]),
    uid=st.none() | st.sampled_from([0, 500, 1000, 2000]),
    gid=st.none() | st.sampled_from([0, 1000]),
    groups=st.sampled_from([(), (1000, 2000)]),
    group_names=st.sampled_from([(), ("app",), ("root", "app")]),
    unit=st.none() | UNITS,
    when=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)),
)


def plain(text: str):
    found = ipaddress.ip_address(text)
    return getattr(found, "ipv4_mapped", None) or found


def in_area(address, area: str) -> bool:
    """One address and one element of the language, by the library's own notions."""
    if "-" in area:
        low, high = map(plain, area.split("-"))
        return address.version == low.version and low <= address <= high
    if area.startswith("::ffff:"):
        area = area.removeprefix("::ffff:").replace("/121", "/25")
    network = ipaddress.ip_network(area)
    return address.version == network.version and address in network


def in_numbers(number, text: str) -> bool:
    low, _, high = text.partition("-")
    return low.isdigit() and number is not None and int(low) <= number <= int(high or low)


def in_time(when: datetime, window: dict) -> bool:
    from datetime import timedelta
    from zoneinfo import ZoneInfo

    local = when.astimezone(ZoneInfo(window["zone"]))
    clock, days = local.strftime("%H:%M"), window.get("days", DAYS)
    today, yesterday = DAYS[local.weekday()], DAYS[(local - timedelta(days=1)).weekday()]
    if window["from"] < window["to"]:
        return today in days and window["from"] <= clock < window["to"]
    return (today in days and clock >= window["from"]) or (yesterday in days and clock < window["to"])


def fits(rule: dict, has: Facts) -> bool:
    """What policies mean, with no thought of speed."""
    local, remote = has.local or (None, None), has.remote
    name = has.remote_name.lower().rstrip(".") if has.remote_name else None
    program = has.program.replace(" (deleted)", "") if has.program else None
    tests = {
        "direction": lambda wanted: wanted in ("both", has.direction),
        "local": lambda area: local[0] is not None and in_area(plain(local[0]), area),
        "local_port": lambda ports: in_numbers(local[1], ports),
        "remote": lambda area: in_area(plain(remote[0]), area),
        "remote_port": lambda ports: in_numbers(remote[1], ports),
        "remote_name": lambda glob: name is not None and fnmatch.fnmatchcase(name, glob),
        "program": lambda glob: program is not None and fnmatch.fnmatchcase(program, glob),
        "user": lambda user: has.user == user or in_numbers(has.uid, user),
        "group": lambda group: (
            group in has.group_names or any(in_numbers(gid, group) for gid in (has.gid, *has.groups))
        ),
        "unit": lambda glob: has.unit is not None and fnmatch.fnmatchcase(has.unit, glob),
        "time": lambda window: in_time(has.when, window),
    }
    for key, test in tests.items():
        wanted = rule.get(key) or []
        wanted = wanted if isinstance(wanted, list) else [wanted]
        if wanted and not any(map(test, wanted)):
            return False
    return True


def toml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {toml(held)}" for key, held in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return f'"{value}"'
    return str(value)


@settings(max_examples=300)
@example([{"verdict": "deny", "remote": ["::/0"]}], facts(remote=("::ffff:10.0.0.1", 1)), "clear")
@given(RULES, FACTS, st.sampled_from(["clear", "deny"]))
def test_decisions_are_those_of_the_plainest_reading(tmp_path_factory, rules, has, default):
    text = f'version = 1\ndefault = "{default}"\n'
    for number, rule in enumerate(rules):
        text += f'[[rule]]\nname = "{number}"\n' + "".join(f"{key} = {toml(value)}\n" for key, value in rule.items())
    policy = parse(text.encode(), tmp_path_factory.getbasetemp() / "policy.toml")

    order = sorted(range(len(rules)), key=lambda number: (-rules[number].get("priority", 1), number))
    first = next((number for number in order if fits(rules[number], has)), None)
    expected = (default, None) if first is None else (rules[first]["verdict"], str(first))

    decision = decide(policy, has)
    assert (decision.verdict, decision.rule) == expected
    lines = explain(policy, has).lines()
    assert lines[-1] == f"{decision.verdict}: {decision.reason}"
    assert len(lines) == 1 + (len(rules) if first is None else order.index(first) + 1)

"""When a TTLSRule holds."""

import pytest

from policy.attls.conditions import addresses, ports, times
from policy.attls.references import Library, Notes
from policy.attls.statements import read_statements

GROUP = "PortGroup g\n{\nPortRange { Port 1 }\nPortRangeRef p\n}\nPortRange p { Port 2 }"


def parsed(lines: str, more: str = ""):
    statements = read_statements(f"TTLSRule r\n{{\n{lines}\n}}\n{more}\n", "f")
    return statements[0], Library(statements, Notes())


@pytest.mark.parametrize(
    ("lines", "more", "expected"),
    [
        ("", "", None),
        ("LocalAddr 10.1.2.3", "", ["10.1.2.3"]),
        ("LocalAddr 10.0.0.1-10.0.0.9\nLocalAddr 10.1.0.0/16", "", ["10.0.0.1-10.0.0.9", "10.1.0.0/16"]),
        ("LocalAddr All6", "", ["::/0"]),
        ("LocalAddrRef a", "IpAddr a { Addr ::1 }", ["::1"]),
        ("LocalAddrGroupRef g", "IpAddrGroup g\n{\nIpAddrSet { Range 10.0.0.1 - 10.0.0.2 }\n}", ["10.0.0.1-10.0.0.2"]),
    ],
)
def test_addresses(lines, more, expected):
    rule, library = parsed(lines, more)
    assert addresses(rule, "Local", library) == expected
    assert library.notes.found == []


@pytest.mark.parametrize(
    ("lines", "more", "expected"),
    [
        ("RemotePortRange 0", "", None),
        ("RemotePortRange 1-65535", "", None),
        ("RemotePortRange 20 - 21", "", ["20-21"]),
        ("RemotePortRange 20 21", "", ["20-21"]),
        ("RemotePortGroupRef g", GROUP, ["1", "2"]),
    ],
)
def test_ports(lines, more, expected):
    rule, library = parsed(lines, more)
    assert ports(rule, "Remote", library) == expected


def test_what_is_no_address_is_noted():
    rule, library = parsed("RemoteAddr host.example")
    assert addresses(rule, "Remote", library) is None
    assert library.notes.found == [(3, "RemoteAddr host.example: not an address, a prefix or a range")]


def test_times_without_counterpart_are_noted():
    rule, library = parsed(
        "IpTimeConditionRef t", "IpTimeCondition t\n{\nDayOfWeekMask 1000001\nTimeZone UTC\nDayOfMonthMask 1\n}"
    )
    assert times(rule, library) == [{"days": ["sun", "sat"], "zone": "UTC"}]
    assert [what for _, what in library.notes.found] == [
        "DayOfMonthMask 1: no counterpart; the rule holds at those times too"
    ]


@pytest.mark.parametrize(("zone", "noted"), [("Local", 0), ("UTC", 0), ("EST5EDT", 1)])
def test_a_zone_that_is_not_known_is_named(zone, noted):
    rule, library = parsed("IpTimeConditionRef t", f"IpTimeCondition t\n{{\nTimeZone {zone}\n}}")
    assert times(rule, library) == [{"zone": "UTC"} if zone == "UTC" else {}]
    assert len(library.notes.found) == noted

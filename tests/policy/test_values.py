import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import PolicyError
from policy import values

ADDRESSES = st.ip_addresses()


def refused(check, value) -> str:
    with pytest.raises(PolicyError) as caught:
        check(value)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "version", "first", "last"),
    [
        ("192.0.2.1", 4, "192.0.2.1", "192.0.2.1"),
        ("192.0.2.0/24", 4, "192.0.2.0", "192.0.2.255"),
        ("192.0.2.1/32", 4, "192.0.2.1", "192.0.2.1"),
        ("0.0.0.0/0", 4, "0.0.0.0", "255.255.255.255"),
        ("192.0.2.1-192.0.2.9", 4, "192.0.2.1", "192.0.2.9"),
        ("192.0.2.1 - 192.0.2.9", 4, "192.0.2.1", "192.0.2.9"),
        ("2001:db8::1-2001:db8::ff", 6, "2001:db8::1", "2001:db8::ff"),
        ("2001:DB8::/32", 6, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("::/0", 6, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("::ffff:192.0.2.1", 4, "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.0/120", 4, "192.0.2.0", "192.0.2.255"),
        ("::ffff:192.0.2.1-192.0.2.9", 4, "192.0.2.1", "192.0.2.9"),
        ("::fffe:0:0/95", 6, "::fffe:0:0", "::ffff:ffff:ffff"),
    ],
)
def test_addresses_prefixes_and_ranges(text, version, first, last):
    found = values.address_range(text)
    ends = int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))
    assert (found.version, found.first, found.last) == (version, *ends)
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an address"),
        ("db.example", "is not an address"),
        ("192.0.2.256", "is not an address"),
        ("010.0.0.1", "is not an address"),
        ("1-2-3", "is not an address"),
        ("192.0.2.1-", "is not an address"),
        ("192.0.2.9-192.0.2.1", "turned round"),
        ("192.0.2.1-2001:db8::1", "mixes IPv4 and IPv6"),
        ("192.0.2.0/33", "a length from 0 to 32"),
        ("2001:db8::/129", "a length from 0 to 128"),
        ("192.0.2.1/24", '"192.0.2.0/24" is the prefix'),
        ("fe80::1%eth0", "has a zone"),
    ],
)
def test_what_is_no_range_of_addresses_says_what_would_be(text, why):
    message = refused(values.address_range, text)
    assert message.startswith(f'"{text}" ')
    assert why in message


@given(ADDRESSES)
def test_an_address_is_the_range_of_itself(given_address):
    found = values.address_range(str(given_address))
    assert found.first == found.last == values.address(str(given_address))[1]


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_the_address(given_address):
    assert values.address(f"::ffff:{given_address}") == (4, int(given_address))


def test_the_zone_of_a_connections_address_is_left_aside():
    assert values.address("fe80::1%eth0") == values.address("fe80::1")


def test_addresses_are_spelled_in_one_way():
    assert values.plain_address("2001:0DB8::0001") == "2001:db8::1"
    assert "zone" in refused(values.plain_address, "fe80::1%eth0")


@pytest.mark.parametrize(
    ("value", "first", "last"), [("443", 443, 443), (443, 443, 443), ("1-65535", 1, 65535), ("6000 - 6999", 6000, 6999)]
)
def test_ports_and_ranges(value, first, last):
    found = values.port_range(value)
    assert (found.first, found.last) == (first, last)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("http", "is not a port: 1 to 65535"),
        ("", "is not a port"),
        ("-1", "is not a port"),
        (-1, "is not a port"),
        ("1-2-3", "is not a port"),
        ("٣", "is not a port"),
        pytest.param(16**5000, "a huge number is not a port", id="huge"),
        ("0", "out of range"),
        (65536, "65536 is out of range: a port is 1 to 65535"),
        ("80-65536", "out of range"),
        ("90-80", 'turned round: "80-90" is the range'),
    ],
)
def test_what_is_no_port(value, why):
    assert why in refused(values.port_range, value)


@pytest.mark.parametrize("name", ["app", "svc-1", "first.last@corp.example", "CORP\\user", "www-data", "_apt", "host$"])
def test_login_names_are_taken_as_they_are(name):
    assert values.user(name) == name


@pytest.mark.parametrize(("value", "text"), [("0", "0"), (1000, "1000"), ("1000-1999", "1000-1999")])
def test_user_ids_and_ranges(value, text):
    assert str(values.user(value)) == text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "is not a user"),
        ("two words", "is not a user"),
        ("a:b", "is not a user"),
        ("app*", "is not a user"),
        ("x" * 257, "is not a user"),
        ("a\x1bb", "is not a user"),
        ("1999-1000", "turned round"),
        ("-5", "is not a user id"),
        ("4294967295", "out of range"),
    ],
)
def test_what_is_no_user(value, why):
    assert why in refused(values.user, value)


def test_groups_are_written_as_users_are():
    assert (values.group("wheel"), str(values.group("100-199")), str(values.group(27))) == ("wheel", "100-199", "27")
    assert "is not a group" in refused(values.group, "a b")
    assert "is not a group id" in refused(values.group, "-5")


@pytest.mark.parametrize(
    ("text", "numbers"), [("mon", [0]), ("mon-fri", [0, 1, 2, 3, 4]), ("Sat - Mon", [0, 5, 6]), ("wed-wed", [2])]
)
def test_days(text, numbers):
    assert sorted(values.days(text)) == numbers


@pytest.mark.parametrize("text", ["", "monday", "mon-", "-fri", "mon-fri-sun", "1"])
def test_what_is_no_day(text):
    assert "mon, tue" in refused(values.days, text)


@pytest.mark.parametrize(("text", "minutes"), [("00:00", 0), ("08:30", 510), ("23:59", 1439), ("24:00", 1440)])
def test_times_of_day(text, minutes):
    assert values.minutes(text) == minutes


@pytest.mark.parametrize("text", ["8:30", "24:01", "12:60", "0800", "", "08:30:00", "٠٨:٣٠"])
def test_what_is_no_time_of_day(text):
    assert "is not a time of day" in refused(values.minutes, text)


def test_zones_come_from_the_systems_database():
    assert values.zone("UTC") == "UTC"


@pytest.mark.parametrize("text", ["Nowhere/Town", "../../etc/passwd", "/etc/passwd", "America", "", "x" * 5000])
def test_what_is_no_zone(text):
    assert "time zone database" in refused(values.zone, text)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (600, 600), (1440, 10)])
def test_a_window_has_a_length(start, end):
    with pytest.raises(PolicyError, match="nothing between"):
        values.time_window(start=start, end=end)


def test_a_window_reads_as_it_would_be_said():
    window = values.time_window((values.days("mon-tue"),), 480, 1080, "UTC")
    assert str(window) == "mon,tue 08:00-18:00 UTC"
    assert str(values.time_window()) == "mon,tue,wed,thu,fri,sat,sun 00:00-24:00 local time"

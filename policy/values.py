"""Addresses, ports, users and times, from text to data. One function per kind; names are in policy/names.py.

Each returns what it read or raises PolicyError saying what is wrong and what is permitted; who calls adds the place.
"""

import ipaddress
import re
import socket

from ktls.errors import PolicyError
from policy.model import AddressRange, NumberRange, TimeWindow
from policy.problems import refuse

PORT_MAX = 65535
UID_MAX = 2**32 - 2  # the last one, -1, means "no change" to chown() and setuid()
USER_MAX = 256  # far above what login names are, domain included
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")


# --- addresses -------------------------------------------------------------------------------------------------------


def address(text: str) -> tuple[int, int]:
    """Read one IP address.

    Args:
        text: IPv4 or IPv6. A zone ("%eth0") is left aside; an IPv4-mapped IPv6 address is the IPv4 address.

    Returns:
        Version (4 or 6) and number.

    Raises:
        PolicyError: it is none.

    >>> address("::ffff:192.0.2.1") == address("192.0.2.1")
    True
    """
    host = text.partition("%")[0]
    number = _number(socket.AF_INET, host)
    if number is not None:
        return 4, number
    number = _number(socket.AF_INET6, host)
    if number is None:
        refuse(text, "is not an IP address")
    return (4, number & 0xFFFFFFFF) if number >> 32 == 0xFFFF else (6, number)


def _number(family: socket.AddressFamily, host: str) -> int | None:
    # Each connection's addresses come here, and the ipaddress module takes ten times as long.
    try:
        return int.from_bytes(socket.inet_pton(family, host))
    except (OSError, ValueError):
        return None


def plain_address(text: str) -> str:
    """Return an address in its usual spelling, as certificates are compared with.

    Raises:
        PolicyError: it is none, or one with a zone, which no certificate carries.

    >>> plain_address("2001:DB8:0::1")
    '2001:db8::1'
    """
    if "%" in text:
        refuse(text, "has a zone, which no certificate carries")
    version, number = address(text)
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def address_range(text: str) -> AddressRange:
    """Read an address, a prefix or a range.

    Args:
        text: "192.0.2.1", "2001:db8::/32" or "192.0.2.1-192.0.2.9".

    Raises:
        PolicyError: none of these, a range turned round or across families, a prefix with host bits.

    >>> address_range("10.0.0.0/8") == address_range("10.0.0.0-10.255.255.255")
    True
    """
    if "%" in text:
        refuse(text, "has a zone: rules know addresses only, so leave out what follows the %")
    if "/" in text:
        return _prefix(text)
    try:
        ends = [address(part.strip()) for part in text.split("-")]
    except PolicyError:
        ends = []
    if len(ends) not in (1, 2):
        refuse(text, 'is not an address ("192.0.2.1"), a prefix ("192.0.2.0/24") or a range ("192.0.2.1-192.0.2.9")')
    (version, first), (other, last) = ends[0], ends[-1]
    if version != other:
        refuse(text, "mixes IPv4 and IPv6: a range has both ends in one family")
    if first > last:
        refuse(text, "is turned round: the lower address comes first")
    return AddressRange(version, first, last, text)


def _prefix(text: str) -> AddressRange:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        bits = 128 if ":" in text else 32
        refuse(text, f'is not a prefix: an address, "/" and a length from 0 to {bits}')
    if network.network_address != ipaddress.ip_interface(text).ip:
        refuse(text, f'has bits set behind its length: "{network}" is the prefix')
    first, last = address(str(network.network_address)), address(str(network.broadcast_address))
    if first[0] != last[0]:  # as ::fffe:0:0/95, whose upper half are the IPv4-mapped addresses
        return AddressRange(6, int(network.network_address), int(network.broadcast_address), text)
    return AddressRange(first[0], first[1], last[1], text)


# --- numbers ---------------------------------------------------------------------------------------------------------


def _number_range(value: int | str, kind: str, lowest: int, highest: int) -> NumberRange:
    # A number of TOML may be too long for str().
    digits = value if isinstance(value, str) else str(value) if value.bit_length() <= 64 else ""
    found = re.fullmatch(r"([0-9]{1,10})(?: *- *([0-9]{1,10}))?", digits)
    if found is None:
        refuse(value, f'is not a {kind}: {lowest} to {highest}, or a range "a-b"')
    first, last = int(found[1]), int(found[2] or found[1])
    if not (lowest <= first <= highest and lowest <= last <= highest):
        refuse(value, f"is out of range: a {kind} is {lowest} to {highest}")
    if first > last:
        refuse(value, f'is turned round: "{last}-{first}" is the range')
    return NumberRange(first, last)


def port_range(value: int | str) -> NumberRange:
    """Read a port, as number or text, or a range of them.

    Raises:
        PolicyError: neither, out of range, or turned round.

    >>> str(port_range("6000-6999")), str(port_range(443))
    ('6000-6999', '443')
    """
    return _number_range(value, "port", 1, PORT_MAX)


def user(value: int | str) -> str | NumberRange:
    """Read a login name, a numeric user id, or a range of ids.

    Raises:
        PolicyError: neither; names are not looked up, since a policy may be for many machines.

    >>> user("app"), str(user("1000-1999"))
    ('app', '1000-1999')
    """
    return _name_or_ids(value, "user", "a login name")


def group(value: int | str) -> str | NumberRange:
    """Read a group's name, a numeric group id, or a range of ids.

    Raises:
        PolicyError: neither; names are not looked up.

    >>> group("wheel"), str(group(100))
    ('wheel', '100')
    """
    return _name_or_ids(value, "group", "a name")


def _name_or_ids(value: int | str, kind: str, name: str) -> str | NumberRange:
    if not isinstance(value, str) or re.fullmatch(r"[0-9][0-9\s-]*|-[0-9\s-]*", value):
        return _number_range(value, f"{kind} id", 0, UID_MAX)
    if not 0 < len(value) <= USER_MAX or re.search(r"[\s:/,*?]", value) or not value.isprintable():
        refuse(value, f'is not a {kind}: {name} ("app"), an id ("1000") or a range of ids ("1000-1999")')
    return value


# --- time ------------------------------------------------------------------------------------------------------------


def days(text: str) -> frozenset[int]:
    """Read a day of the week or a range of days, which may go past Sunday.

    Raises:
        PolicyError: it is neither.

    >>> sorted(days("sat-mon"))
    [0, 5, 6]
    """
    first, dash, last = (part.strip() for part in text.lower().partition("-"))
    if first not in DAYS or (dash and last not in DAYS):
        refuse(text, f'is not a day: {", ".join(DAYS)}, or a range as "mon-fri"')
    start, end = DAYS.index(first), DAYS.index(last or first)
    return frozenset((start + step) % 7 for step in range((end - start) % 7 + 1))


def minutes(text: str) -> int:
    """Read a time of day.

    Returns:
        Minutes after midnight.

    Raises:
        PolicyError: it is none.

    >>> minutes("08:30")
    510
    """
    if not _TIME.fullmatch(text):
        refuse(text, 'is not a time of day, "00:00" to "24:00"')
    return int(text[:2]) * 60 + int(text[3:])


def zone(text: str) -> str:
    """Check the name of a time zone.

    Raises:
        PolicyError: the system's time zone database has none of that name.
    """
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - costs as much as the rest of the language; few policies need it

    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # not there; not a name or not such a file; a directory
        refuse(text, 'is not in the system\'s time zone database; a zone is called as "Europe/Berlin" or "UTC"')
    return text


def time_window(
    day_sets: tuple[frozenset[int], ...] = (), start: int = 0, end: int = 1440, zone: str | None = None
) -> TimeWindow:
    """Put a window together.

    Args:
        day_sets: days of the week; none for all.
        start: minutes after midnight.
        end: minutes after midnight; below `start` it is on the next day.
        zone: as checked.

    Raises:
        PolicyError: it has no length.
    """
    if start in (end, 1440):
        raise PolicyError("from and to leave nothing between them: leave both out for the whole day")
    held = frozenset().union(*day_sets) if day_sets else frozenset(range(7))
    text = f"{','.join(DAYS[day] for day in sorted(held))} {_clock(start)}-{_clock(end)} {zone or 'local time'}"
    return TimeWindow(held, start, end, zone, text)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"

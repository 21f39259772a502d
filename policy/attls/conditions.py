"""When a TTLSRule holds: addresses, ports, direction, user and times, as keys of a rule."""

import re
from collections.abc import Iterator

from policy.attls.references import Library
from policy.attls.statements import Parameter, Statement

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # of DayOfWeekMask, the first digit is Sunday
_ENDS = ("addr", "addrref", "addrsetref", "addrgroupref", "portrange", "portrangeref", "portgroupref")
KNOWN = frozenset(
    {
        *("direction", "priority", "jobname", "userid", "iptimeconditionref", "iptimeconditiongroupref"),
        *(f"{end}{what}" for end in ("local", "remote") for what in _ENDS),
    }
)
"""Parameters of a TTLSRule that are looked at here, in lower case."""


def addresses(rule: Statement, end: str, library: Library) -> list[str] | None:
    """Translate LocalAddr..., RemoteAddr...

    Args:
        rule: the TTLSRule.
        end: "Local" or "Remote".
        library: of the file.

    Returns:
        Addresses, prefixes and ranges; None for any.
    """
    found: list[str] = []
    for parameter in rule.every(f"{end}Addr"):
        found += _address(parameter, library)
    for kind, key in (
        ("IpAddr", f"{end}AddrRef"),
        ("IpAddrSet", f"{end}AddrSetRef"),
        ("IpAddrGroup", f"{end}AddrGroupRef"),
    ):
        for parameter in rule.every(key):
            for one in _named(library, kind, parameter):
                found += _members(one, library)
    return found or None


def _named(library: Library, kind: str, parameter: Parameter) -> Iterator[Statement]:
    return library.within(
        Statement("", "", parameter.line, [Parameter(f"{kind}Ref", parameter.words, parameter.line)]), kind
    )


def _members(statement: Statement, library: Library) -> list[str]:
    """All addresses of an IpAddr, IpAddrSet or IpAddrGroup."""
    found: list[str] = []
    for parameter in statement.every("Addr", "Prefix", "Range"):
        found += _address(parameter, library)
    for kind in ("IpAddr", "IpAddrSet", "IpAddrGroup"):
        for one in library.within(statement, kind):
            found += _members(one, library)
    return found


def _address(parameter: Parameter, library: Library) -> list[str]:
    text = "".join(parameter.words)
    match text.upper():
        case "ALL":
            return ["0.0.0.0/0", "::/0"]
        case "ALL4":
            return ["0.0.0.0/0"]
        case "ALL6":
            return ["::/0"]
    if re.fullmatch(r"[0-9A-Fa-f.:]+(/\d+)?(-[0-9A-Fa-f.:]+)?", text):
        return [text]
    library.notes.add(parameter.line, f"{parameter.key} {text}: not an address, a prefix or a range")
    return []


def ports(rule: Statement, end: str, library: Library) -> list[str] | None:
    """Translate LocalPortRange..., RemotePortRange...; None for any. Port 0 stands for any."""
    found = [_port(parameter) for parameter in rule.every(f"{end}PortRange")]
    for kind, key in (("PortRange", f"{end}PortRangeRef"), ("PortGroup", f"{end}PortGroupRef")):
        for parameter in rule.every(key):
            for one in _named(library, kind, parameter):
                found += _port_members(one, library)
    return None if not found or any(port in ("0", "1-65535") for port in found) else found


def _port_members(statement: Statement, library: Library) -> list[str]:
    found = [_port(parameter) for parameter in statement.every("Port")]
    for one in library.within(statement, "PortRange"):
        found += _port_members(one, library)
    return found


def _port(parameter: Parameter) -> str:
    return re.sub(r"\s*-\s*|\s+", "-", " ".join(parameter.words).strip())


def times(rule: Statement, library: Library) -> list[dict[str, object]]:
    """Translate IpTimeCondition...: one time a rule; several make several rules."""
    conditions = list(library.within(rule, "IpTimeCondition"))
    for group in library.within(rule, "IpTimeConditionGroup"):
        conditions += library.within(group, "IpTimeCondition")
    return [_time(one, library) for one in conditions]


def _time(condition: Statement, library: Library) -> dict[str, object]:
    time: dict[str, object] = {}
    mask = condition.value("DayOfWeekMask")
    if mask is not None and re.fullmatch("[01]{7}", mask) and "1" in mask:
        time["days"] = [day for day, held in zip(DAYS, mask, strict=True) if held == "1"]
    hours = re.fullmatch(r"(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)", condition.value("TimeOfDayRange") or "")
    if hours:
        time["from"], time["to"] = f"{int(hours[1]):02}:{hours[2]}", f"{int(hours[3]):02}:{hours[4]}"
    zone = (condition.value("TimeZone") or "Local").upper()
    if zone == "UTC":
        time["zone"] = "UTC"
    for parameter in condition.parameters:
        known = {"dayofweekmask": "days", "timeofdayrange": "from", "timezone": "zone"}.get(parameter.key.lower())
        if known is None or (known not in time and not (known == "zone" and zone == "LOCAL")):
            words = " ".join((parameter.key, *parameter.words))
            library.notes.add(parameter.line, f"{words}: no counterpart; the rule holds at those times too")
    return time

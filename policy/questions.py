"""Connections as administrators write them, in options, expectation files and records: text to `Facts` and back.

A question names what is known of a connection: direction, remote "10.1.2.3:5432", program and so on. The rest is not
known, which no condition fits.
"""

import grp
import pwd
from collections.abc import Mapping
from datetime import UTC, datetime

from ktls.errors import PolicyError
from policy.model import Direction, Endpoint, Facts
from policy.problems import quote, refuse
from policy.values import PORT_MAX, address

KEYS = ("direction", "remote", "local", "remote_name", "program", "user", "group", "unit", "at")
"""What a question may say; the first two it must."""


def read_question(said: Mapping[str, object], now: datetime | None = None) -> Facts:
    """Read a question.

    Args:
        said: text by key of `KEYS`; a missing or empty one is not known.
        now: the time where it says none; the clock's when missing too.

    Raises:
        PolicyError: a key is unknown, missing or wrong.

    >>> read_question({"direction": "outbound", "remote": "10.1.2.3:5432"}).remote
    ('10.1.2.3', 5432)
    """
    for key in said:
        if key not in KEYS:
            refuse(key, f"is no part of a connection; those are {', '.join(KEYS)}")
    text = {key: str(value) for key, value in said.items() if value not in (None, "")}
    for key in KEYS[:2]:
        if key not in text:
            raise PolicyError(f"{key} is missing: a connection has at least a direction and a remote end")
    name, uid = _user(text.get("user"))
    groups, gids = _groups(text.get("group"))
    return Facts(
        direction=_direction(text["direction"]),
        remote=read_endpoint(text["remote"]),
        local=read_endpoint(text["local"]) if "local" in text else None,
        remote_name=text.get("remote_name"),
        program=text.get("program"),
        user=name,
        uid=uid,
        groups=gids,
        group_names=groups,
        unit=text.get("unit"),
        when=_time(text["at"]) if "at" in text else now or datetime.now(UTC),
    )


def _direction(text: str) -> Direction:
    words: dict[str, Direction] = {"inbound": "inbound", "outbound": "outbound"}
    if text not in words:
        refuse(text, 'is no direction: "inbound" was accepted, "outbound" was connected')
    return words[text]


def read_endpoint(text: str) -> Endpoint:
    """Read an address and a port.

    Raises:
        PolicyError: it is not of the form "192.0.2.1:443" or "[2001:db8::1]:443".

    >>> read_endpoint("[::1]:80")
    ('::1', 80)
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= PORT_MAX) or (":" in host and host[:1] != "["):
        refuse(text, 'is not an address and a port, as "192.0.2.1:443" or "[2001:db8::1]:443"')
    host = host.removeprefix("[").removesuffix("]")
    address(host)
    return host, int(port)


def write_endpoint(end: Endpoint) -> str:
    """Write an address and a port as `read_endpoint` reads them.

    >>> write_endpoint(("::1", 80))
    '[::1]:80'
    """
    host, port = end
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _user(text: str | None) -> tuple[str | None, int | None]:
    """A login name or a number, and the other where this machine knows it."""
    if text is None:
        return None, None
    try:
        entry = pwd.getpwuid(int(text)) if text.isascii() and text.isdigit() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        return (None, int(text)) if text.isascii() and text.isdigit() else (text, None)
    return entry.pw_name, entry.pw_uid


def _groups(text: str | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names or numbers with commas between them, and the others where this machine knows them."""
    names, numbers = [], []
    for one in text.split(",") if text else ():
        said = one.strip()
        try:
            entry = grp.getgrgid(int(said)) if said.isascii() and said.isdigit() else grp.getgrnam(said)
        except (KeyError, OverflowError):
            numbers += [int(said)] if said.isascii() and said.isdigit() else []
            names += [] if said.isascii() and said.isdigit() else [said]
        else:
            names.append(entry.gr_name)
            numbers.append(entry.gr_gid)
    return tuple(names), tuple(numbers)


def _time(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise PolicyError(f'{quote(text)} is no time, as "2026-01-05T12:00" or "2026-01-05T12:00+01:00"') from error
    return when.astimezone() if when.tzinfo is None else when

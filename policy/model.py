"""A policy as data: what `policy.load` makes of a file and `policy.decide` looks at. Immutable.

The defaults of the language are the defaults of these classes, and stand nowhere else.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from policy.identities import NO_KEYRING, Keyring, UserMapping

if TYPE_CHECKING:
    from datetime import datetime

Direction = Literal["inbound", "outbound"]  # accepted, connected
Mode = Literal["enforce", "observe"]
Endpoint = tuple[str, int]  # IP address as text, and port


class Verdict(StrEnum):
    """What policy decides for a connection."""

    TLS = "tls"
    CLEAR = "clear"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Resumption:
    """Whether sessions may be resumed; `lifetime` of a ticket is in seconds."""

    tickets: bool = True
    lifetime: int = 7200


@dataclass(frozen=True, slots=True)
class Rekey:
    """When to update our keys: after so many records, or seconds (0: time does not matter)."""

    records: int = 16_777_216
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """How a connection is protected; docs/policy.md has the meaning of each key.

    Args:
        name: what rules call it; empty for one written inside a rule.
        keyring: resolved; the one without a certificate that trusts the system's store when none is named.
        min_version: of TLS, as max_version.
        ciphers: IANA names in order; empty for what the engine can do.
        alpn: protocol names in order.
        peer_name: the name the server's certificate must carry; None for what the program resolved, or the address.
        peer_identities: as written, "SHA256:" ones in lower case hex without colons; any one suffices.
        users: who is which local user, where `client_auth` is "map"; the first that fits counts.
        handshake_timeout: in seconds.
        allow_clear_on_timeout: a server whose client stays silent that long goes on in clear.
        negotiate: the clear-text prologue to speak first; empty for none.
        keylog: file for session secrets.
    """

    name: str = ""
    keyring: Keyring = NO_KEYRING
    role: Literal["auto", "client", "server"] = "auto"
    min_version: Literal["1.2", "1.3"] = "1.2"
    max_version: Literal["1.2", "1.3"] = "1.3"
    ciphers: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ()
    verify: Literal["name", "chain", "none"] = "name"
    peer_name: str | None = None
    client_auth: Literal["none", "passthru", "full", "required", "map"] = "none"
    peer_identities: tuple[str, ...] = ()
    users: tuple[UserMapping, ...] = ()
    handshake_timeout: float = 10.0
    allow_clear_on_timeout: bool = False
    engine: Literal["auto", "nic", "kernel", "relay", "no-nic"] = "auto"
    application_controlled: bool = False
    negotiate: Literal["", "smtp", "ftp", "postgres", "ldap", "xmpp"] = ""
    already_tls: Literal["adopt", "pass", "deny"] = "pass"  # "adopt" when it is available
    resumption: Resumption = Resumption()
    rekey: Rekey = Rekey()
    on_change: Literal["keep", "rekey", "drain", "close"] = "keep"
    secondary: bool = False
    eof: Literal["strict", "lenient"] = "strict"
    keylog: Path | None = None


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses of one family, both ends included. IPv4-mapped IPv6 addresses are IPv4 here.

    Args:
        version: 4 or 6.
        first: the lowest, as a number.
        last: the highest.
        text: as written.
    """

    version: int
    first: int
    last: int
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Ports or user ids, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Glob:
    """A text in which "*" stands for any run of characters and "?" for any one.

    Args:
        text: as written.
        regex: the same, compiled; None for a text without either, which stands for itself.
    """

    text: str
    regex: re.Pattern[str] | None = field(compare=False, repr=False)

    def matches(self, text: str) -> bool:
        """Tell whether the whole of a text is one that this stands for."""
        return text == self.text if self.regex is None else self.regex.match(text) is not None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """When a rule holds, in local time of `zone`.

    Args:
        days: of the week, Monday is 0.
        start: minutes after midnight, included.
        end: minutes after midnight, excluded; not above `start` for a window that ends on the next day.
        zone: IANA name; None for the machine's own time.
        text: as written, for people.
    """

    days: frozenset[int] = frozenset(range(7))
    start: int = 0
    end: int = 1440
    zone: str | None = None
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Match:
    """Which connections a rule is about: those that fit every key; an empty key fits all.

    Args:
        direction: None for both.
        user: names, and ranges of numeric ids; `group` likewise.
        keys: those that are not empty, in the order of the fields. Made here.
    """

    direction: Direction | None = None
    local_port: tuple[NumberRange, ...] = ()
    remote_port: tuple[NumberRange, ...] = ()
    local: tuple[AddressRange, ...] = ()
    remote: tuple[AddressRange, ...] = ()
    remote_name: tuple[Glob, ...] = ()
    program: tuple[Glob, ...] = ()
    user: tuple[str | NumberRange, ...] = ()
    group: tuple[str | NumberRange, ...] = ()
    unit: tuple[Glob, ...] = ()
    time: TimeWindow | None = None
    keys: tuple[str, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        given = tuple(name for name in self.__slots__ if name != "keys" and getattr(self, name))
        object.__setattr__(self, "keys", given)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `line` is where it starts in its file, 0 for none; `action` is there when the verdict is TLS."""

    name: str
    verdict: Verdict
    match: Match = Match()
    action: Action | None = None
    priority: int = 1
    line: int = field(default=0, compare=False)


class Finder(Protocol):
    """What finds the rules that fit a `policy.match.Subject`: `policy.classify.Classifier`."""

    def first(self, has: Any) -> Rule | None:  # noqa: ANN401 - Subject is made of what is here
        """Return the first, or None."""

    def every(self, has: Any) -> Iterable[Rule]:  # noqa: ANN401 - as above
        """Return all."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A compiled policy; make it with `policy.snapshot.build`.

    Args:
        rules: in the order in which they are tried.
        default: the verdict where no rule matches: CLEAR or DENY.
        revision: changes when what the policy says does, and not with comments, layout or defaults written out.
        file: where it came from, for messages.
        classifier: finds the first of the rules that fits.
        mode: with "observe" connections are decided and recorded, and stay clear.
        content: SHA-256 of the file as it was read, in hexadecimal; empty where there was none.
    """

    rules: tuple[Rule, ...]
    default: Verdict
    revision: str
    file: str = field(compare=False)
    classifier: Finder = field(compare=False, repr=False)
    mode: Mode = "enforce"
    content: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a connection when it is decided. None is not known, and fits no condition.

    Args:
        direction: inbound or outbound.
        local: our end.
        remote: the other end.
        remote_name: what the program resolved to that address.
        program: path of the executable.
        user: login name of its effective user.
        uid: number of its effective user.
        gid: number of its effective group.
        groups: numbers of its other groups.
        group_names: names of all of them.
        unit: systemd unit.
        when: now, with a time zone.
    """

    direction: Direction
    remote: Endpoint
    when: "datetime"
    local: Endpoint | None = None
    remote_name: str | None = None
    program: str | None = None
    user: str | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    group_names: tuple[str, ...] = ()
    unit: str | None = None

"""Rules from a record: what the programs of this machine were seen to do, written as a policy to be read and changed.

Connections are put together by program, direction and port; what they have in common becomes a rule, the rest (how
many, whose, to where) a comment. Nothing is decided here: a person reads it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from policy.model import Facts
from policy.problems import quote
from policy.records import Record

ADDRESSES_MAX = 16  # of a rule; more become no condition, and a comment
NAMES_MAX = 8  # shown in a comment

Group = tuple[str, str, int]
"""Direction, program and port: the server's, which for an accepted connection is ours."""


@dataclass(slots=True)
class Seen:
    """What the connections of a group were."""

    count: int = 0
    peers: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)


def suggest(records: Iterable[Record]) -> str:
    """Write a policy.

    Args:
        records: of connections.

    Returns:
        TOML: a rule for each program, direction and port, the most used first.
    """
    groups: dict[Group, Seen] = defaultdict(Seen)
    for record in records:
        note(groups[group_of(record.facts)], record.facts)
    ordered = sorted(groups.items(), key=lambda item: (-item[1].count, item[0]))
    total = sum(seen.count for seen in groups.values())
    head = f"""\
# Suggested from {total} recorded connections. Read every rule: what was seen is not yet what should be.
# A server needs a keyring with a certificate; `ktls policy check` tells what is missing.
version = 1
default = "clear"

[action.tls]
min_version = "1.2"
"""
    return head + "".join(_rule(number, group, seen) for number, (group, seen) in enumerate(ordered, 1))


def group_of(facts: Facts) -> Group:
    """Tell to which group a connection belongs."""
    end = facts.remote if facts.direction == "outbound" else facts.local
    return facts.direction, facts.program or "", end[1] if end else 0


def note(seen: Seen, facts: Facts) -> None:
    """Add a connection to its group."""
    seen.count += 1
    seen.peers[facts.remote[0]] += 1
    if facts.remote_name:
        seen.names[facts.remote_name] += 1
    if facts.user:
        seen.users[facts.user] += 1
    seen.groups.update(facts.group_names)


def _rule(number: int, group: Group, seen: Seen) -> str:
    direction, program, port = group
    times = "once" if seen.count == 1 else f"{seen.count} times"
    whose = _among("as", seen.users) + _among("in group", seen.groups)
    lines = ["", f"# Seen {times}{whose}{_among('by the name', seen.names)}."]
    lines += ["[[rule]]", f"name = {quote(_name(number, group))}", f'direction = "{direction}"']
    if port:
        lines.append(f'{"remote" if direction == "outbound" else "local"}_port = ["{port}"]')
    if program:
        lines.append(f"program = [{quote(program, len(program))}]")
    areas = _areas(seen.peers)
    if direction == "outbound" and len(areas) <= ADDRESSES_MAX:
        lines.append(f"remote = [{', '.join(map(quote, areas))}]")
    elif direction == "outbound":
        lines.append(f"# remote: {len(seen.peers)} addresses, too many to name")
    lines += ['verdict = "tls"' if direction == "outbound" else 'verdict = "clear"  # "tls" once it has a keyring']
    if direction == "outbound":
        lines.append('action = "tls"')
    return "\n".join(lines) + "\n"


def _name(number: int, group: Group) -> str:
    direction, program, port = group
    called = "".join(filter(str.isprintable, program.rpartition("/")[2][:40])).strip() or "unknown program"
    return f"{number} {called} {'to' if direction == 'outbound' else 'on'} port {port}"


def _areas(peers: Iterable[str]) -> list[str]:
    plain = [ip_network(peer.partition("%")[0]) for peer in peers]
    nets: list[IPv4Network | IPv6Network] = [
        *collapse_addresses(net for net in plain if isinstance(net, IPv4Network)),
        *collapse_addresses(net for net in plain if isinstance(net, IPv6Network)),
    ]
    return [str(net.network_address) if net.num_addresses == 1 else str(net) for net in nets]


def _among(word: str, counted: Counter[str]) -> str:
    if not counted:
        return ""
    shown = [quote(name)[1:-1] for name, _ in counted.most_common(NAMES_MAX)]
    more = len(counted) - len(shown)
    return f", {word} {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"

"""Many rules as sites have them, and connections to try them on: the same ones every time."""

import datetime
import ipaddress
import random

from policy import names, values
from policy.model import AddressRange, Facts, Match, NumberRange, Rule, TimeWindow, Verdict

SERVICES = (5432, 443, 6379, 3306, 8080, 11211, 27017, 1883)
NOW = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC)


def many_rules(count: int) -> list[Rule]:
    """Two thirds are about addresses, a sixth about names, the rest about programs; most have a port, some a user."""
    chance = random.Random(count)
    return [Rule(f"rule {number}", _verdict(chance), _match(chance)) for number in range(count)]


def _verdict(chance: random.Random) -> Verdict:
    return chance.choice([Verdict.CLEAR, Verdict.DENY])


def _match(chance: random.Random) -> Match:
    keys: dict = {}
    kind = chance.random()
    if kind < 0.67:
        keys["remote"] = tuple({_area(chance) for _ in range(chance.choice([1, 1, 1, 3]))})
    elif kind < 0.84:
        keys["remote_name"] = (names.remote_name(chance.choice(["", "*."]) + f"host{chance.randrange(20000)}.example"),)
    if chance.random() < 0.2 or not keys:
        path = chance.choice(["/usr/bin/program{}", "/opt/app{}/*"])
        keys["program"] = (names.program(path.format(chance.randrange(5000))),)
    keys["direction"] = chance.choice(["inbound", "outbound", "outbound", None])
    if chance.random() < 0.75:
        first = chance.choice([*SERVICES, chance.randrange(1, 60000)])
        last = first if chance.random() < 0.8 else first + chance.randrange(500)
        keys["local_port" if keys["direction"] == "inbound" else "remote_port"] = (NumberRange(first, last),)
    if chance.random() < 0.15:
        keys["user"] = (
            chance.choice([f"user{chance.randrange(500)}", NumberRange(1000 + chance.randrange(500), 1600)]),
        )
    if chance.random() < 0.03:
        keys["time"] = TimeWindow(frozenset(range(5)), 480, 1080)
    return Match(**keys)


def _area(chance: random.Random) -> AddressRange:
    if chance.random() < 0.8:
        length = chance.choice([32, 32, 32, 28, 24, 24, 16])
        number = chance.getrandbits(32) >> (32 - length) << (32 - length)
        return values.address_range(f"{ipaddress.IPv4Address(number)}/{length}")
    length = chance.choice([128, 64, 64, 48])
    number = (0x20010DB8 << 96 | chance.getrandbits(96)) >> (128 - length) << (128 - length)
    return values.address_range(f"{ipaddress.IPv6Address(number)}/{length}")


def connections(rules: list[Rule], count: int) -> list[Facts]:
    """Half of them aim at a rule, by address, name or program; the others come from anywhere."""
    chance = random.Random(count)
    return [_facts(chance, chance.choice(rules).match) for _ in range(count)]


def _facts(chance: random.Random, match: Match) -> Facts:
    area = match.remote[0] if match.remote else None
    number = chance.randint(area.first, area.last) if area else chance.getrandbits(32)
    address = ipaddress.IPv6Address(number) if area and area.version == 6 else ipaddress.IPv4Address(number)
    port = match.remote_port[0].first if match.remote_port and chance.random() < 0.8 else chance.choice(SERVICES)
    return Facts(
        direction=chance.choice(["inbound", "outbound"]),
        remote=(str(address), port),
        local=("10.0.0.1", match.local_port[0].first if match.local_port else 40000),
        when=NOW,
        remote_name=match.remote_name[0].text.replace("*", "a") if match.remote_name else None,
        program=match.program[0].text.replace("*", "bin/x") if match.program else "/usr/bin/psql",
        user=f"user{chance.randrange(500)}",
        uid=chance.randrange(900, 1700),
    )

"""What is fuzzed: each takes any bytes and raises when something does not hold that must."""

from collections.abc import Callable

from tests.fuzz.handshakes import handshake, relay
from tests.fuzz.parsers import headers, messages, policies, records

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (records, messages, headers, policies, handshake, relay)
}

"""Whatever bytes come, and in whatever pieces, the handshake driver gives events that make sense."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktls.ciphers import Role
from ktls.environment import Environment
from ktls.errors import KtlsError
from ktls.handshake import Established, Failed, Handshake, NeedBytes, SendBytes, State
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_peer import run, stdlib_client, stdlib_server
from tests.ktls.handshake_world import VERSIONS, client

FUZZ = settings(max_examples=150, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def fuzzed(world) -> dict[Role, Environment]:
    return {Role.CLIENT: world.as_client(), Role.SERVER: world.as_server(client_auth="full", alpn=("h2",))}


def feed_all(driver: Handshake, data: bytes) -> None:
    """Only events come out, they make sense, and a driver that has ended stays so."""
    events = driver.start()
    for chunk in (data[:3], data[3:]):
        if driver.state not in (State.ESTABLISHED, State.FAILED):
            events = driver.receive(chunk)
        assert isinstance(events[-1], NeedBytes | Failed)
        assert all(isinstance(event, SendBytes) for event in events[:-1])
    if isinstance(events[-1], Failed):
        assert isinstance(hp.failure(events), KtlsError)
        assert driver.state is State.FAILED


@FUZZ
@given(role=st.sampled_from(Role), data=st.binary(max_size=400))
def test_any_bytes_give_events(fuzzed, role, data):
    feed_all(Handshake(fuzzed[role], server_name="localhost"), data)


@FUZZ
@given(
    role=st.sampled_from(Role),
    kind=st.sampled_from([20, 21, 22, 23]),
    message=st.integers(0, 255),
    body=st.binary(max_size=300),
)
def test_any_handshake_message_gives_events(fuzzed, role, kind, message, body):
    content = bytes([message]) + len(body).to_bytes(3) + body
    feed_all(Handshake(fuzzed[role], server_name="localhost"), bytes([kind, 3, 3]) + len(content).to_bytes(2) + content)


@FUZZ
@given(
    role=st.sampled_from(Role),
    version=st.sampled_from(VERSIONS),
    place=st.integers(0, 4000),
    flip=st.integers(1, 255),
    cut=st.integers(0, 3),
)
def test_a_flight_changed_on_its_way_gives_events(world, fuzzed, role, version, place, flip, cut):
    if role is Role.CLIENT:
        peer = stdlib_server(world.ec, version)
    else:
        peer = stdlib_client(world.ca_file, version=version, pair=world.client)
    passed = 0

    def change(data: bytes) -> bytes:
        nonlocal passed
        at, passed = place - passed, passed + len(data)
        if not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] ^ flip]) + data[at + 1 + cut :]

    outcome = run(Handshake(fuzzed[role], server_name="localhost"), peer, change=change)
    assert (outcome.session is None) != (outcome.error is None)


@FUZZ
@given(version=st.sampled_from(VERSIONS), cuts=st.lists(st.integers(1, 3000), max_size=10))
def test_how_the_bytes_come_makes_no_difference(world, version, cuts):
    sizes = iter([*cuts, *([1 << 20] * 1000)])
    outcome = run(
        client(world, version), stdlib_server(world.ec, version), lambda count, wire: min(next(sizes), len(wire))
    )
    kinds = [type(event) for event in outcome.events if not isinstance(event, NeedBytes)]
    assert kinds == [SendBytes, SendBytes, Established]

"""Handshakes that fail: clear text, alerts from either end, ends of file, time, records that do not fit."""

import pytest

from ktls.ciphers import Role, Version, by_iana
from ktls.errors import ClearTextError, HandshakeTimeout, PeerAlert, PeerClosed, ProtocolError, RecordOverflow
from ktls.handshake import Failed, Handshake, NeedBytes, SendBytes, State
from ktls.records import RecordReader
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_peer import StdlibPeer, run, stdlib_client, stdlib_server, told
from tests.ktls.handshake_world import BOTH, FEEDS, client, only


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad", b"GET / HT", b"220 hi\r\n", b"\x16\x05rest", b"\x80\x2e\x01\x00\x02"]
)
@pytest.mark.parametrize("feed", FEEDS)
def test_clear_text_is_told_from_the_first_bytes(world, role, data, feed):
    driver = Handshake(world.as_client() if role is Role.CLIENT else world.as_server(), server_name="localhost")
    events = driver.start()
    while isinstance(events[-1], NeedBytes):
        size = feed(events[-1].count, data)
        events, data = driver.receive(data[:size]), data[size:]
    assert type(hp.failure(events)) is ClearTextError
    assert events[0] == SendBytes(bytes.fromhex("15030300020 20a".replace(" ", "")))


@BOTH
def test_an_alert_from_the_server_is_told(world, version):
    """A server that refuses: no suite in common."""
    suite = by_iana("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
    peer = stdlib_server(world.ec, Version.TLS12)
    outcome = run(client(world, Version.TLS12, suites=(suite,)), peer)
    assert type(outcome.failed) is PeerAlert
    assert "handshake failure" in str(outcome.failed)
    assert outcome.events[-1] == Failed(outcome.failed)
    assert len([event for event in outcome.events if isinstance(event, SendBytes)]) == 1  # no alert in answer


@BOTH
def test_an_alert_from_the_client_is_told(world, version):
    peer = stdlib_client(None, version=version)  # trusts nobody
    outcome = run(Handshake(world.as_server(**only(version))), peer)
    assert type(outcome.failed) is PeerAlert
    assert "unknown ca" in str(outcome.failed)


def test_no_version_in_common_is_a_protocol_error_with_openssls_words(world):
    peer = stdlib_client(world.ca_file, version=Version.TLS12)
    outcome = run(Handshake(world.as_server(**only(Version.TLS13))), peer)
    assert type(outcome.failed) is ProtocolError
    assert "unsupported protocol" in str(outcome.failed)
    assert "alert protocol version" in told(peer)


@pytest.mark.parametrize("role", Role)
def test_end_of_file_is_peer_closed(world, role):
    driver = Handshake(world.as_client() if role is Role.CLIENT else world.as_server(), server_name="localhost")
    driver.start()
    events = driver.receive_eof()
    assert type(hp.failure(events)) is PeerClosed
    assert "before it said anything" in str(hp.failure(events))


@BOTH
def test_end_of_file_in_the_middle_is_peer_closed(world, version):
    driver, peer = client(world, version), stdlib_server(world.ec, version)
    flight = peer.step(hp.sent(driver.start()))
    driver.receive(flight[:-10])
    events = driver.receive_eof()
    assert type(hp.failure(events)) is PeerClosed
    assert "during" in str(hp.failure(events))


def test_a_close_notify_in_the_middle_is_peer_closed(world):
    driver = client(world)
    driver.start()
    events = driver.receive(bytes.fromhex("15030300020100"))
    assert type(hp.failure(events)) is PeerClosed


def test_time_out_fails_at_any_moment_and_keeps_an_earlier_reason(world):
    for prepare in (lambda driver: None, lambda driver: driver.start()):
        driver = client(world)
        prepare(driver)
        events = driver.time_out()
        assert type(hp.failure(events)) is HandshakeTimeout
        assert driver.time_out() == events
    driver = client(world)
    driver.start()
    events = driver.receive_eof()
    assert driver.time_out() == events
    driver = client(world)
    run(driver, stdlib_server(world.ec))
    assert type(hp.failure(driver.time_out())) is HandshakeTimeout  # the last flight cannot be sent
    assert driver.state is State.FAILED


def test_a_record_too_long_is_alerted_as_such(world):
    driver = client(world)
    driver.start()
    events = driver.receive(bytes.fromhex("160303ffff"))
    assert type(hp.failure(events)) is RecordOverflow
    assert events[0] == SendBytes(bytes.fromhex("15030300020216"))


def disturb(driver: Handshake, peer: StdlibPeer, records: int) -> bytes:
    """Let so many of the peer's records through, then garbage; returns the alert, before which the peer has had all."""
    reader = RecordReader()
    events = driver.start()
    while records:
        reader.feed(peer.step(hp.sent(events)))
        events = []
        while records and (record := reader.next_record()) is not None:
            events += driver.receive(record)
            records -= 1
    peer.step(hp.sent(events))
    events = driver.receive(b"\xff" * 5)
    assert type(hp.failure(events)) is ProtocolError
    return hp.sent(events)


@BOTH
def test_a_server_disturbed_in_the_middle_sends_an_alert_that_the_peer_can_open(world, version):
    """In TLS 1.3 it is protected by then, with the application key."""
    peer = stdlib_client(world.ca_file, version=version)
    alert = disturb(Handshake(world.as_server(**only(version))), peer, 1)
    assert alert[0] == (21 if version is Version.TLS12 else 23)
    peer.step(alert)
    assert "internal error" in told(peer)


@pytest.mark.parametrize(("version", "records"), [(Version.TLS12, 2), (Version.TLS12, 4), (Version.TLS13, 2)])
def test_a_client_disturbed_in_the_middle_sends_an_alert_that_the_peer_can_open(world, version, records):
    """In clear before our first protected record and protected after it, as OpenSSL's own are."""
    peer = stdlib_server(world.ec, version)
    alert = disturb(client(world, version), peer, records)
    assert len(alert) == (31 if records == 4 else 7)
    peer.step(alert)
    assert "internal error" in told(peer)


def test_a_resuming_server_disturbed_before_the_clients_finished_sends_a_protected_alert(world):
    environment = world.as_server(**only(Version.TLS12))
    first = stdlib_client(world.ca_file, version=Version.TLS12)
    run(Handshake(environment), first)
    peer = StdlibPeer(first.context, server_side=False, hostname="localhost", session=first.tls.session)
    peer.step(disturb(Handshake(environment), peer, 1))
    assert "internal error" in told(peer)


def test_a_flood_is_cut_off(world):
    """Empty change_cipher_specs cost OpenSSL nothing, but not for ever."""
    driver, peer = client(world, Version.TLS13), stdlib_server(world.ec, Version.TLS13)
    flight = peer.step(hp.sent(driver.start()))
    driver.receive(flight[: 5 + int.from_bytes(flight[3:5])])
    record = bytes.fromhex("140303000101")
    events = []
    for _ in range(200_000):
        events = driver.receive(record)
        if isinstance(events[-1], Failed):
            break
    assert isinstance(hp.failure(events), ProtocolError)

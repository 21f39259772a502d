"""The kernel binding and the probe on a kernel that has kTLS."""

import os
import socket

import pytest

from ktls import kernel
from ktls.alerts import CLOSE_NOTIFY, Alert, AlertDescription, AlertLevel
from ktls.ciphers import SUITES, Role, Version
from ktls.errors import BadRecord, ProtocolError, RecordOverflow
from ktls.kernel_errors import (
    AlreadyAttached,
    KeysRefused,
    NotAttached,
    NotEstablished,
    NotKeyed,
    NotTcp,
    RekeyNeeded,
    RekeyUnsupported,
    SendBroken,
)
from ktls.records import ContentType
from ktls.session import MAX_SEQUENCE, Session
from tests.lab.harness import (
    ALERT,
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    TICKET,
    error_of,
    make_keys,
    needs_rekey,
    no_rekey,
    receiving,
)

pytestmark = pytest.mark.qemu
IPPROTO_MPTCP = 262


# --- attach ----------------------------------------------------------------------------------------------------------


def test_attach_is_seen_by_query_and_by_copies(connect):
    link = connect(attached=False, keyed=False)
    assert not kernel.is_attached(link.end)
    kernel.attach(link.end)
    with link.end.dup() as copy:
        assert kernel.is_attached(copy)
    assert kernel.query(link.end) == kernel.KernelState(attached=True)


def test_attaching_twice_is_named(connect):
    with pytest.raises(AlreadyAttached):
        kernel.attach(connect(keyed=False).end)


def test_a_socket_that_is_not_connected_is_named():
    with socket.socket() as sock, pytest.raises(NotEstablished):
        kernel.attach(sock)


def test_a_socket_without_tcp_is_named():
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(NotTcp):
        kernel.attach(sock)


def test_mptcp_is_named():
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError as error:
        pytest.skip(f"no MPTCP: {error.strerror}")
    with sock, pytest.raises(NotTcp):
        kernel.attach(sock)


# --- install ---------------------------------------------------------------------------------------------------------


def test_each_cipher_carries_data_both_ways(cipher_link):
    cipher_link.put(DATA, b"to the kernel")
    assert cipher_link.recv() == b"to the kernel"
    cipher_link.end.sendall(b"from the kernel")
    assert cipher_link.take().data == b"from the kernel"


def test_install_puts_in_a_whole_session(connect, version):
    link = connect(version, keyed=False)
    kernel.install(link.end, Session(role=Role.SERVER, version=version, suite=link.suite, tx=link.tx, rx=link.rx))
    link.put(DATA, b"in")
    assert link.recv() == b"in"
    link.end.send(b"out")
    assert link.take().data == b"out"


def test_keys_before_attach_are_named(connect):
    link = connect(attached=False, keyed=False)
    with pytest.raises(NotAttached):
        kernel.install_tx(link.end, link.tx)


def test_another_cipher_than_the_other_direction_is_named(connect):
    link = connect(keyed=False)
    kernel.install_tx(link.end, link.tx)
    other = next(suite for suite in SUITES if link.version in suite.versions and suite != link.suite)
    with pytest.raises(KeysRefused):
        kernel.install_rx(link.end, receiving(make_keys(other, link.version)))
    kernel.install_rx(link.end, link.rx)  # it may be tried again


def test_a_second_set_of_keys_in_tls12_is_named(link12):
    with pytest.raises(RekeyUnsupported):
        kernel.install_tx(link12.end, make_keys(link12.suite, Version.TLS12))
    with pytest.raises(RekeyUnsupported):
        kernel.install_rx(link12.end, receiving(make_keys(link12.suite, Version.TLS12)))


@no_rekey
def test_a_rekey_that_the_kernel_cannot_do_is_named(link13):
    with pytest.raises(RekeyUnsupported):
        kernel.install_tx(link13.end, link13.tx.updated())


@needs_rekey
def test_rekeying_both_ways(link13):
    link13.put(HANDSHAKE, KEY_UPDATE)
    assert link13.record() == (HANDSHAKE, KEY_UPDATE)
    rx = link13.updated_from_peer()
    link13.put(DATA, b"under the next keys")
    with pytest.raises(RekeyNeeded):
        kernel.read_record(link13.end)
    kernel.install_rx(link13.end, rx)
    assert link13.record() == (DATA, b"under the next keys")
    kernel.send_record(link13.end, HANDSHAKE, KEY_UPDATE)
    kernel.install_tx(link13.end, link13.tx.updated())
    assert link13.take().data == KEY_UPDATE
    link13.end_was_updated()
    link13.end.send(b"answer")
    assert link13.take().data == b"answer"


# --- records ---------------------------------------------------------------------------------------------------------


def test_records_come_with_their_type(link):
    for content_type, data in ((DATA, b"data"), (HANDSHAKE, TICKET), (ALERT, b"\1\0")):
        link.put(content_type, data)
        record = kernel.read_record(link.end)
        assert (record.content_type, record.data, record.end_of_record) == (content_type, data, True)
        assert isinstance(record.content_type, ContentType)


def test_a_control_record_read_in_parts_says_where_it_ends(link):
    link.put(HANDSHAKE, TICKET)
    parts = [kernel.read_record(link.end, 5), kernel.read_record(link.end, 5)]
    assert [(part.content_type, part.end_of_record) for part in parts] == [(HANDSHAKE, False), (HANDSHAKE, True)]
    assert parts[0].data + parts[1].data == TICKET


def test_the_end_of_file_is_no_record(link):
    link.peer_finishes()
    assert kernel.read_record(link.end).is_end


def test_reading_never_waits_nor_changes_the_sockets_flags(link):
    with pytest.raises(BlockingIOError):
        kernel.read_record(link.end)
    assert os.get_blocking(link.end.fileno())


def test_a_tampered_record_is_named(link):
    record = bytearray(link.seal(DATA, b"data"))
    record[-1] ^= 1
    link.put_raw(bytes(record))
    with pytest.raises(BadRecord):
        kernel.read_record(link.end)
    with pytest.raises(SendBroken):
        kernel.send_alert(link.end, CLOSE_NOTIFY)


@pytest.mark.parametrize(
    ("header", "leaf"), [("1703037fff", RecordOverflow), ("1709090020", ProtocolError), ("1703030001", BadRecord)]
)
def test_a_malformed_header_is_named(link, header, leaf):
    link.put_raw(bytes.fromhex(header) + bytes(8))  # in TLS 1.2 the kernel waits for the explicit nonce, too
    with pytest.raises(leaf) as caught:
        kernel.read_record(link.end)
    assert type(caught.value) is leaf


def test_alerts_and_records_arrive_with_their_type(link):
    kernel.send_alert(link.end, Alert(AlertLevel.FATAL, AlertDescription.INTERNAL_ERROR))
    assert kernel.send_record(link.end, HANDSHAKE, b"h" * 16384) == 16384
    taken = link.take()
    assert (taken.content_type, taken.data) == (ALERT, b"\2P")
    assert link.take().data == b"h" * 16384


def test_nothing_goes_out_in_clear_where_keys_are_missing(connect):
    link = connect(keyed=False)
    with pytest.raises(NotKeyed):
        kernel.send_alert(link.end, CLOSE_NOTIFY)
    kernel.install_rx(link.end, link.rx)
    with pytest.raises(NotKeyed):
        kernel.send_alert(link.end, CLOSE_NOTIFY)


def test_the_last_sequence_number_is_named(connect):
    link = connect(keyed=False)
    kernel.install_tx(link.end, link.tx.at(MAX_SEQUENCE))
    with pytest.raises(SendBroken):
        kernel.send_alert(link.end, CLOSE_NOTIFY)


def test_no_room_is_a_blocking_error(link):
    while not error_of(kernel.send_record, link.end, DATA, bytes(16384)):
        pass
    with pytest.raises(BlockingIOError):
        kernel.send_record(link.end, DATA, b"one more")


# --- drain -----------------------------------------------------------------------------------------------------------


def test_draining_takes_what_is_not_data_and_leaves_data(link):
    link.put(HANDSHAKE, TICKET)
    link.put(HANDSHAKE, TICKET)
    link.put(DATA, b"data")
    link.put(ALERT, b"\1\0")
    assert [record.data for record in kernel.drain_control_records(link.end)] == [TICKET, TICKET]
    assert kernel.drain_control_records(link.end) == ()
    assert link.recv() == b"data"
    assert [record.content_type for record in kernel.drain_control_records(link.end)] == [ALERT]


def test_draining_leaves_an_empty_data_record_and_what_follows(link13):
    link13.put(DATA, b"")
    link13.put(DATA, b"data")
    kernel.drain_control_records(link13.end)
    assert link13.recv() == b"data"


def test_draining_nothing_and_draining_the_end(link):
    assert kernel.drain_control_records(link.end) == ()
    link.put(ALERT, b"\1\0")
    link.peer_finishes()
    assert len(kernel.drain_control_records(link.end)) == 1
    assert kernel.drain_control_records(link.end) == ()


def test_draining_is_bounded(link):
    for _ in range(kernel.DRAIN_MAX + 1):
        link.put(HANDSHAKE, TICKET)
    assert len(kernel.drain_control_records(link.end)) == kernel.DRAIN_MAX
    assert len(kernel.drain_control_records(link.end)) == 1


def test_draining_tells_of_a_broken_record(link):
    link.put_raw(b"\x17\x03\x03\0\x20" + bytes(32))
    with pytest.raises(BadRecord):
        kernel.drain_control_records(link.end)


@needs_rekey
def test_draining_stops_at_a_key_update(link13):
    link13.put(HANDSHAKE, KEY_UPDATE)
    link13.put(DATA, b"not to be had")
    assert [record.data for record in kernel.drain_control_records(link13.end)] == [KEY_UPDATE]

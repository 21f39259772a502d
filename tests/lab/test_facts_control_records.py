"""What reads meet at a control record, and how records of different types keep apart (TLS 1.2 and 1.3 alike)."""

import errno
import os
import select
import socket
from pathlib import Path

import pytest

from ktls import kernel
from tests.lab.harness import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, TICKET, Blocked, error_of, poll

pytestmark = pytest.mark.qemu

READS = {
    "read": lambda sock: os.read(sock.fileno(), 100),
    "recv": lambda sock: sock.recv(100),
    "recvfrom": lambda sock: sock.recvfrom(100),
    "readv": lambda sock: os.readv(sock.fileno(), [bytearray(10), bytearray(90)]),
    "preadv2": lambda sock: os.preadv(sock.fileno(), [bytearray(100)], -1),
    "recvmsg": lambda sock: sock.recvmsg(100),
    "recvmsg, 8 bytes of control": lambda sock: sock.recvmsg(100, 8),
    "recvmsg, 16 bytes of control": lambda sock: sock.recvmsg(100, 16),
    "recv, MSG_PEEK": lambda sock: sock.recv(100, socket.MSG_PEEK),
    "recv, MSG_DONTWAIT": lambda sock: sock.recv(100, socket.MSG_DONTWAIT),
    "recv, MSG_WAITALL": lambda sock: sock.recv(100, socket.MSG_WAITALL),
}
CONTROL_TYPES = (20, 21, 22, 24, 100)  # heartbeat and numbers that nobody defined, too


def splice(sock, size=100):
    """Move from the socket into a pipe (os.splice came with Python 3.10): what it was."""
    reading, writing = os.pipe()
    try:
        return os.read(reading, os.splice(sock.fileno(), writing, size))
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_every_plain_read_of_a_control_record_is_eio_for_good(link, call):
    link.put(HANDSHAKE, TICKET)
    link.put(DATA, b"behind it")
    assert [error_of(call, link.end) for _ in range(3)] == [errno.EIO] * 3
    assert link.record() == (HANDSHAKE, TICKET)
    assert link.recv() == b"behind it"


@pytest.mark.parametrize("number", CONTROL_TYPES)
def test_every_type_but_data_is_a_control_record(link, number):
    link.put_type(number, b"content")
    assert error_of(link.recv) == errno.EIO
    assert link.record() == (number, b"content")


def test_a_read_of_no_bytes_is_0_at_a_control_record(link):
    link.put(HANDSHAKE, TICKET)
    assert link.recv(0) == b""
    assert error_of(link.recv) == errno.EIO


def test_splice_from_a_control_record_is_einval_for_good(link):
    link.put(HANDSHAKE, TICKET)
    assert [error_of(splice, link.end) for _ in range(2)] == [errno.EINVAL] * 2
    assert link.record() == (HANDSHAKE, TICKET)


@pytest.mark.parametrize("content_type", [DATA, HANDSHAKE])
def test_sendfile_from_the_socket_is_einval_as_on_plain_tcp(link, content_type):
    link.put(content_type, b"content")
    with Path(os.devnull).open("wb") as out:
        assert error_of(os.sendfile, out.fileno(), link.end.fileno(), None, 100) == errno.EINVAL


def test_a_blocked_read_gets_eio_when_a_control_record_comes(link):
    reader = Blocked(lambda: link.end.recv(100), "tls_sw_recvmsg")
    link.put(HANDSHAKE, TICKET)
    assert reader.join() == errno.EIO


def test_a_blocked_read_with_control_space_gets_the_record(link):
    reader = Blocked(lambda: link.end.recvmsg(100, 24)[:2], "tls_sw_recvmsg")
    link.put(HANDSHAKE, TICKET)
    assert reader.join() == (TICKET, [(kernel.SOL_TLS, kernel.TLS_GET_RECORD_TYPE, bytes([HANDSHAKE]))])


def test_a_control_record_may_be_read_in_parts_each_with_its_type(link):
    link.put(HANDSHAKE, TICKET)
    first, second = kernel.read_record(link.end, 4), kernel.read_record(link.end)
    assert (first.content_type, first.data, first.end_of_record) == (HANDSHAKE, TICKET[:4], False)
    assert (second.content_type, second.data, second.end_of_record) == (HANDSHAKE, TICKET[4:], True)


def test_the_outer_type_of_tls13_says_nothing(link13):
    record = link13.put(HANDSHAKE, TICKET)
    assert record[0] == DATA
    assert link13.record() == (HANDSHAKE, TICKET)


# --- mixing ----------------------------------------------------------------------------------------------------------


def test_one_read_never_mixes_types(link):
    link.put(DATA, b"1234")
    link.put(DATA, b"5678")
    link.put(ALERT, CLOSE_NOTIFY)
    link.put(DATA, b"more")
    assert link.recv() == b"12345678"
    assert error_of(link.recv) == errno.EIO
    assert link.record() == (ALERT, CLOSE_NOTIFY)
    assert link.recv() == b"more"


def test_control_records_are_not_joined(link):
    link.put(HANDSHAKE, b"one")
    link.put(HANDSHAKE, b"two")
    assert [link.record(), link.record()] == [(HANDSHAKE, b"one"), (HANDSHAKE, b"two")]


def test_waitall_ends_at_a_control_record(link):
    link.put(DATA, b"1234")
    link.put(HANDSHAKE, TICKET)
    assert link.end.recv(100, socket.MSG_WAITALL) == b"1234"


def test_data_records_are_joined_by_recv_and_not_by_splice(link):
    for _ in range(2):
        link.put(DATA, b"one")
        link.put(DATA, b"two")
    assert splice(link.end) == b"one"
    assert splice(link.end) == b"two"
    assert link.recv() == b"onetwo"


def test_peek_spans_data_records_and_stops_at_another_type(link):
    for content_type, data in ((DATA, b"one"), (DATA, b"two"), (HANDSHAKE, TICKET), (DATA, b"three")):
        link.put(content_type, data)
    for _ in range(2):
        assert link.recv(100, socket.MSG_PEEK) == b"onetwo"
    assert link.recv() == b"onetwo"
    assert link.record() == (HANDSHAKE, TICKET)
    assert link.recv() == b"three"


def test_an_empty_data_record_is_legal_and_unseen(link):
    link.put(DATA, b"one")
    link.put(DATA, b"")
    link.put(DATA, b"two")
    got = link.recv()
    if got != b"onetwo":
        got += link.recv()
    assert got == b"onetwo"
    assert error_of(link.recv) == errno.EAGAIN


def test_an_empty_data_record_alone_is_not_taken_for_the_end(link13):
    link13.put(DATA, b"")
    assert error_of(link13.recv) == errno.EAGAIN
    link13.put(DATA, b"data")
    assert poll(link13.end) & select.POLLIN
    assert link13.recv() == b"data"


def test_padding_is_taken_off(link13):
    link13.put(DATA, b"short", padding=1000)
    assert link13.recv() == b"short"


def test_a_record_of_the_greatest_length(link):
    link.put(DATA, b"x" * 16384)
    assert link.recv() == b"x" * 16384


def test_a_poll_that_reports_a_control_record_is_a_busy_loop_for_plain_readers(link):
    link.put(ALERT, CLOSE_NOTIFY)
    for _ in range(3):
        assert poll(link.end) == select.POLLIN
        assert error_of(link.recv) == errno.EIO


def test_io_by_pieces_of_a_vector_stays_within_the_data(link):
    link.put(DATA, b"0123456789")
    link.put(HANDSHAKE, TICKET)
    parts = [bytearray(4), bytearray(100)]
    assert os.readv(link.end.fileno(), parts) == 10
    assert (bytes(parts[0]), bytes(parts[1][:6])) == (b"0123", b"456789")

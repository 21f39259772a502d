"""What poll and epoll report."""

import errno
import select
import socket

import pytest

from tests.lab.harness import (
    ALERT,
    CAPABILITIES,
    CLOSE_NOTIFY,
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    TICKET,
    error_of,
    needs_rekey,
    poll,
)

pytestmark = pytest.mark.qemu
ENDED = select.POLLIN | select.POLLRDHUP

partial_is_in = pytest.mark.skipif(not CAPABILITIES.poll_partial_record, reason="poll waits for whole records here")
partial_is_silent = pytest.mark.skipif(CAPABILITIES.poll_partial_record, reason="poll reports partial records here")


@pytest.fixture
def edges(link):
    """Call it for the events of an edge-triggered epoll since the last call."""
    with select.epoll() as epoll:
        epoll.register(link.end, select.EPOLLIN | select.EPOLLET)
        yield lambda: [events for _, events in epoll.poll(0)]


@partial_is_in
def test_poll_reports_part_of_a_record_that_no_read_can_have(link):
    link.put_raw(link.seal(DATA, b"in two parts")[:8])
    assert poll(link.end) == select.POLLIN
    assert error_of(link.recv) == errno.EAGAIN
    assert poll(link.end) == select.POLLIN


@partial_is_silent
def test_poll_waits_for_a_whole_record(link):
    record = link.seal(DATA, b"in two parts")
    for byte in range(len(record) - 1):
        link.put_raw(record[byte : byte + 1])
    assert poll(link.end) == 0
    link.put_raw(record[-1:])
    assert poll(link.end) == select.POLLIN


@partial_is_in
def test_poll_says_in_for_ever_after_an_error_in_a_header(link):
    link.put_raw(b"220 ready, and more than a header")
    assert error_of(link.recv) == errno.EINVAL
    for _ in range(3):
        assert error_of(link.recv) == errno.EAGAIN
        assert poll(link.end) & select.POLLIN


@pytest.mark.parametrize("content_type", [DATA, HANDSHAKE, ALERT])
def test_records_of_every_type_are_readable(link, content_type):
    assert poll(link.end) == 0
    link.put(content_type, b"content")
    assert poll(link.end) == select.POLLIN
    link.record()
    assert poll(link.end) == 0


def test_what_is_decrypted_already_is_readable(link):
    link.put(DATA, b"0123456789")
    link.recv(4)
    assert poll(link.end) == select.POLLIN
    link.recv()
    assert poll(link.end) == 0


def test_the_peers_fin_shows_through_whatever_is_queued(link):
    link.put(DATA, b"data")
    link.put(ALERT, CLOSE_NOTIFY)
    link.peer_finishes()
    assert poll(link.end) == ENDED
    assert link.recv() == b"data"
    assert poll(link.end) == ENDED
    assert error_of(link.recv) == errno.EIO
    assert poll(link.end) == ENDED
    assert link.record() == (ALERT, CLOSE_NOTIFY)
    assert poll(link.end) == ENDED
    assert link.recv() == b""


def test_a_broken_header_is_an_error_to_poll(link):
    link.put_raw(b"220 ready, and more than a header")
    assert poll(link.end) & select.POLLERR


def test_edges_one_for_what_is_queued_and_one_after_the_eio(link, edges):
    link.put(DATA, b"1234")
    link.put(HANDSHAKE, TICKET)
    link.put(DATA, b"5678")
    assert len(edges()) == 1
    assert link.recv() == b"1234"
    assert error_of(link.recv) == errno.EIO


def test_edges_none_after_a_control_record_is_drained_though_data_waits(link, edges):
    link.put(HANDSHAKE, TICKET)
    link.put(DATA, b"data")
    assert len(edges()) == 1
    assert error_of(link.recv) == errno.EIO
    edges()
    assert link.record() == (HANDSHAKE, TICKET)
    assert edges() == []  # whoever drained it must read on in the same call
    assert link.recv() == b"data"


def test_edges_one_for_the_install_over_queued_data(connect, version):
    link = connect(version, keyed=False)
    with select.epoll() as epoll:
        link.put(DATA, b"before the keys")
        epoll.register(link.end, select.EPOLLIN | select.EPOLLET)
        assert len(epoll.poll(0)) == 1
        link.install()
        assert len(epoll.poll(0)) == 1
    assert link.recv() == b"before the keys"


def test_select_agrees_with_poll(link):
    assert select.select([link.end], [], [], 0)[0] == []
    link.put(DATA, b"x")
    assert select.select([link.end], [], [], 0)[0] == [link.end]


def test_a_full_send_buffer_is_not_writable(link):
    while not error_of(link.end.send, bytes(16384), socket.MSG_DONTWAIT):
        pass
    assert select.select([], [link.end], [], 0)[1] == []


@needs_rekey
def test_poll_is_silent_from_a_key_update_to_the_next_keys(link13):
    link13.put(HANDSHAKE, KEY_UPDATE)
    assert poll(link13.end) == select.POLLIN
    assert error_of(link13.recv) == errno.EIO
    assert poll(link13.end) == 0

"""How a connection ends: close_notify, FIN and RST, and what is left of queued records."""

import errno
import select
import socket

import pytest

from ktls import kernel
from ktls.alerts import CLOSE_NOTIFY as CLOSING
from tests.lab.harness import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, TICKET, error_of, poll, until

pytestmark = pytest.mark.qemu


def how_it_ends(link):
    """What the peer meets after our close(): "FIN" or "RST"."""
    link.end.close()
    try:
        assert link.peer.recv(1) == b""
    except ConnectionResetError:
        return "RST"
    return "FIN"


def test_data_close_notify_and_fin(link):
    link.put(DATA, b"x")
    link.put(ALERT, CLOSE_NOTIFY)
    link.peer_finishes()
    assert link.recv() == b"x"
    assert [error_of(link.recv) for _ in range(2)] == [errno.EIO] * 2
    assert link.record() == (ALERT, CLOSE_NOTIFY)
    assert link.recv() == b""


def test_what_follows_close_notify_is_parsed_as_tls_at_once(link):
    link.put(ALERT, CLOSE_NOTIFY)
    link.put_raw(b"220 clear text again")
    assert link.record() == (ALERT, CLOSE_NOTIFY)
    assert poll(link.end) & select.POLLERR
    assert error_of(link.recv) == errno.EINVAL


def test_an_alert_is_only_a_record_to_the_kernel(link):
    link.put(ALERT, b"\2\50")
    link.put(DATA, b"it goes on")
    assert link.record() == (ALERT, b"\2\50")
    assert link.recv() == b"it goes on"


# --- close() ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [DATA, HANDSHAKE, ALERT])
def test_close_with_an_unread_record_of_any_type_is_a_reset(link, content_type):
    link.put(content_type, b"content")
    assert how_it_ends(link) == "RST"


def test_close_after_the_eio_without_draining_is_fin(link):
    link.put(HANDSHAKE, TICKET)
    assert error_of(link.recv) == errno.EIO  # it is decrypted now, and out of TCP's queue
    assert how_it_ends(link) == "FIN"


def test_close_with_a_record_read_in_part_is_fin_and_drops_the_rest(link):
    link.put(DATA, b"0123456789")
    assert link.recv(4) == b"0123"
    assert how_it_ends(link) == "FIN"


def test_close_with_one_read_in_part_and_one_unread_is_a_reset(link):
    link.put(DATA, b"0123456789")
    assert link.recv(4) == b"0123"
    link.put(DATA, b"more")
    assert how_it_ends(link) == "RST"


def test_close_with_nothing_queued_is_fin(link):
    link.put(DATA, b"x")
    link.put(ALERT, CLOSE_NOTIFY)
    assert link.recv() == b"x"
    assert kernel.drain_control_records(link.end)
    assert how_it_ends(link) == "FIN"


def test_the_orderly_end_drain_close_notify_close(link):
    link.put(HANDSHAKE, TICKET)
    link.end.send(b"last words")
    kernel.drain_control_records(link.end)
    kernel.send_alert(link.end, CLOSING)
    link.end.close()
    assert link.take().data == b"last words"
    assert link.take().data == CLOSE_NOTIFY
    assert link.take() is None


def test_another_descriptor_keeps_the_connection_open(link):
    with link.end.dup() as copy:
        link.end.close()
        assert poll(link.peer) == 0
        copy.send(b"still here")
        assert link.take().data == b"still here"
    assert link.take() is None


# --- shutdown() ------------------------------------------------------------------------------------------------------


def test_a_half_closed_connection_goes_on_the_other_way(link):
    link.end.shutdown(socket.SHUT_WR)
    assert link.take() is None
    link.put(DATA, b"still listening?")
    assert link.recv() == b"still listening?"


def test_after_the_peers_fin_we_can_still_send(link):
    link.put(ALERT, CLOSE_NOTIFY)
    link.peer_finishes()
    link.end.send(b"answer")
    assert link.take().data == b"answer"


def test_shutdown_of_reading_leaves_what_is_queued_once(link):
    link.put(DATA, b"queued")
    link.end.shutdown(socket.SHUT_RD)
    assert link.recv() == b"queued"
    assert link.recv() == b""


def test_a_peer_that_aborts_is_a_reset(link):
    link.put(DATA, b"x")
    assert link.recv() == b"x"
    link.end.send(b"unread there")
    until(lambda: poll(link.peer), "our record")
    link.peer.close()
    until(lambda: poll(link.end) & select.POLLHUP, "the reset")
    assert error_of(link.recv) == errno.ECONNRESET

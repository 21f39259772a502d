"""The kernel's traps on the sending side and in a connection's life. The number is the trap's in the design's list."""

import errno
import os
import signal
import socket
import struct

import pytest

from ktls import kernel
from tests.lab.harness import (
    ALERT,
    BY_VERSION,
    CLOSE_NOTIFY,
    DATA,
    HANDSHAKE,
    TICKET,
    Blocked,
    Link,
    drop_privileges_and,
    error_of,
    libc,
    libc_result,
    poll,
    queued_out,
)

pytestmark = pytest.mark.qemu
BULK = 2_000_000  # more than both sides' buffers hold at first


def everything_at(sock):
    """All that the peer gets, and the errno that it ends with (0 for FIN)."""
    got = bytearray()
    try:
        while data := sock.recv(65536):
            got += data
    except OSError as error:
        return len(got), error.errno
    return len(got), 0


def fill(link):
    """Write until there is no room: bytes written."""
    written = 0
    while not error_of(link.end.send, bytes(16384), socket.MSG_DONTWAIT) and written < BULK:
        written += 16384
    return written


def test_04_close_with_an_unread_record_is_a_reset_that_destroys_what_was_sent(link):
    link.put(HANDSHAKE, TICKET)
    written = fill(link)
    link.end.close()
    received, ended = everything_at(link.peer)
    assert ended == errno.ECONNRESET
    assert received < written


def test_04_close_after_draining_sends_everything_and_fin(link):
    link.put(HANDSHAKE, TICKET)
    written = fill(link)
    assert len(kernel.drain_control_records(link.end)) == 1
    link.end.close()
    received, ended = everything_at(link.peer)
    assert ended == 0
    assert received > written  # records are longer than their content


@pytest.mark.parametrize("how", ["close", "shutdown", "exit", "kill"])
def test_05_nothing_sends_close_notify(link, how):
    child = os.fork()
    if child == 0:
        link.end.send(b"last")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "shutdown":
            link.end.shutdown(socket.SHUT_WR)
        elif how == "close":
            link.end.close()
        os._exit(0)
    os.waitpid(child, 0)
    link.end.close()
    assert link.take().data == b"last"
    assert link.take() is None


def held_back(link):
    """Write with MSG_MORE; assert that nothing of it is sent, nor counted as unsent."""
    link.end.send(b"more to come", socket.MSG_MORE)
    link.end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert queued_out(link.end) == 0
    assert poll(link.peer) == 0


def test_07_data_with_msg_more_waits(link):
    held_back(link)
    assert poll(link.peer, 300) == 0  # milliseconds: TCP's own corking would have ended after 200
    link.end.send(b", and here it is")
    assert link.take().data == b"more to come, and here it is"


@pytest.mark.parametrize("how", [lambda link: link.end.shutdown(socket.SHUT_WR), lambda link: link.end.close()])
def test_07_data_with_msg_more_is_dropped_by_shutdown_and_close(link, how):
    held_back(link)
    how(link)
    assert link.take() is None


def test_07_a_control_record_sends_it_first(link):
    held_back(link)
    kernel.send_record(link.end, ALERT, CLOSE_NOTIFY)
    assert link.take().data == b"more to come"
    assert link.take().data == CLOSE_NOTIFY


def test_08_writes_after_shutdown_succeed_and_go_nowhere(link):
    raised = []
    before = signal.signal(signal.SIGPIPE, lambda *_: raised.append(1))
    try:
        link.end.shutdown(socket.SHUT_WR)
        assert [link.end.send(b"lost", socket.MSG_NOSIGNAL) for _ in range(2)] == [4, 4]
        assert not raised
        assert link.end.send(b"lost") == 4
        assert raised
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert kernel.query(link.end, sequences=True).tx_sequence == 3
    assert link.take() is None


def test_09_a_thread_in_send_at_the_install_goes_on_sending_clear_text(connect, version):
    link = connect(version, keyed=False)
    writer = Blocked(lambda: link.end.send(b"clear text " * (BULK // 11 * 5)), "tcp_sendmsg")
    kernel.install_tx(link.end, link.tx)
    before = queued_out(link.end)
    received = b""
    while len(received) <= 2 * before:  # more than was there at the install
        received += link.peer.recv(1 << 20)
    assert b"clear text" in received[-22:]
    link.peer.close()
    writer.join()


def test_11_control_messages_of_others_are_refused(link):
    timestamping = (socket.SOL_SOCKET, 37, struct.pack("=I", 0))  # SO_TIMESTAMPING
    assert error_of(link.end.sendmsg, [b"x"], [timestamping]) == errno.EINVAL
    assert error_of(link.peer.sendmsg, [b"x"], [timestamping]) == 0  # plain TCP takes it


def test_14_attaching_needs_an_established_connection(connect):
    def attach(sock):
        return error_of(sock.setsockopt, socket.IPPROTO_TCP, kernel.TCP_ULP, b"tls")

    with socket.socket() as fresh, socket.create_server(("127.0.0.1", 0)) as listening:
        assert attach(fresh) == attach(listening) == errno.ENOTCONN
    half_closed = connect(attached=False, keyed=False)
    half_closed.peer_finishes()
    assert attach(half_closed.end) == errno.ENOTCONN
    finished = connect(attached=False, keyed=False)
    finished.end.shutdown(socket.SHUT_WR)
    assert attach(finished.end) == errno.ENOTCONN


def test_14_keys_can_come_after_the_peers_fin_if_it_was_attached_before(connect, version):
    link = connect(version, keyed=False)
    link.put(DATA, b"early")
    link.peer_finishes()
    link.install()
    assert link.recv() == b"early"
    link.end.send(b"late")
    assert link.take().data == b"late"


def test_15_there_is_no_way_back(link):
    ulp = (socket.IPPROTO_TCP, kernel.TCP_ULP)
    assert error_of(link.end.setsockopt, *ulp, b"tls") == errno.EEXIST
    assert error_of(link.end.setsockopt, *ulp, b"") != 0
    assert kernel.is_attached(link.end)
    no_cipher = struct.pack("=HH", link.version, 0)
    assert error_of(link.end.setsockopt, kernel.SOL_TLS, kernel.TLS_TX, no_cipher) != 0


def test_15_disconnecting_is_refused(link):
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)

    def disconnect():
        libc_result(libc.connect(link.end.fileno(), unspecified, len(unspecified)))

    assert error_of(disconnect) == errno.EOPNOTSUPP
    link.put(DATA, b"still there")
    assert link.recv() == b"still there"


def test_16_no_privilege_is_needed(version):
    def use():
        link = Link(version, BY_VERSION[version])
        link.put(DATA, b"data")
        if link.recv() != b"data":
            raise OSError(errno.EBADMSG, "not what was sent")
        link.end.send(b"x")
        link.take()

    assert drop_privileges_and(use) == 0

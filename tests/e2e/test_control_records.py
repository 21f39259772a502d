"""Records that are not data, wherever a peer may put them. A program reads its bytes and nothing else.

Every reader is tried: blocking, poll, epoll edge-triggered, stdio, and one byte at a time (programs/readers.py).
"""

import errno
import json
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.crafted import CLOSE_NOTIFY, KEY_UPDATE, TICKET, CraftedPeer, ticket
from tests.e2e.peer import client_context, server_context

READERS = Path(__file__).parent / "programs" / "readers.py"
HOW = ["recv", "read", "one-byte", "recvmsg", "peek", "stdio", "splice", "poll", "select", "epoll-edge"]
HOW += ["epoll-oneshot", "asyncio", "asks-twice", "looks-and-asks"]


@pytest.fixture
def connect(covered, tls_files, free_port, tmp_path):
    """A covered client that reads to the end in a given way; returns (program, crafted server)."""
    opened = []

    def start(how: str) -> tuple:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        program = covered([sys.executable, str(READERS), how, str(port)], outbound=[port], ca=tls_files.ca)
        sock, _ = listener.accept()
        listener.close()
        sock.settimeout(60)
        opened.append(sock)
        context = server_context(tls_files.cert, tls_files.key, version="1.3")
        return program, CraftedPeer(sock, context, tmp_path / "keylog", server_side=True)

    yield start
    for sock in opened:
        sock.close()


def result(program) -> dict:
    _, out, err = program.finish()
    assert out, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("how", HOW)
def test_tickets_before_the_first_byte_are_not_seen(connect, how):
    program, peer = connect(how)
    peer.send(peer.seal(22, TICKET), peer.seal(22, TICKET), peer.data(b"after"), peer.seal(21, CLOSE_NOTIFY))
    assert result(program) == {"data": "after"}


@pytest.mark.parametrize("how", HOW)
def test_tickets_in_the_middle_are_not_seen(connect, how):
    program, peer = connect(how)
    peer.send(peer.data(b"be"), peer.seal(22, TICKET), peer.data(b"tw"), peer.seal(22, TICKET), peer.data(b"een"))
    peer.send(peer.seal(21, CLOSE_NOTIFY))
    assert result(program) == {"data": "between"}


@pytest.mark.parametrize("how", HOW)
def test_a_ticket_alone_wakes_nobody_for_good(connect, how):
    """The reader is waiting; a ticket comes by itself, later data, later the end."""
    program, peer = connect(how)
    peer.send(peer.seal(22, TICKET))
    assert peer.receive_data(1) == b"?"  # the program says that it is about to read
    peer.send(peer.data(b"later"))
    peer.send(peer.seal(21, CLOSE_NOTIFY))
    assert result(program) == {"data": "later"}


@pytest.mark.parametrize("how", HOW)
def test_a_large_ticket_is_not_seen(connect, how):
    program, peer = connect(how)
    peer.send(peer.seal(22, ticket(16000)), peer.data(b"small"), peer.seal(21, CLOSE_NOTIFY))
    assert result(program) == {"data": "small"}


@pytest.mark.parametrize("how", HOW)
def test_close_notify_is_end_of_file_and_stays_so(connect, how):
    program, peer = connect(how)
    peer.send(peer.data(b"last"), peer.seal(21, CLOSE_NOTIFY))
    assert result(program) == {"data": "last"}


@pytest.mark.parametrize("how", ["recv", "poll", "epoll-edge", "stdio"])
def test_a_fatal_alert_is_econnreset_after_the_data(connect, how):
    program, peer = connect(how)
    peer.send(peer.data(b"before"), peer.seal(21, b"\x02\x50"))  # internal_error
    assert result(program) == {"data": "before", "errno": errno.ECONNRESET}


@pytest.mark.parametrize("how", ["recv", "poll", "epoll-edge"])
def test_end_of_file_without_close_notify_is_econnreset(connect, how):
    program, peer = connect(how)
    peer.send(peer.data(b"cut"))
    assert peer.receive_data(1) == b"?"
    peer.sock.shutdown(socket.SHUT_WR)
    assert result(program) == {"data": "cut", "errno": errno.ECONNRESET}


@pytest.mark.parametrize("how", ["recv", "poll", "epoll-edge"])
def test_a_record_cut_in_two_is_econnreset_not_a_short_stream(connect, how):
    program, peer = connect(how)
    peer.send(peer.data(b"whole"), peer.data(b"half of this")[:-7])
    assert peer.receive_data(1) == b"?"
    peer.sock.shutdown(socket.SHUT_WR)
    assert result(program) == {"data": "whole", "errno": errno.ECONNRESET}


@pytest.mark.parametrize("how", ["recv", "poll", "epoll-edge"])
def test_a_forged_record_is_an_error_and_none_of_it_is_delivered(connect, how, engine):
    program, peer = connect(how)
    peer.send(peer.data(b"good"))
    assert peer.receive_data(1) == b"?"
    record = bytearray(peer.data(b"forged"))
    record[-1] ^= 1
    peer.send(bytes(record))
    got = result(program)
    assert got["data"] == "good"
    assert got["errno"] in (errno.EPROTO, errno.ECONNRESET)


@pytest.mark.parametrize("how", ["recv", "poll", "epoll-edge"])
def test_clear_text_in_the_middle_is_an_error_and_not_delivered(connect, how):
    program, peer = connect(how)
    peer.send(peer.data(b"good"))
    assert peer.receive_data(1) == b"?"
    peer.send(b"220 this is no record\r\n")
    got = result(program)
    assert got["data"] == "good"
    assert got["errno"] in (errno.EPROTO, errno.ECONNRESET)


# Emulation is slow: on the newer kernel two readers stand for all.
ON_QEMU = [pytest.param(how, marks=pytest.mark.qemu) if how in ("recv", "epoll-edge") else how for how in HOW]


@pytest.mark.parametrize("how", ON_QEMU)
@pytest.mark.parametrize("together", [True, False], ids=["in the segment of data", "alone"])
@pytest.mark.parametrize("requested", [False, True], ids=["not requested", "requested"])
@pytest.mark.rekey
def test_a_key_update_is_followed(connect, how, together, requested):
    program, peer = connect(how)
    assert peer.receive_data(1) == b"?"
    if together:
        peer.send(peer.data(b"old "), peer.key_update(requested=requested))
        peer.send(peer.data(b"new"), peer.seal(21, CLOSE_NOTIFY))
    else:
        peer.send(peer.data(b"old "))
        peer.send(peer.key_update(requested=requested))
        peer.send(peer.data(b"new"))
        peer.send(peer.seal(21, CLOSE_NOTIFY))
    assert result(program) == {"data": "old new"}
    if requested:
        records = []
        while (opened := peer.receive()) is not None:
            records.append((opened.content_type, opened.data))
        # Our own KeyUpdate, and what followed it was opened with the next keys.
        assert records == [(22, KEY_UPDATE), (23, b"!"), (21, CLOSE_NOTIFY)]


@pytest.mark.no_rekey
def test_a_key_update_ends_the_connection_where_the_kernel_cannot_rekey(connect):
    program, peer = connect("recv")
    assert peer.receive_data(1) == b"?"
    peer.send(peer.data(b"old "), peer.key_update(requested=False), peer.data(b"new"))
    assert result(program) == {"data": "old ", "errno": errno.EPROTO}


def test_a_server_that_reads_meets_a_clients_records(covered, tls_files, free_port, tmp_path):
    """The other role: data, an empty record, close_notify from a client."""
    port = free_port()
    program = covered(
        [sys.executable, str(READERS), "recv", f"listen:{port}"],
        inbound=[port],
        cert=tls_files.cert,
        key=tls_files.key,
        wait_port=port,
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        context = client_context(tls_files.ca, version="1.3")
        peer = CraftedPeer(sock, context, tmp_path / "keylog", server_side=False)
        peer.send(peer.data(b""), peer.data(b"a"), peer.data(b""), peer.data(b"b"), peer.seal(21, CLOSE_NOTIFY))
        assert result(program) == {"data": "ab"}

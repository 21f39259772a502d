"""Figures 3 and 5 to 8 (docs/design.md, "The documents' flowcharts"): a test per branch, named for its block.

A covered program does single steps (programs/steps.py); the test plays the peer. Figure 4 and blocks 300 to 310 and 335
begin with the Start_SSL directive, which an unmodified program does not say.
"""

import contextlib
import errno
import select
import socket
import ssl
import sys
from pathlib import Path

import pytest

from tests.e2e.peer import TlsPeer, client_context, server_context

STEPS = [sys.executable, str(Path(__file__).parent / "programs" / "steps.py")]


class Steps:
    """The steps' results, by name, in order."""

    def __init__(self, program) -> None:
        self.results = program.results()

    def __getitem__(self, name: str) -> dict:
        return next(result for result in self.results if result["step"] == name)

    def all(self, name: str) -> list[dict]:
        return [result for result in self.results if result["step"] == name]


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(30)
        yield sock


@pytest.fixture
def client(covered, tls_files):
    """Start a covered client that connects to a listener's port; `protect` or not."""

    def start(listener: socket.socket, *steps: str, protect: bool = True, **options):
        port = listener.getsockname()[1]
        rule = port if protect else 1
        return covered(
            [*STEPS, *(s.replace("PORT", str(port)) for s in steps)], outbound=[rule], ca=tls_files.ca, **options
        )

    return start


@pytest.fixture
def server(covered, tls_files, free_port):
    """Start a covered server; returns (program, port)."""

    def start(*steps: str, protect: bool = True, **options):
        port = free_port()
        words = [*STEPS, f"listen={port}", *steps]
        rule = port if protect else 1
        program = covered(words, inbound=[rule], cert=tls_files.cert, key=tls_files.key, wait_port=port, **options)
        return program, port

    return start


def tls_server(listener: socket.socket, tls_files) -> TlsPeer:
    sock, _ = listener.accept()
    return TlsPeer(sock, server_context(tls_files.cert, tls_files.key), server_side=True)


def tls_client(port: int, tls_files) -> TlsPeer:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    return TlsPeer(sock, client_context(tls_files.ca), hostname="localhost")


# --- Fig. 3: session establishment, client ---------------------------------------------------------------------------


def test_fig3_block355_a_failed_tcp_connection_posts_connect_complete_with_its_own_error(client, listener):
    listener.close()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening
        program = client(unused, "connect=PORT")
        assert Steps(program)["connect"]["errno"] == errno.ECONNREFUSED


def test_fig3_block360_no_where_ssl_is_not_required_connect_completes_in_clear(client, listener):
    program = client(listener, "connect=PORT", "write=clear", protect=False)
    sock, _ = listener.accept()
    with sock:
        assert sock.recv(100, socket.MSG_WAITALL) == b"clear"
    assert "errno" not in Steps(program)["connect"]


def test_fig3_blocks360_315_320_310_connect_completes_when_the_handshake_has(client, listener, tls_files):
    program = client(listener, "connect=PORT", "write=hello")
    peer = tls_server(listener, tls_files)
    peer.fill()  # the ClientHello is here, and we do not answer yet
    assert select.select([program.process.stdout], [], [], 0.3)[0] == []  # connect() has not returned
    peer.handshake()
    assert peer.receive_exactly(5) == b"hello"
    assert "errno" not in Steps(program)["connect"]


def test_fig3_block315_the_environment_is_created_at_the_first_connection_and_shared(client, listener, tls_files):
    steps = ["connect=PORT", "write=1", "close"] * 3
    program = client(listener, *steps)
    for _ in range(3):
        assert tls_server(listener, tls_files).handshake().receive_exactly(1) == b"1"
    assert len(Steps(program).all("connect")) == 3
    assert [event["environment"] for event in program.told(3, "open")] == ["created", "shared", "shared"]


def test_fig3_blocks325_330_340_a_failed_handshake_closes_the_connection(client, listener, tls_files):
    program = client(listener, "connect=PORT", "write=secret")
    sock, _ = listener.accept()
    with sock:
        sock.sendall(b"no TLS here\r\n")
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(1000):
                received += data
    assert b"secret" not in received
    steps = Steps(program)
    assert (steps["connect"]["errno"], steps["write"]["errno"]) == (errno.EPROTO, errno.EPROTO)


@pytest.mark.qemu
def test_fig3_block310_a_nonblocking_connect_is_posted_complete_by_writability(client, listener, tls_files):
    program = client(listener, "connect-nonblocking=PORT", "wait-writable", "so-error", "peer", "write=x")
    assert tls_server(listener, tls_files).handshake().receive_exactly(1) == b"x"
    steps = Steps(program)
    assert steps["connect-nonblocking"]["result"] == errno.EINPROGRESS
    assert steps["wait-writable"]["events"] == select.POLLOUT
    assert (steps["so-error"]["value"], steps["peer"]["address"]) == (0, "127.0.0.1")


# --- Fig. 5: session establishment, server ---------------------------------------------------------------------------


def test_fig5_block505_no_where_ssl_is_not_required_accept_completes_in_clear(server):
    program, port = server("accept", "read=5", protect=False)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"clear")
        assert Steps(program)["read"]["got"] == "clear"


def test_fig5_block515_accept_is_posted_complete_before_the_handshake(server):
    """A client that says nothing does not hold up the accept loop."""
    program, port = server("accept", "peer", "accept", "peer")
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        assert [peer["address"] for peer in Steps(program).all("peer")] == ["127.0.0.1", "127.0.0.1"]


def test_fig5_block510_the_environment_is_created_once(server, tls_files):
    program, port = server(*["accept", "write=1", "close"] * 2)
    for _ in range(2):
        assert tls_client(port, tls_files).handshake().receive_exactly(1) == b"1"
    Steps(program)
    assert [event["environment"] for event in program.told(2, "open")] == ["created", "shared"]


# --- Figs. 6 and 7: a client sends and receives ----------------------------------------------------------------------


def test_fig6_block625_with_a_session_what_is_sent_is_protected(client, listener, tls_files):
    program = client(listener, "connect=PORT", "write=over-the-wire")
    peer = tls_server(listener, tls_files).handshake()
    assert peer.receive_exactly(13) == b"over-the-wire"
    assert b"over-the-wire" not in b"".join(peer.wire)
    assert Steps(program)["write"]["wrote"] == 13


def test_fig7_block725_with_a_session_what_comes_is_opened(client, listener, tls_files):
    program = client(listener, "connect=PORT", "read=100")
    tls_server(listener, tls_files).handshake().send(b"from the server")
    assert Steps(program)["read"]["got"] == "from the server"


def test_figs6_7_blocks605_710_no_without_a_session_bytes_pass_as_they_are(client, listener):
    program = client(listener, "connect=PORT", "write=ping", "read=4", protect=False)
    sock, _ = listener.accept()
    with sock:
        assert sock.recv(4, socket.MSG_WAITALL) == b"ping"
        sock.sendall(b"pong")
        assert Steps(program)["read"]["got"] == "pong"


# --- Fig. 8A: a server sends -----------------------------------------------------------------------------------------


def test_fig8a_block805_no_a_send_without_ssl_goes_as_it_is(server):
    program, port = server("accept", "write=banner", protect=False)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        assert sock.recv(6, socket.MSG_WAITALL) == b"banner"
    Steps(program)


@pytest.mark.qemu
def test_fig8a_blocks825_835_840_845_a_send_made_before_the_handshake_waits_and_then_goes(server, tls_files):
    program, port = server("accept", "write=220 ready", "write= and more")
    peer = tls_client(port, tls_files)
    assert select.select([peer.sock], [], [], 0.3)[0] == []  # nothing comes before our ClientHello: the send waits
    assert peer.handshake().receive_exactly(18) == b"220 ready and more"
    assert [step["wrote"] for step in Steps(program).all("write")] == [9, 9]


def test_fig8a_block825_yes_a_send_in_a_session_goes_at_once(server, tls_files):
    program, port = server("accept", "read=1", "write=answer")
    peer = tls_client(port, tls_files).handshake()
    peer.send(b"?")
    assert peer.receive_exactly(6) == b"answer"
    Steps(program)


def test_fig8a_block845_no_a_waiting_send_ends_with_the_failure(server):
    program, port = server("accept", "write=never seen")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"EHLO clear.example\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"never seen" not in sock.recv(1000)
    assert Steps(program)["write"]["errno"] == errno.EPROTO


# --- Fig. 8B: a server receives --------------------------------------------------------------------------------------


def test_fig8b_block852_no_clear_bytes_are_delivered_where_ssl_is_not_required(server):
    program, port = server("accept", "read=3", protect=False)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"abc")
        assert Steps(program)["read"]["got"] == "abc"


def test_fig8b_blocks860_864_866_868_the_handshake_runs_when_the_client_hello_comes_and_then_data(server, tls_files):
    program, port = server("accept", "read=4")
    tls_client(port, tls_files).handshake().send(b"data")
    assert Steps(program)["read"]["got"] == "data"


def test_fig8b_block862_data_in_the_segment_of_the_finished_is_delivered(server, tls_files):
    """The client's Finished and its first request arrive together; the request is the program's."""
    program, port = server("accept", "read=100")
    peer = tls_client(port, tls_files)
    while True:
        try:
            peer.tls.do_handshake()
        except ssl.SSLWantReadError:
            peer.flush()
            peer.fill()
        else:
            break
    peer.tls.write(b"early request")  # not flushed yet: it leaves with the Finished
    peer.flush()
    assert Steps(program)["read"]["got"] == "early request"


def test_fig8b_blocks866_872_clear_text_instead_of_a_client_hello_closes_the_connection(server):
    program, port = server("accept", "read=100")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sock.recv(1000):
                pass
    assert Steps(program)["read"] == {"step": "read", "errno": errno.EPROTO, "error": "[Errno 71] Protocol error"}


def test_fig8b_block872_what_explains_the_failure_is_still_sent(server, tls_files):
    """The alert reaches the client: it learns why."""
    program, port = server("accept", "read=1")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        context = client_context(tls_files.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES256-SHA")  # not offered by any policy
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
            TlsPeer(sock, context, hostname="localhost").handshake()
    assert Steps(program)["read"]["errno"] == errno.EPROTO


def test_fig8b_blocks868_874_queued_sends_go_in_order_when_the_handshake_is_done(server, tls_files):
    program, port = server("accept", "blocking=0", "write=too early", "wait-writable", "write=first", "write=second")
    assert tls_client(port, tls_files).handshake().receive_exactly(11) == b"firstsecond"
    steps = Steps(program)
    assert steps["write"]["errno"] == errno.EAGAIN  # a non-blocking program is told to wait, and is woken
    assert steps["wait-writable"]["events"] == select.POLLOUT

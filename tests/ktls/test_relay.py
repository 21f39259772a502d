"""The relay engine between a real socket pair and a real TLS peer over real TCP."""

import hashlib
import itertools
import os
import socket
import ssl
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from ktls.errors import InternalFault, PeerClosed, ProtocolError, Truncated
from ktls.relay import MAX_HELD, Mark
from tests.ktls.relay_peer import Loop, OtherEnd, Relayed, exactly, flush, handshake, in_thread, sealed

Connect = Callable[..., tuple[socket.socket, Relayed, Any]]
VERSIONS = {"1.2": (SSL.TLS1_2_VERSION, ssl.TLSVersion.TLSv1_2), "1.3": (SSL.TLS1_3_VERSION, ssl.TLSVersion.TLSv1_3)}
SIZES = [0, 1, 16383, 16384, 16385, 65536, 1_000_003]


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as running:
        yield running


@pytest.fixture
def connect(
    loop: Loop, server_certificate: trustme.LeafCert, monkeypatch: pytest.MonkeyPatch, fd_count: Callable[[], int]
) -> Iterator[Connect]:
    """Call it for (A, the relay, the peer): a stdlib SSLSocket, or an OtherEnd if `pyopenssl`."""
    monkeypatch.setattr("ktls.pump.LINGER", 0.3)
    before = fd_count()
    opened: list[Any] = []

    def start(
        version: str = "1.3", *, we: str = "client", strict: bool = True, pyopenssl: bool = False, buffers: int = 0
    ) -> tuple[socket.socket, Relayed, Any]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        for sock in (ours, theirs):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffers:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        make_peer = (
            (lambda: _other_end(theirs, version, we, server_certificate))
            if pyopenssl
            else (lambda: _stdlib_end(theirs, version, we, server_certificate))
        )
        join: Callable[[], Any] = in_thread(make_peer)
        connection = _connection(version, we, server_certificate)
        handshake(connection, ours)
        peer = join()
        a, b = socket.socketpair()
        a.settimeout(20)
        theirs.settimeout(20) if pyopenssl else peer.settimeout(20)
        opened.extend([a, peer.sock if pyopenssl else peer])
        return a, loop.start(connection, b, ours, strict=strict), peer

    yield start
    for sock in opened:
        sock.close()
    for sock in opened:
        del sock
    deadline = threading.Event()
    for _ in range(100):
        if fd_count() <= before:
            return
        deadline.wait(0.05)
    assert fd_count() <= before, "a descriptor is left open"


def _connection(version: str, role: str, certificate: trustme.LeafCert) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(VERSIONS[version][0])
    context.set_max_proto_version(VERSIONS[version][0])
    if role == "server":
        certificate.configure_cert(context)
    connection = SSL.Connection(context, None)
    connection.set_accept_state() if role == "server" else connection.set_connect_state()
    return connection


def _other_end(sock: socket.socket, version: str, we: str, certificate: trustme.LeafCert) -> OtherEnd:
    connection = _connection(version, "client" if we == "server" else "server", certificate)
    handshake(connection, sock)
    return OtherEnd(connection, sock)


def _stdlib_end(sock: socket.socket, version: str, we: str, certificate: trustme.LeafCert) -> ssl.SSLSocket:
    server = we == "client"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = VERSIONS[version][1]
    if server:
        certificate.configure_cert(context)
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock, server_side=server)


def receive_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def send_and(end: Callable[..., None], sock: socket.socket, data: bytes, *arguments: int) -> None:
    sock.sendall(data)
    end(*arguments)


@pytest.mark.parametrize("we", ["client", "server"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_bytes_arrive_both_ways_and_both_ends_are_clean(connect: Connect, version: str, we: str, size: int) -> None:
    a, relayed, peer = connect(version, we=we)
    data = os.urandom(size)
    writer = in_thread(lambda: send_and(a.shutdown, a, data, socket.SHUT_WR))
    assert receive_to_end(peer) == data
    writer()
    sender = in_thread(lambda: (peer.sendall(data), peer.unwrap().close()))
    assert receive_to_end(a) == data
    a.close()
    sender()
    end = relayed.end()
    assert (end.error, end.bytes_in, end.bytes_out) == (None, size, size)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_50_megabytes_each_way_at_once(connect: Connect, version: str) -> None:
    a, relayed, peer = connect(version, pyopenssl=False)
    block, count = os.urandom(1 << 20), 50
    expected = hashlib.sha256(block * count).digest()

    def send(sock: socket.socket) -> None:
        for _ in range(count):
            sock.sendall(block)

    def receive(sock: socket.socket) -> bytes:
        digest, left = hashlib.sha256(), count << 20
        while left:
            chunk = sock.recv(min(left, 1 << 18))
            assert chunk
            digest.update(chunk)
            left -= len(chunk)
        return digest.digest()

    # SSLSocket is not for two threads at once, so the peer is two: it echoes what it gets.
    def echo() -> None:
        left = count << 20
        while left:
            chunk = peer.recv(min(left, 1 << 16))
            peer.sendall(chunk)
            left -= len(chunk)

    echoed, sent = in_thread(echo), in_thread(lambda: send(a))
    assert receive(a) == expected
    sent()
    echoed()
    a.shutdown(socket.SHUT_WR)
    peer.unwrap().close()
    assert a.recv(1) == b""
    a.close()
    end = relayed.end()
    assert (end.error, end.bytes_in, end.bytes_out) == (None, count << 20, count << 20)
    assert max(relayed.pump.most) <= MAX_HELD


def test_the_program_may_end_its_direction_and_go_on_reading(connect: Connect) -> None:
    a, relayed, peer = connect(pyopenssl=True)
    a.sendall(b"question")
    a.shutdown(socket.SHUT_WR)
    assert peer.receive_all() == b"question"
    assert peer.sock.recv(1) == b""  # TCP has ended as well
    for _ in range(3):
        peer.send(b"answer")
    peer.close_notify()
    peer.sock.close()
    assert receive_to_end(a) == b"answer" * 3
    a.close()
    assert relayed.end().error is None


def test_the_peer_may_end_its_direction_and_go_on_reading(connect: Connect) -> None:
    a, relayed, peer = connect(pyopenssl=True)
    peer.send(b"question")
    peer.close_notify()
    assert receive_to_end(a) == b"question"
    a.sendall(b"answer" * 1000)
    a.close()
    assert peer.receive_all() == b"answer" * 1000
    peer.sock.close()
    assert relayed.end().error is None


def received_before_reset(peer: OtherEnd) -> bytes:
    data = b""
    try:
        while part := peer.receive():
            data += part
    except ConnectionResetError:
        return data
    raise AssertionError("it ended in order")


def test_what_was_written_before_close_arrives_although_something_is_unread_and_then_the_reset(
    connect: Connect,
) -> None:
    """As TCP, whose RST may eat the tail, which ours does not."""
    a, relayed, peer = connect(pyopenssl=True, buffers=8192)
    peer.send(b"x" * 3000)
    data = os.urandom(300_000)
    writer = in_thread(lambda: send_and(a.close, a, data))
    assert received_before_reset(peer) == data
    writer()
    assert relayed.end().error is None


def test_a_verdict_that_the_program_did_not_live_to_read_is_no_reason_for_a_reset(connect: Connect) -> None:
    """It was killed in connect(): as after any other kill there is nothing of the peer's that it left."""
    a, relayed, peer = connect(pyopenssl=True)
    relayed.pump._inside.send(b"V")
    a.close()
    assert peer.receive_all() == b""
    peer.close_notify()
    peer.sock.close()
    assert relayed.end().error is None


def test_a_peer_that_never_ends_its_direction_is_left_after_a_while(connect: Connect) -> None:
    a, relayed, peer = connect(pyopenssl=True)
    a.close()
    assert peer.receive_all() == b""
    assert relayed.end().error is None
    assert peer.sock.recv(1) == b""


@pytest.mark.parametrize("direction", ["out", "in"])
def test_a_reader_who_does_not_read_holds_up_the_writer_and_not_memory(connect: Connect, direction: str) -> None:
    a, relayed, peer = connect(pyopenssl=True, buffers=16384)
    block = os.urandom(1 << 16)
    if direction == "out":
        a.setblocking(False)
        sent = 0
        quiet = threading.Event()
        for _ in range(20):  # until nothing has moved for a while
            try:
                while True:
                    sent += a.send(block)
            except BlockingIOError:
                quiet.wait(0.02)
        a.settimeout(20)
        ended = in_thread(lambda: a.shutdown(socket.SHUT_WR))
        got = peer.receive_all()
    else:
        done = in_thread(lambda: ([peer.send(block) for _ in range(80)], peer.close_notify()))
        threading.Event().wait(0.3)  # let it fill up
        got, sent = receive_to_end(a), 80 << 16
        ended = done
    ended()
    assert len(got) == sent
    assert sent > MAX_HELD
    assert max(relayed.pump.most) <= MAX_HELD


def test_small_writes_that_wait_become_one_record(connect: Connect, loop: Loop) -> None:
    a, _, peer = connect(pyopenssl=True)
    busy, written = threading.Event(), threading.Event()

    def see_to_others() -> None:
        busy.set()
        written.wait(20)

    loop.loop.call_soon_threadsafe(see_to_others)
    busy.wait(20)
    for _ in range(50):  # a Unix socket is writable up to a quarter of its buffer, and a byte takes 768
        a.send(b"x")
    written.set()
    a.shutdown(socket.SHUT_WR)
    assert list(iter(peer.receive, b"")) == [b"x" * 50]


def test_more_records_in_one_read_than_one_sendmsg_takes_all_arrive(connect: Connect) -> None:
    """Records of one byte each: a peer that writes so, or means harm. 2,840 of them are one chunk."""
    a, _, peer = connect(pyopenssl=True)
    data = bytes(range(256)) * 20
    for at in range(len(data)):
        peer.connection.sendall(data[at : at + 1])
    flush(peer.connection, peer.sock)
    assert exactly(a, len(data)) == data


@pytest.mark.parametrize("version", VERSIONS)
def test_records_of_any_sizes_cut_anywhere_arrive_whole(connect: Connect, version: str) -> None:
    a, _, peer = connect(version, pyopenssl=True)
    runs = st.tuples(st.one_of(st.just(1), st.integers(1, 40), st.integers(1, 16384)), st.integers(1, 1500))

    @settings(max_examples=40, deadline=None)
    @given(st.lists(runs, min_size=1, max_size=4), st.integers(100, 1 << 17), st.integers(0, 1 << 32))
    def arrive(several: list[tuple[int, int]], cut: int, seed: int) -> None:
        sizes = [size for size, count in several for _ in range(min(count, 400_000 // size))]
        data = Random(seed).randbytes(sum(sizes))
        for end, size in zip(itertools.accumulate(sizes), sizes, strict=True):
            peer.connection.sendall(data[end - size : end])
        records = sealed(peer.connection)
        sent = in_thread(lambda: [peer.sock.sendall(records[at : at + cut]) for at in range(0, len(records), cut)])
        assert exactly(a, len(data)) == data
        sent()

    arrive()


def test_a_mistake_of_ours_ends_the_connection_as_cut_off_and_no_other(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, loop: Loop
) -> None:
    told: list[dict[str, Any]] = []
    loop.loop.set_exception_handler(lambda _, context: told.append(context))
    a, relayed, peer = connect(pyopenssl=True)
    b, _, other = connect(pyopenssl=True)
    monkeypatch.setattr(relayed.pump, "_move_in", lambda: 1 / 0)
    peer.send(b"what makes us stumble")
    assert receive_to_end(a) == b""  # and R has no mark: the shim says ECONNRESET
    assert isinstance(relayed.end().error, InternalFault)
    assert isinstance(told[0]["exception"], ZeroDivisionError)
    other.send(b"untouched")
    assert exactly(b, 9) == b"untouched"
    loop.loop.set_exception_handler(None)


def test_after_an_end_of_file_without_close_notify_the_program_may_still_write(connect: Connect) -> None:
    """As over kTLS: what it read was cut off, what it writes has not been."""
    a, relayed, peer = connect(pyopenssl=True)
    peer.send(b"cut")
    peer.sock.shutdown(socket.SHUT_WR)
    assert receive_to_end(a) == b"cut"  # the shim looks at R's mark and says ECONNRESET
    a.sendall(b"more")
    assert peer.receive() == b"more"
    a.close()
    assert peer.receive() == b""
    assert isinstance(relayed.end().error, Truncated)


def test_after_a_reset_the_program_can_do_nothing(connect: Connect) -> None:
    a, relayed, peer = connect(pyopenssl=True)
    peer.send(b"cut")
    assert exactly(a, 3) == b"cut"
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.sock.close()
    assert a.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        a.sendall(b"more")
    assert isinstance(relayed.end().error, PeerClosed)


def test_lenient_end_of_file_is_an_end(connect: Connect) -> None:
    a, relayed, peer = connect(pyopenssl=True, strict=False)
    peer.send(b"all there is")
    peer.sock.close()
    assert receive_to_end(a) == b"all there is"
    a.close()
    assert relayed.end().error is None


def test_a_forged_record_breaks_the_connection_and_is_not_delivered(connect: Connect) -> None:
    a, relayed, peer = connect(pyopenssl=True)
    peer.send(b"good")
    peer.connection.sendall(b"forged")
    record = bytearray(peer.connection.bio_read(65536))
    record[-1] ^= 1
    peer.sock.sendall(record)
    assert receive_to_end(a) == b"good"
    a.sendall(b"the first write after it goes nowhere")
    with pytest.raises(BrokenPipeError):  # noqa: PT012
        while True:
            a.sendall(b"the next one fails")
    assert isinstance(relayed.end().error, ProtocolError)
    with pytest.raises(SSL.Error, match="bad record mac"):
        peer.receive_all()


@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "after SHUT_WR"])
@pytest.mark.parametrize(
    ("how", "mark"),
    [
        ("close_notify", Mark.CLEAN),
        ("FIN", Mark.NONE),
        ("RST", Mark.NONE),
        ("alert", Mark.NONE),
        ("forged", Mark.BROKEN),
    ],
)
def test_the_mark_on_the_tcp_socket_says_what_end_of_file_means(
    connect: Connect, how: str, mark: Mark, half_closed: bool
) -> None:
    """R is in the program as well, and AF_UNIX has one end of file for all of these."""
    a, relayed, peer = connect(pyopenssl=True)
    r = relayed.pump._outside.dup()
    if half_closed:
        a.shutdown(socket.SHUT_WR)
        assert peer.receive_all() == b""
    if how == "close_notify":
        peer.close_notify()
    elif how == "RST":
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    elif how == "forged":
        peer.sock.sendall(b"\x17\3\3\0\x20" + bytes(32))
    elif how == "alert":  # what OpenSSL says to a record forged in our name
        peer.connection.bio_write(b"\x17\3\3\0\x20" + bytes(32))
        with pytest.raises(SSL.Error):
            peer.connection.recv(1)
        flush(peer.connection, peer.sock)
    peer.sock.close()
    assert a.recv(1) == b""
    assert r.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT) == mark
    a.close()
    assert (relayed.end().error is None) is (mark is Mark.CLEAN)
    r.close()


def test_stopping_the_agent_says_close_notify_to_the_peer(connect: Connect) -> None:
    _, relayed, peer = connect(pyopenssl=True)
    relayed.stop()
    assert peer.receive_all() == b""
    assert relayed.end().error is None


def test_a_connection_that_has_ended_takes_no_memory(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ktls.pump.LINGER", 3600)
    program, relayed, peer = connect(pyopenssl=True)
    program.close()
    assert peer.receive_all() == b""
    peer.sock.close()
    relayed.end()
    pump = weakref.ref(relayed.pump)
    del relayed.pump
    for _ in range(100):  # the loop's thread may still be about to return from it
        if pump() is None:
            return
        threading.Event().wait(0.05)
    assert pump() is None


def test_key_updates_of_openssl_are_followed(connect: Connect, loop: Loop, tls_files: Any) -> None:
    """`K` makes s_client update its keys and ask for ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-CAfile", str(tls_files.ca)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        ours, _ = listener.accept()
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate_chain_file(str(tls_files.cert))
    context.use_privatekey_file(str(tls_files.key))
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    handshake(connection, ours)
    a, b = socket.socketpair()
    a.settimeout(20)
    relayed = loop.start(connection, b, ours, strict=True)
    assert client.stdin is not None
    assert client.stderr is not None
    assert client.stdout is not None
    for turn in range(3):
        client.stdin.write(b"K\n")
        client.stdin.flush()
        while client.stderr.readline() != b"KEYUPDATE\n":
            assert client.poll() is None
        client.stdin.write(b"line %d\n" % turn)
        client.stdin.flush()
        assert exactly(a, 7) == b"line %d\n" % turn
        a.sendall(b"answer %d\n" % turn)
        while client.stdout.readline() != b"answer %d\n" % turn:
            assert client.poll() is None
    a.shutdown(socket.SHUT_WR)
    client.communicate(timeout=20)
    assert a.recv(1) == b""
    a.close()
    assert relayed.end().error is None


def test_nothing_touches_the_programs_o_nonblock(connect: Connect) -> None:
    """R's file flags are shared with the program."""
    _, relayed, peer = connect(pyopenssl=True)
    fd = relayed.pump._outside.fileno()
    flags = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()[1]
    peer.send(b"x" * 100_000)
    assert Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()[1] == flags
    relayed.stop()
    relayed.end()

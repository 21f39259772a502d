"""KeyUpdates of ours on a relayed connection, with real TLS peers that have to follow them."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from OpenSSL import SSL

from ktls.ciphers import Version, by_openssl
from ktls.errors import BadRecord, UsageError
from ktls.records import MAX_PLAINTEXT, ContentType, RecordProtection
from ktls.rekeying import Sending
from ktls.relay import Mark
from ktls.session import TxKeys
from tests.ktls.relay_peer import Loop, Relayed, exactly, handshake, in_thread

KEY_UPDATE = bytes((24, 0, 0, 1, 0))
Connect = Callable[..., tuple[socket.socket, Relayed, Any]]


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as running:
        yield running


@pytest.fixture
def connect(loop: Loop, server_certificate: trustme.LeafCert, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Call it for (A, the relay, a client of the standard library); we are the server. Tickets count as records too."""
    monkeypatch.setattr("ktls.pump.LINGER", 0.3)
    opened: list[Any] = []

    def start(cipher: str = "TLS_AES_128_GCM_SHA256") -> tuple[socket.socket, Relayed, Any]:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        join: Callable[[], Any] = in_thread(lambda: context.wrap_socket(theirs))
        a, relayed = relay(loop, ours, server_certificate, cipher)
        peer = join()
        peer.settimeout(20)
        opened.extend([a, peer])
        return a, relayed, peer

    yield start
    for sock in opened:
        sock.close()


def relay(loop: Loop, sock: socket.socket, certificate: trustme.LeafCert, cipher: str) -> tuple[socket.socket, Relayed]:
    """Do a server's handshake without tickets, and relay; returns A too."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_tls13_ciphersuites(cipher.encode())
    certificate.configure_cert(context)
    lines: list[bytes] = []
    context.set_keylog_callback(lambda _, line: lines.append(line))
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    handshake(connection, sock)
    secrets = {line.split()[0]: bytes.fromhex(line.split()[2].decode()) for line in lines}
    name, version = connection.get_cipher_name(), connection.get_protocol_version_name()
    keys = None
    if version == "TLSv1.3" and name is not None:
        # Without tickets two empty sessions' worth are still sent: OpenSSL counts them, so do we.
        keys = TxKeys.from_secret(
            secrets[b"SERVER_TRAFFIC_SECRET_0"], by_openssl(name, Version.TLS13), sequence=STATEFUL_TICKETS
        )
    a, b = socket.socketpair()
    a.settimeout(20)
    return a, loop.start(connection, b, sock, strict=True, keys=keys)


STATEFUL_TICKETS = 2
"""NewSessionTicket records that OpenSSL's server writes even without stateless tickets."""


@pytest.mark.parametrize("cipher", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_the_peer_follows_our_key_updates_and_answers_them(connect: Connect, cipher: str) -> None:
    a, relayed, peer = connect(cipher)
    for turn in range(4):
        a.sendall(b"to the peer %d" % turn)
        assert exactly(peer, 13) == b"to the peer %d" % turn
        relayed.update_keys()
        peer.sendall(b"to the program %d" % turn)
        assert exactly(a, 16) == b"to the program %d" % turn
    a.close()
    assert peer.recv(1) == b""
    peer.close()
    assert relayed.end().error is None


def test_keys_change_in_the_middle_of_a_stream_both_ways(connect: Connect) -> None:
    a, relayed, peer = connect()
    block, count = os.urandom(100_000), 40
    writer = in_thread(lambda: a.sendall(block * count))
    reader = in_thread(lambda: exactly(a, len(block) * count))
    for turn in range(count):
        if turn % 3 == 0:
            relayed.update_keys()
        peer.sendall(block)
        assert exactly(peer, len(block)) == block
    writer()
    assert reader() == block * count


def test_the_peers_requests_are_answered_after_our_own_updates_too(
    loop: Loop, server_certificate: trustme.LeafCert
) -> None:
    """`K` makes s_client update its keys and ask for ours: OpenSSL answers here, with keys that are no longer ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-tls1_3", "-quiet"]
        client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        ours, _ = listener.accept()
    assert client.stdin is not None
    assert client.stdout is not None
    a, relayed = relay(loop, ours, server_certificate, "TLS_AES_256_GCM_SHA384")
    for turn in range(4):
        if turn % 2:
            relayed.update_keys()
        client.stdin.write(b"line %d\n" % turn)
        client.stdin.flush()
        assert exactly(a, 7) == b"line %d\n" % turn
        a.sendall(b"answer %d\n" % turn)
        assert client.stdout.readline() == b"answer %d\n" % turn
    client.stdin.close()
    client.stdout.close()
    client.kill()
    client.wait()
    a.close()
    relayed.end()


@pytest.fixture
def keys() -> TxKeys:
    return TxKeys.from_secret(os.urandom(32), by_openssl("TLS_AES_128_GCM_SHA256", Version.TLS13))


def test_records_are_counted_under_each_key(keys: TxKeys) -> None:
    openssl, sending = RecordProtection(keys), Sending(keys)
    sending.passed(b"".join(openssl.seal(ContentType.APPLICATION_DATA, b"x") for _ in range(5)))
    assert sending.records == 5
    sending.update()
    assert sending.records == 0
    sending.seal(memoryview(bytes(3 * MAX_PLAINTEXT + 1)))
    assert sending.records == 4


def test_an_answer_of_openssl_to_the_peers_update_is_followed_before_and_after_ours(keys: TxKeys) -> None:
    openssl, sending, peer = RecordProtection(keys), Sending(keys), RecordProtection(keys)
    current, expected = keys, keys

    def openssl_updates() -> bytes:
        nonlocal openssl, current
        record = openssl.seal(ContentType.HANDSHAKE, KEY_UPDATE)
        current = current.updated()
        openssl = RecordProtection(current)
        return sending.passed(record)

    def peer_takes(record: bytes, data: bytes) -> None:
        nonlocal peer, expected
        assert peer.open(record).data == data
        if data[:1] == b"\x18":
            expected = expected.updated()
            peer = RecordProtection(expected)

    peer_takes(openssl_updates(), KEY_UPDATE)
    peer_takes(sending.passed(openssl.seal(ContentType.APPLICATION_DATA, b"12345")), b"12345")  # as long as an update
    peer_takes(sending.update(), KEY_UPDATE[:4] + b"\1")
    peer_takes(openssl_updates(), KEY_UPDATE)
    peer_takes(sending.seal(memoryview(b"data")), b"data")
    peer_takes(sending.passed(openssl.seal(ContentType.ALERT, b"\1\0")), b"\1\0")


def test_a_count_that_went_wrong_sends_nothing(keys: TxKeys) -> None:
    openssl, sending = RecordProtection(keys), Sending(keys)
    openssl.seal(ContentType.APPLICATION_DATA, b"one that was not seen")
    sending.update()
    with pytest.raises(BadRecord):
        sending.passed(openssl.seal(ContentType.ALERT, b"\1\0"))


def test_tls_12_has_no_key_update() -> None:
    suite = by_openssl("ECDHE-RSA-AES128-GCM-SHA256", Version.TLS12)
    sending = Sending(TxKeys(suite=suite, version=Version.TLS12, key=bytes(16), iv=bytes(4), explicit_nonce=bytes(8)))
    assert not sending.can_update
    with pytest.raises(UsageError):
        sending.update()


def test_a_connection_is_closed_in_order_with_what_the_program_wrote_before(connect: Connect) -> None:
    a, relayed, peer = connect()
    watched = a.dup()
    a.sendall(b"last words")
    relayed.close()
    assert exactly(peer, 10) == b"last words"
    assert peer.recv(1) == b""  # close_notify: a cut would be an SSLEOFError
    peer.unwrap().close()
    assert a.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        a.sendall(b"more")
    watched.close()
    assert relayed.end().error is None


def test_a_peer_that_does_not_answer_a_close_is_not_waited_for(connect: Connect) -> None:
    a, relayed, peer = connect()
    peer.sendall(b"before")
    assert exactly(a, 6) == b"before"
    mark = relayed.pump._outside.dup()
    relayed.close()
    assert a.recv(1) == b""
    assert relayed.end().error is None
    assert mark.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT) == Mark.CLEAN
    mark.close()

"""Policy says TLS and something goes wrong: the errno of docs/design.md, nothing delivered, nothing leaked."""

import contextlib
import datetime
import errno
import os
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.e2e.harness import PATIENCE, sockets, until
from tests.e2e.peer import TlsPeer, client_context, server, server_context, stream_digest

MODES = ["blocking", "nonblocking"]


def silent(sock: socket.socket) -> None:
    """Read, and never answer."""
    while sock.recv(100000):
        pass


def tls(context: ssl.SSLContext):
    """A server that would send a secret if it were trusted, and hands over what it was sent."""

    def behave(sock: socket.socket) -> None:
        peer = TlsPeer(sock, context, server_side=True).handshake()
        peer.send(b"a secret")
        peer.receive()

    return behave


def leaf_files(tmp_path, leaf: trustme.LeafCert):
    chain, key = tmp_path / "leaf.pem", tmp_path / "leaf.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    return chain, key


def outcome(program, number: int) -> None:
    """The program printed exactly this errno and received nothing; its agent says the same."""
    (result,) = program.results()
    assert result.get("errno") == number, result
    assert "received" not in result
    assert program.event("failed")["errno"] == number


@pytest.fixture
def serve(covered, transfer_command, tls_files, free_port):
    """Start a covered server that sends five bytes to one client; returns (program, port)."""

    def start():
        port = free_port()
        command = transfer_command("server", f"127.0.0.1:{port}", 5)
        return covered(command, inbound=[port], cert=tls_files.cert, key=tls_files.key, wait_port=port), port

    return start


@pytest.mark.parametrize("mode", MODES)
def test_a_certificate_for_another_name_is_ekeyrejected(covered, transfer_command, tls_files, ca, tmp_path, mode):
    chain, key = leaf_files(tmp_path, ca.issue_cert("elsewhere.example"))
    with server(tls(server_context(chain, key))) as port:
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 5, mode), outbound=[port], ca=tls_files.ca)
        outcome(program, errno.EKEYREJECTED)


@pytest.mark.parametrize("mode", MODES)
def test_an_untrusted_issuer_is_ekeyrejected(covered, transfer_command, tls_files, tmp_path, mode):
    chain, key = leaf_files(tmp_path, trustme.CA().issue_cert("127.0.0.1"))
    with server(tls(server_context(chain, key))) as port:
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 5, mode), outbound=[port], ca=tls_files.ca)
        outcome(program, errno.EKEYREJECTED)


@pytest.mark.parametrize("days", [(-20, -10), (10, 20)], ids=["expired", "not yet valid"])
def test_a_certificate_outside_its_time_is_ekeyexpired(covered, transfer_command, tls_files, ca, tmp_path, days):
    now = datetime.datetime.now(datetime.UTC)
    leaf = ca.issue_cert(
        "127.0.0.1",
        not_before=now + datetime.timedelta(days=days[0]),
        not_after=now + datetime.timedelta(days=days[1]),
    )
    with server(tls(server_context(*leaf_files(tmp_path, leaf)))) as port:
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 5), outbound=[port], ca=tls_files.ca)
        outcome(program, errno.EKEYEXPIRED)


def test_a_revoked_certificate_is_ekeyrevoked(covered, transfer_command, tls_files, ca, tmp_path, write_policy, revoke):
    leaf = ca.issue_cert("127.0.0.1")
    crl = tmp_path / "ca.crl"
    crl.write_bytes(revoke(leaf))
    with server(tls(server_context(*leaf_files(tmp_path, leaf)))) as port:
        policy = write_policy(f"""
version = 1
[keyring.k]
trust = ["{tls_files.ca}"]
crl = ["{crl}"]
[[rule]]
name = "out"
direction = "outbound"
remote_port = ["{port}"]
verdict = "tls"
action = {{ keyring = "k", engine = "{{engine}}" }}
""")
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 5), policy=policy)
        outcome(program, errno.EKEYREVOKED)


@pytest.mark.parametrize("mode", MODES)
def test_clear_text_from_the_server_is_eproto(covered, transfer_command, tls_files, mode):
    def behave(sock: socket.socket) -> None:
        sock.sendall(b"220 mail.example ESMTP ready\r\n")
        sock.recv(1000)

    with server(behave) as port:
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 5, mode), outbound=[port], ca=tls_files.ca)
        outcome(program, errno.EPROTO)


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_peer_that_closes_in_the_handshake_is_econnreset(covered, transfer_command, tls_files, how):
    def behave(sock: socket.socket) -> None:
        sock.recv(1)
        if how == "RST":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            while sock.recv(1000, socket.MSG_DONTWAIT):
                pass

    def fin(sock: socket.socket) -> None:
        sock.recv(5)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass

    with server(fin if how == "FIN" else behave) as port:
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 5), outbound=[port], ca=tls_files.ca)
        outcome(program, errno.ECONNRESET)


def test_a_client_gone_before_it_was_accepted_is_econnreset(covered, tls_files, free_port):
    port = free_port()
    code = (
        "import socket\n"
        f"listener = socket.create_server(('127.0.0.1', {port}))\n"
        "input(); sock, _ = listener.accept()\n"
        "try: print(sock.recv(1))\n"
        "except OSError as error: print(error.errno)\n"
    )
    settings = {"inbound": [port], "cert": tls_files.cert, "key": tls_files.key, "stdin": subprocess.PIPE}
    server = covered([sys.executable, "-c", code], wait_port=port, **settings)
    socket.create_connection(("127.0.0.1", port)).close()
    out, _ = server.process.communicate("go\n", timeout=PATIENCE)
    assert out.split() == [str(errno.ECONNRESET)]
    assert server.event("failed")["error"] == "peer-closed"


@pytest.mark.parametrize("mode", MODES)
def test_a_silent_peer_is_etimedout_at_the_deadline(covered, transfer_command, tls_files, write_policy, mode):
    with server(silent) as port:
        policy = write_policy(f"""
version = 1
[keyring.k]
trust = ["{tls_files.ca}"]
[[rule]]
name = "out"
direction = "outbound"
remote_port = ["{port}"]
verdict = "tls"
action = {{ keyring = "k", engine = "{{engine}}", handshake_timeout = 0.5 }}
""")
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 5, mode), policy=policy)
        outcome(program, errno.ETIMEDOUT)


@pytest.mark.parametrize("mode", MODES)
def test_a_refused_tcp_connection_is_econnrefused_as_ever(covered, transfer_command, tls_files, free_port, mode):
    port = free_port()
    program = covered(transfer_command("client", f"127.0.0.1:{port}", 5, mode), outbound=[port], ca=tls_files.ca)
    assert program.results()[0]["errno"] == errno.ECONNREFUSED


def test_a_key_that_vanishes_before_the_first_connection_is_not_missed(
    covered, transfer_command, tls_files, write_policy, free_port, tmp_path
):
    """Keyrings are opened when the agent starts, not by the first connection that needs them."""
    port, key = free_port(), tmp_path / "gone.key"
    key.write_bytes(tls_files.key.read_bytes())
    policy = write_policy(f"""
version = 1
[keyring.k]
certificate = "{tls_files.cert}"
private_key = "{key}"
[[rule]]
name = "in"
direction = "inbound"
local_port = ["{port}"]
verdict = "tls"
action = {{ keyring = "k", engine = "{{engine}}" }}
""")
    program = covered(transfer_command("server", f"127.0.0.1:{port}", 5), policy=policy, wait_port=port)
    key.unlink()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(20)
        peer = TlsPeer(sock, client_context(tls_files.ca), hostname="localhost").handshake()
        assert peer.transfer(5) == (5, stream_digest(5))
    assert program.results()[0]["received"] == 5


def test_a_client_without_a_certificate_is_refused_where_one_is_required(
    covered, transfer_command, tls_files, write_policy, free_port
):
    port = free_port()
    policy = write_policy(f"""
version = 1
[keyring.k]
certificate = "{tls_files.cert}"
private_key = "{tls_files.key}"
trust = ["{tls_files.ca}"]
[[rule]]
name = "in"
direction = "inbound"
local_port = ["{port}"]
verdict = "tls"
action = {{ keyring = "k", engine = "{{engine}}", client_auth = "required" }}
""")
    program = covered(transfer_command("server", f"127.0.0.1:{port}", 5), policy=policy, wait_port=port)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        peer = TlsPeer(sock, client_context(tls_files.ca), hostname="localhost")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            peer.handshake().receive()  # TLS 1.3: the server's alert comes after the client is done
    outcome(program, errno.EKEYREJECTED)


def test_clear_text_from_a_client_is_eproto_and_never_reaches_the_program(serve):
    """Fig. 8B block 866: non-SSL data before the handshake is done fails it."""
    program, port = serve()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(20)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(1000):
                answer += data
        assert bytes(range(5)) not in answer  # what the program sends
        assert answer[:1] in (b"", b"\x15")  # at most an alert
    outcome(program, errno.EPROTO)


ABORT = """
import socket, struct, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"a part"); sock.recv(1)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""


@pytest.mark.parametrize("end", ["sock.close()", "import os, signal; os.kill(0, signal.SIGKILL)"])
def test_a_rst_of_the_program_is_a_rst_for_the_peer_and_no_good_end(covered, tls_files, end):
    seen: list[object] = []

    def behave(sock: socket.socket) -> None:
        peer = TlsPeer(sock, server_context(str(tls_files.cert), str(tls_files.key)), server_side=True).handshake()
        seen.append(peer.receive())
        peer.send(b"!")
        try:
            seen.append(peer.receive())
        except ConnectionResetError:
            seen.append("RST")

    with server(behave) as port:
        covered(
            [sys.executable, "-c", ABORT + end, str(port)], outbound=[port], ca=tls_files.ca, start_new_session=True
        )
        until(lambda: len(seen) == 2, "the peer to see the end")
    assert seen == [b"a part", "RST"]


def test_end_of_file_without_close_notify_is_econnreset_after_the_data(serve, tls_files):
    program, port = serve()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        peer = TlsPeer(sock, client_context(tls_files.ca), hostname="localhost").handshake()
        peer.send(b"cut off")
        assert peer.receive_exactly(5) == bytes(range(5))
        sock.shutdown(socket.SHUT_WR)
        (result,) = program.results()
    assert result["errno"] == errno.ECONNRESET


def test_end_of_file_without_close_notify_is_end_of_file_where_the_rule_is_lenient(
    covered, transfer_command, tls_files, free_port, write_policy
):
    port = free_port()
    policy = write_policy(f"""
version = 1
[keyring.k]
certificate = "{tls_files.cert}"
private_key = "{tls_files.key}"
[[rule]]
name = "in"
direction = "inbound"
local_port = ["{port}"]
verdict = "tls"
action = {{ keyring = "k", engine = "{{engine}}", eof = "lenient" }}
""")
    program = covered(transfer_command("server", f"127.0.0.1:{port}", 5), policy=policy, wait_port=port)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        peer = TlsPeer(sock, client_context(tls_files.ca), hostname="localhost").handshake()
        peer.send(b"cut off")
        assert peer.receive_exactly(5) == bytes(range(5))
        sock.shutdown(socket.SHUT_WR)
        (result,) = program.results()
    assert result["received"] == 7


@pytest.mark.parametrize("direction", ["outbound", "inbound"])
def test_a_denied_connection_carries_nothing(covered, transfer_command, write_policy, free_port, direction):
    port = free_port()
    which = "remote_port" if direction == "outbound" else "local_port"
    policy = write_policy(
        f'version = 1\n[[rule]]\nname = "no"\ndirection = "{direction}"\n{which} = ["{port}"]\nverdict = "deny"\n'
    )
    if direction == "outbound":
        with socket.create_server(("127.0.0.1", port)) as listener:
            program = covered(transfer_command("client", f"127.0.0.1:{port}", 5), policy=policy)
            assert program.results()[0]["errno"] == errno.EACCES
            sock, _ = listener.accept()
            with sock:
                assert sock.recv(100) == b""
    else:
        program = covered(transfer_command("server", f"127.0.0.1:{port}", 5), policy=policy, wait_port=port)
        with socket.create_connection(("127.0.0.1", port)) as sock, contextlib.suppress(ConnectionError):
            assert sock.recv(100) == b""
        assert program.results()[0]["errno"] == errno.ECONNABORTED


def test_a_program_whose_agent_is_gone_is_refused(serve):
    program, port = serve()
    os.kill(agent_of(program), 9)
    with socket.create_connection(("127.0.0.1", port)) as sock, contextlib.suppress(ConnectionError):
        assert sock.recv(100) == b""
    assert program.results()[0]["errno"] == errno.ECONNABORTED


def agent_of(program) -> int:
    """The process that listens on the program's agent socket."""
    environment = Path(f"/proc/{program.process.pid}/environ").read_text().split("\0")
    path = next(entry.split("=", 1)[1] for entry in environment if entry.startswith("KTLS_AGENT="))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(path)
        return struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def test_failed_connections_leave_no_descriptor_behind(covered, transfer_command, tls_files, free_port, fd_count):
    """In the program and in the agent, after twenty that failed and one that did not."""
    port, failures = free_port(), 20
    program = covered(
        transfer_command("server", f"127.0.0.1:{port}", 5, "asyncio", failures + 2),
        inbound=[port],
        cert=tls_files.cert,
        key=tls_files.key,
        wait_port=port,
    )
    agent = agent_of(program)

    def once(good: bool) -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock, contextlib.suppress(ConnectionError, ssl.SSLError):
            if good:
                TlsPeer(sock, client_context(tls_files.ca), hostname="localhost").handshake().transfer(5)
            else:
                sock.sendall(b"nonsense\n")
                while sock.recv(100):
                    pass

    once(good=True)
    until(lambda: program.events("end"), "the first connection's end")
    before = fd_count(program.process.pid), sockets(agent)
    for _ in range(failures):
        once(good=False)
    until(lambda: len(program.events("failed")) == failures, "the failures")
    # At its "end" the first connection may still have had some that are closed by now.
    until(
        lambda: fd_count(program.process.pid) <= before[0] and sockets(agent) <= before[1],
        f"descriptors to be back at {before}",
    )

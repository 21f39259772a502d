"""A connection belongs to whoever holds it: forks, new programs, kills. Only the last one says close_notify."""

import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import until
from tests.e2e.peer import TlsPeer, client_context, server_context

STEPS = [sys.executable, str(Path(__file__).parent / "programs" / "steps.py")]


@pytest.fixture
def connected(covered, tls_files, free_port):
    """A covered server that accepts one connection and does `steps`; returns (program, TLS client)."""
    sockets = []

    def start(*steps: str, **options):
        port = free_port()
        program = covered(
            [*STEPS, f"listen={port}", "accept", *steps],
            inbound=[port],
            cert=tls_files.cert,
            key=tls_files.key,
            wait_port=port,
            **options,
        )
        sockets.append(socket.create_connection(("127.0.0.1", port), timeout=60))
        return program, TlsPeer(sockets[-1], client_context(tls_files.ca), hostname="localhost").handshake()

    yield start
    for sock in sockets:
        sock.close()


@pytest.mark.qemu
def test_close_ends_with_close_notify(connected):
    _, peer = connected("write=bye", "close")
    assert peer.receive_exactly(3) == b"bye"
    assert peer.receive() == b""
    assert peer.saw_close_notify


def test_exit_without_close_ends_with_close_notify(connected):
    _, peer = connected("write=bye")
    assert peer.receive_exactly(3) == b"bye"
    assert peer.receive() == b""
    assert peer.saw_close_notify


def test_a_killed_program_ends_with_close_notify(connected):
    program, peer = connected("write=alive", "go", stdin=-1)
    assert peer.receive_exactly(5) == b"alive"
    program.process.send_signal(signal.SIGKILL)
    assert peer.receive() == b""
    assert peer.saw_close_notify


@pytest.mark.qemu
def test_shutdown_sends_close_notify_and_the_other_direction_goes_on(connected):
    program, peer = connected("write=mine", "shutdown", "read-all")
    assert peer.receive_exactly(4) == b"mine"
    assert peer.receive() == b""
    peer.send(b"still yours")
    peer.close_notify()
    assert {"step": "read-all", "got": "still yours"} in program.results()


def test_a_forked_child_uses_the_connection_and_its_end_does_not_end_it(connected):
    _, peer = connected("fork-child=write=child", "write=parent")
    assert peer.receive_exactly(11) == b"childparent"
    assert peer.receive() == b""
    assert peer.saw_close_notify


def test_a_child_that_outlives_its_parent_keeps_the_connection(covered, tls_files, free_port):
    """Fork per connection: the parent closes its copy and ends, the child goes on."""
    code = (
        "import os, socket, sys\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "sock, _ = listener.accept()\n"
        "if os.fork():\n    os._exit(0)\n"
        "sock.recv(2)\nsock.sendall(b'from the child')\n"
    )
    port = free_port()
    program = covered(
        [sys.executable, "-c", code, str(port)], inbound=[port], cert=tls_files.cert, key=tls_files.key, wait_port=port
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        peer = TlsPeer(sock, client_context(tls_files.ca), hostname="localhost").handshake()
        program.process.wait(60)
        peer.send(b"go")
        assert peer.receive_exactly(14) == b"from the child"
        assert peer.receive() == b""
        assert peer.saw_close_notify


def test_a_new_program_inherits_the_connection(connected):
    _, peer = connected("write=old ", "exec-child=write=new,read=2,write=!")
    assert peer.receive_exactly(7) == b"old new"
    peer.send(b"go")
    assert peer.receive_exactly(1) == b"!"
    assert peer.receive() == b""
    assert peer.saw_close_notify


def test_a_handshake_that_is_under_way_survives_a_fork(covered, tls_files, free_port):
    """Parent and child both hold the gate; both find the socket behind it when it opens."""
    port = free_port()
    program = covered(
        [*STEPS, f"listen={port}", "accept", "fork-child=write=child", "write=parent"],
        inbound=[port],
        cert=tls_files.cert,
        key=tls_files.key,
        wait_port=port,
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        until(lambda: len(children(program.process.pid)) == 1, "the child")
        peer = TlsPeer(sock, client_context(tls_files.ca), hostname="localhost").handshake()
        assert peer.receive_exactly(11) == b"childparent"
        assert peer.receive() == b""


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_the_agent_ends_when_the_last_program_has_gone(connected):
    program, peer = connected("write=x", "go", "close", own_agent=True, stdin=-1)
    environment = Path(f"/proc/{program.process.pid}/environ").read_bytes().split(b"\0")
    agent = next(entry.split(b"=", 1)[1] for entry in environment if entry.startswith(b"KTLS_AGENT="))
    peer.receive()
    program.finish()
    until(lambda: not Path(agent.decode()).parent.exists(), "the agent's directory to be removed")


def test_no_secret_is_in_the_agents_log_or_command_line(covered, tls_files, transfer_command):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 10), outbound=[port], ca=tls_files.ca)
        sock, _ = listener.accept()
        with sock:
            context = server_context(tls_files.cert, tls_files.key)
            keylog = tls_files.cert.parent / "peer-keylog"
            context.keylog_filename = str(keylog)
            assert isinstance(context, ssl.SSLContext)
            TlsPeer(sock, context, server_side=True).handshake().transfer(10)
        program.finish()
    secrets = {line.split()[2] for line in keylog.read_text().splitlines() if line and not line.startswith("#")}
    assert secrets
    written = program.log.read_text()
    assert not any(secret in written for secret in secrets)

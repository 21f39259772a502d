"""Limits that an operator sets before `ktls run`, an agent at the end of its own, and connections that change hands."""

import os
import resource
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import PATIENCE, as_words, until
from tests.e2e.peer import TlsPeer, client_context, server_context
from tests.e2e.talker import Talker

FILES = resource.RLIMIT_NOFILE


@pytest.fixture
def talker(tls_files, engine, tmp_path):
    """Call it for a program under `ktls run` with these settings; limit=(soft, hard) is set before."""
    started: list[Talker] = []

    def start(*, limit: tuple[int, int] | None = None, **settings) -> Talker:
        words = [sys.executable, "-m", "ktls", "run", "--log", str(tmp_path / "log"), *as_words(settings, engine), "--"]
        options = {"preexec_fn": lambda: resource.setrlimit(FILES, limit)} if limit else {}
        started.append(Talker(words, options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Server:
    """A TLS server that is not ours: call it for the next connection, with its handshake done."""

    def __init__(self, listener: socket.socket, tls_files) -> None:
        self.listener, self.tls_files = listener, tls_files
        self.port = listener.getsockname()[1]

    def accept(self) -> socket.socket:
        raw, _ = self.listener.accept()
        raw.settimeout(PATIENCE)
        return raw

    def handshake(self, raw: socket.socket) -> TlsPeer:
        context = server_context(self.tls_files.cert, self.tls_files.key)
        return TlsPeer(raw, context, server_side=True).handshake()

    def __call__(self) -> TlsPeer:
        return self.handshake(self.accept())


@pytest.fixture
def server(tls_files):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)

        yield Server(listener, tls_files)


@pytest.mark.parametrize(
    ("limit", "seen"),
    [((256, 4096), (256, 2040)), ((256, 256), (120, 120)), ((48, 48), (16, 16))],
    ids=["soft", "hard", "least"],
)
def test_a_limit_set_before_is_the_programs_limit(talker, server, tls_files, limit, seen):
    """A low hard limit is shared: half of it is for hidden descriptors."""
    program = talker(limit=limit, outbound=[server.port], ca=tls_files.ca)
    assert program.ask("resource.getrlimit(resource.RLIMIT_NOFILE)") == str(seen)
    program.tell(f"(connection := connect({server.port})) and connection.send(b'x')")
    peer = server()
    assert program.hear() == "1"
    assert peer.receive_exactly(1) == b"x"
    assert program.ask("[os.dup(0) for _ in range(5000)]") == "EMFILE"
    assert program.ask("connection.close()") == "None"
    assert peer.receive() == b""
    assert peer.saw_close_notify


def test_a_limit_too_low_for_anything_is_said_before_the_program_starts(talker, tls_files):
    program = talker(limit=(47, 47), outbound=[8443], ca=tls_files.ca)
    assert program.hear() == ""
    assert program.process.wait(PATIENCE) == 125


def test_an_agent_that_can_serve_no_more_refuses_and_serves_again_later(talker, server, tls_files, tmp_path):
    """With 128 descriptors it serves (128 - 64) * 3 / 4 / 2 = 24 connections; what is above is refused."""
    program = talker(limit=(64, 128), outbound=[server.port], ca=tls_files.ca)
    assert program.ask("(all := []) or 0") == "0"
    peers = []
    for number in range(1, 25):
        program.tell(f"all.append(connect({server.port})) or len(all)")
        peers.append(server())
        assert program.hear() == str(number)
    for _ in range(3):
        assert program.ask(f"connect({server.port})") == "EMFILE"
        with server.accept() as raw:
            assert raw.recv(100) == b""
    told = "24 connections are served already"
    until(lambda: (tmp_path / "log").read_text().count(told) == 3, "all three to be in the report")
    assert program.ask("all.pop().close()") == "None"
    assert peers[-1].receive() == b""
    peers.pop().sock.close()
    until(lambda: try_again(program, server), "the agent to serve again")


def try_again(program: Talker, server) -> bool:
    program.tell(f"connect({server.port}).send(b'x')")
    with server.accept() as raw:
        if not raw.recv(1, socket.MSG_PEEK):
            assert program.hear() == "EMFILE"
            return False
        server.handshake(raw)
        return program.hear() == "1"


def test_a_user_namespace_does_not_change_who_the_agent_sees(covered, server, tls_files):
    """Root of a namespace of its own is to the agent, which is outside, who it was before."""
    code = f"import socket; socket.create_connection(('127.0.0.1', {server.port})).send(b'x')"
    words = ["unshare", "-U", "-r", sys.executable, "-c", code]
    program = covered(words, outbound=[server.port], ca=tls_files.ca)
    assert server().receive_exactly(1) == b"x"
    seen = program.event("open")
    assert seen["user"] in (str(os.geteuid()), Path("/etc/passwd").read_text().partition(":")[0])


@pytest.fixture
def unix(tmp_path):
    """Call it with a program for a Unix connection to it, which is `unix` in the program."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "unix"))
        listener.listen()

        def meet(program: Talker) -> socket.socket:
            path = str(tmp_path / "unix")
            assert program.ask(f"(unix := socket.socket(socket.AF_UNIX)).connect({path!r})") == "None"
            sock, _ = listener.accept()
            sock.settimeout(PATIENCE)
            return sock

        yield meet


def test_a_connection_passed_to_a_process_without_the_shim_stays_encrypted(talker, unix, tls_files, free_port):
    """It writes and reads clear text, and the wire has records: the keys are in the kernel, or the relay is between."""
    port = free_port()
    program = talker(inbound=[port], cert=tls_files.cert, key=tls_files.key)
    assert program.ask(f"(listener := socket.create_server(('127.0.0.1', {port}))) and 0") == "0"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as raw:
        program.tell("(connection := listener.accept()[0]) and connection.send(b'mine ')")
        peer = TlsPeer(raw, client_context(tls_files.ca), hostname="localhost").handshake()
        assert program.hear() == "5"
        with unix(program) as ours:
            assert program.ask("socket.send_fds(unix, [b'here'], [connection.fileno()])") == "4"
            _, numbers, _, _ = socket.recv_fds(ours, 10, 1)
        assert program.ask("connection.close()") == "None"
        with socket.socket(fileno=numbers[0]) as connection:
            connection.sendall(b"yours")
            assert peer.receive_exactly(10) == b"mine yours"
            peer.send(b"for you")
            assert connection.recv(100) == b"for you"
        assert peer.receive() == b""
        assert peer.saw_close_notify
        assert not any(b"yours" in part for part in peer.wire)


def test_a_connection_from_a_process_without_the_shim_stays_as_it_was(talker, unix, tls_files, free_port):
    """It was in clear when it came, and is so to the end, on a port for which policy says TLS too."""
    port = free_port()
    program = talker(outbound=[port], ca=tls_files.ca)
    with socket.create_server(("127.0.0.1", port)) as listener, unix(program) as ours:
        with socket.create_connection(("127.0.0.1", port)) as made:
            socket.send_fds(ours, [b"here"], [made.fileno()])
        raw, _ = listener.accept()
        with raw:
            program.tell("(connection := socket.socket(fileno=socket.recv_fds(unix, 10, 1)[1][0])).send(b'in clear')")
            assert program.hear() == "8"
            assert raw.recv(100) == b"in clear"
            raw.sendall(b"and back")
            assert program.ask("connection.recv(100)") == "b'and back'"
            assert program.ask("connection.close()") == "None"
            assert raw.recv(100) == b""

"""The channel: who may ask, what is malformed, and that nobody can harm anybody else."""

import os
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ktls.agent import messages as m
from tests.agent.agent_process import AgentProcess, Shim, fill, tcp_pair, until
from tests.agent.conftest import StartAgent
from tests.ktls.relay_peer import in_thread


@pytest.fixture
def agent(start_agent: StartAgent) -> AgentProcess:
    return start_agent("handshake_timeout = 30.0")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = tcp_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def good_request(shim: Shim, context: ssl.SSLContext) -> None:
    """A whole protected connection, to show that the agent is well."""
    ours, theirs = tcp_pair()
    serve = in_thread(lambda: context.wrap_socket(theirs, server_side=True))
    with shim.ask(ours, name="localhost") as gated:
        assert gated.verdict() == (m.VerdictCode.TLS, 0)
        assert gated.outcome().outcome is m.Outcome.RELAY
        peer = serve()
        assert isinstance(peer, ssl.SSLSocket)
        gated.a.sendall(b"well")
        assert peer.recv(4) == b"well"
        peer.close()


def test_its_socket_is_for_its_user_alone(agent: AgentProcess) -> None:
    assert stat.S_IMODE(agent.path.stat().st_mode) == 0o600


def test_it_is_not_dumpable(agent: AgentProcess) -> None:
    """Then its files in /proc belong to root, and nobody of its own user can ptrace it."""
    status = Path(f"/proc/{agent.process.pid}/limits").read_text()
    assert next(line for line in status.splitlines() if "core file" in line).split()[4] == "0"
    code = "import ctypes; from ktls.agent.main import harden; harden(); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"0\n"  # PR_GET_DUMPABLE


REQUEST = m.pack_request(m.Request(m.RequestKind.CONNECT, False, 0, ("192.0.2.1", 443), None))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"X" + REQUEST[1:], "rb"),
        (REQUEST[:20], "rb"),
        (REQUEST + b"more", "rb"),
        (REQUEST + bytes(2000), "rb"),
        (REQUEST, ""),
        (REQUEST, "r"),
        (REQUEST, "rbb"),
        (REQUEST, "rb" * 20),
        (REQUEST, "br"),
        (REQUEST, "bb"),
        (REQUEST, "rr"),
        (REQUEST, "ru"),
        (REQUEST, "rf"),
        (REQUEST, "fb"),
        (REQUEST, "lb"),
        (b"x", ""),
    ],
)
def test_a_malformed_message_closes_its_channel_and_harms_no_other(
    agent: AgentProcess,
    pair: tuple[socket.socket, socket.socket],
    server_context: ssl.SSLContext,
    data: bytes,
    what: str,
) -> None:
    other, bad = agent.shim(), agent.shim()
    good_request(other, server_context)
    until(lambda: agent.events("end"), "the good connection's end")
    before = sorted(agent.fds())
    a, b = socket.socketpair()
    unix_datagram, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with Path("/dev/null").open() as file, socket.socket() as lonely:
        lonely.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kinds: dict[str, Any] = {
            "r": pair[0],
            "b": b,
            "u": unix_datagram,
            "f": file,
            "l": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        }
        bad.send(data, [kinds[letter].fileno() for letter in what])
        assert bad.is_closed()
        kinds["l"].close()
    b.close()
    assert a.recv(1) == b""  # nobody holds B any more: what came along is closed
    a.close()
    unix_datagram.close()
    _.close()
    assert len(before) - len(agent.fds()) == 1  # the channel
    good_request(other, server_context)


def test_a_notice_of_a_program_not_covered_is_written_down(agent: AgentProcess) -> None:
    shim = agent.shim()
    shim.send(m.pack_notice(m.Notice("/opt/thing is statically linked", allowed=True)), [])
    event = agent.event("uncovered")
    assert (event["message"], event["allowed"], event["pid"]) == ("/opt/thing is statically linked", True, os.getpid())
    shim.close()


def test_random_messages_do_not_end_it(agent: AgentProcess, server_context: ssl.SSLContext) -> None:
    keeper = agent.shim()
    for size in (1, 43, 44, 45, 512, 513, 4000):
        bad = agent.shim()
        bad.send(os.urandom(size), [])
        assert bad.is_closed()
    good_request(keeper, server_context)


def test_the_sender_is_who_sends_and_not_who_connected(
    agent: AgentProcess, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A channel is inherited by children."""
    shim = agent.shim()
    child = os.fork()
    if child == 0:
        shim.ask(pair[0]).verdict()
        os._exit(0)
    os.waitpid(child, 0)
    pair[1].close()
    assert agent.event("failed")["pid"] == child


@pytest.mark.parametrize(
    ("verdict", "expected"), [("clear", (m.VerdictCode.CLEAR, 0)), ("deny", (m.VerdictCode.DENY, 13))]
)
def test_clear_and_deny_are_answered_and_let_go(
    start_agent: StartAgent,
    pair: tuple[socket.socket, socket.socket],
    verdict: str,
    expected: tuple[m.VerdictCode, int],
) -> None:
    agent = start_agent(policy=f'[[rule]]\nname = "x"\nverdict = "{verdict}"\n')
    with agent.shim().ask(pair[0]) as gated:
        assert gated.verdict() == expected
        with pytest.raises(ConnectionResetError):  # B is closed, with the filler in it
            gated.a.recv(1)
    event = agent.event("clear" if verdict == "clear" else "denied")
    assert (event["rule"], event["verdict"]) == ("x", verdict)
    pair[1].close()


def test_fifty_clients_that_say_nothing_delay_nobody(agent: AgentProcess, server_context: ssl.SSLContext) -> None:
    shim = agent.shim()
    pairs = [tcp_pair() for _ in range(50)]
    stalled = [shim.ask(server, accepted=True) for _, server in pairs]
    for gated in stalled:
        assert gated.verdict() == (m.VerdictCode.TLS, 0)
    for number, (client, _) in enumerate(pairs):
        if number % 2:
            client.sendall(b"\x16\x03\x01\x02\x00")  # the first bytes of a ClientHello that never comes
    good_request(shim, server_context)
    assert not any(gated.is_open() for gated in stalled)
    for gated, (client, _) in zip(stalled, pairs, strict=True):
        gated.close()
        client.close()
    until(lambda: len(agent.events("failed")) == 50, "the fifty")


def test_a_killed_agent_leaves_gates_hung_up_and_nameless(
    agent: AgentProcess, pair: tuple[socket.socket, socket.socket]
) -> None:
    with agent.shim().ask(pair[1], accepted=True) as gated:
        assert gated.verdict()[0] is m.VerdictCode.TLS
        agent.process.kill()
        agent.process.wait()
        assert gated.a.getpeername() == ""
        assert gated.is_open()
        with pytest.raises(ConnectionResetError):  # the filler was not read
            gated.a.recv(1)


def test_a_killed_agent_leaves_no_mark_of_a_clean_end(agent: AgentProcess, server_context: ssl.SSLContext) -> None:
    ours, theirs = tcp_pair()
    serve = in_thread(lambda: server_context.wrap_socket(theirs, server_side=True))
    with agent.shim().ask(ours, name="localhost") as gated:
        gated.verdict()
        gated.outcome()
        peer = serve()
        agent.process.kill()
        agent.process.wait()
        assert gated.a.recv(1) == b""
        assert gated.mark() == 125
    peer.close()  # type: ignore[attr-defined]


def test_it_ends_when_the_last_channel_and_connection_have_gone(
    agent: AgentProcess, server_context: ssl.SSLContext
) -> None:
    first, second = agent.shim(), agent.shim()
    good_request(first, server_context)
    first.close()
    good_request(second, server_context)
    ours, theirs = tcp_pair()
    serve = in_thread(lambda: server_context.wrap_socket(theirs, server_side=True))
    gated = second.ask(ours, name="localhost")
    gated.verdict()
    gated.outcome()
    second.close()  # no channel is left, but a connection
    peer = serve()
    assert isinstance(peer, ssl.SSLSocket)
    gated.a.sendall(b"still")
    assert peer.recv(5) == b"still"
    assert agent.process.poll() is None
    gated.close()
    peer.close()
    assert agent.process.wait(20) == 0
    assert not agent.directory.exists()


def test_sigterm_ends_connections_in_order(agent: AgentProcess, server_context: ssl.SSLContext) -> None:
    shim = agent.shim()
    ours, theirs = tcp_pair()
    serve = in_thread(lambda: server_context.wrap_socket(theirs, server_side=True))
    silent, accepted = tcp_pair()
    stalled = shim.ask(accepted, accepted=True)
    with shim.ask(ours, name="localhost") as gated, stalled:
        gated.verdict()
        gated.outcome()
        peer = serve()
        agent.process.send_signal(signal.SIGTERM)
        assert isinstance(peer, ssl.SSLSocket)
        assert peer.recv(1) == b""  # close_notify: anything else raises
        peer.close()
        assert agent.process.wait(20) == 0
    silent.close()
    assert agent.events("failed")[0]["error"] == "stopped"


def test_an_agent_that_lingers_serves_the_next_program(start_agent: StartAgent, server_context: ssl.SSLContext) -> None:
    agent = start_agent(options=("--linger",))
    for _ in range(2):
        shim = agent.shim()
        good_request(shim, server_context)
        shim.close()
    assert agent.process.poll() is None


def test_two_hundred_connections_leave_no_descriptor(agent: AgentProcess, server_context: ssl.SSLContext) -> None:
    shim = agent.shim()
    good_request(shim, server_context)
    until(lambda: agent.events("end"), "the first one's end")
    before = len(agent.fds())
    for number in range(200):
        ours, theirs = tcp_pair()
        a, b = socket.socketpair()
        request = m.Request(m.RequestKind.ACCEPT, False, fill(a), ours.getpeername()[:2], None)
        shim.send(m.pack_request(request), [ours.fileno(), b.fileno()])
        for sock in (b, theirs if number % 2 else a, a if number % 2 else theirs, ours):
            sock.close()
    until(lambda: len(agent.events("failed")) == 200, "all failures")
    assert until(lambda: len(agent.fds()) == before, f"{before} descriptors, as before")


def test_a_filler_that_is_a_lie_closes_the_connection(
    agent: AgentProcess, pair: tuple[socket.socket, socket.socket]
) -> None:
    a, b = socket.socketpair()
    request = m.Request(m.RequestKind.ACCEPT, False, 100, pair[0].getpeername()[:2], None)
    agent.shim().send(m.pack_request(request), [pair[1].fileno(), b.fileno()])
    b.close()
    a.settimeout(20)
    assert struct.unpack("=cc2xi", a.recv(8))[1] == b"T"
    pair[0].sendall(b"not TLS, so the gate opens for a failure")
    assert a.recv(2) == b"!"
    a.close()
    assert agent.event("failed")["error"] == "clear-text"

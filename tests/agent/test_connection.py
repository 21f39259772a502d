"""One connection's life, as the program sees it through the gate and the operator in the report."""

import contextlib
import errno
import os
import select
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from ktls.agent import messages as m
from tests.agent.agent_process import AgentProcess, Gated, fill, tcp_pair, until
from tests.agent.conftest import StartAgent
from tests.ktls.relay_peer import in_thread

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
Open = Callable[..., tuple[Gated, Any]]


@pytest.fixture
def opened(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> Iterator[Open]:
    """Call it for a gate that opened, and its peer."""
    with contextlib.ExitStack() as stack:

        def start(agent: AgentProcess, *, accepted: bool = False, version: str = "1.3") -> tuple[Gated, Any]:
            client, server = tcp_pair()
            ours, theirs = (server, client) if accepted else (client, server)
            context = client_context if accepted else server_context
            context.minimum_version = context.maximum_version = VERSIONS[version]
            name = "localhost" if accepted else None
            wrap = in_thread(lambda: context.wrap_socket(theirs, server_side=not accepted, server_hostname=name))
            gated = stack.enter_context(agent.shim().ask(ours, accepted=accepted, name="localhost"))
            assert gated.verdict() == (m.VerdictCode.TLS, 0)
            assert gated.outcome().outcome is m.Outcome.RELAY
            return gated, stack.enter_context(wrap())  # type: ignore[arg-type]

        yield start


def failure(gated: Gated) -> int:
    """The errno with which the gate opened; the descriptor stays what it is."""
    assert gated.verdict() == (m.VerdictCode.TLS, 0)
    name = gated.outcome()
    assert name.outcome is m.Outcome.FAILED
    assert gated.a.recv(8, socket.MSG_PEEK) == b"!"
    return name.errno


@pytest.mark.parametrize("accepted", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_go_both_ways_and_the_report_has_two_lines(
    start_agent: StartAgent, opened: Open, version: str, accepted: bool
) -> None:
    agent = start_agent()
    gated, peer = opened(agent, accepted=accepted, version=version)
    data = os.urandom(100_000)
    writer = in_thread(lambda: gated.a.sendall(data))
    got = b""
    while len(got) < len(data):
        got += peer.recv(65536)
    assert got == data
    writer()
    peer.sendall(b"answer")
    assert gated.a.recv(100) == b"answer"
    gated.close()
    assert peer.recv(1) == b""
    peer.close()
    opening, ending = agent.event("open"), agent.event("end")
    assert opening["version"] == f"TLSv{version}"
    assert opening["engine"] == "relay"
    assert opening["direction"] == ("inbound" if accepted else "outbound")
    assert opening["program"] == str(Path("/proc/self/exe").readlink())
    assert (opening["pid"], opening["rule"]) == (os.getpid(), "all")
    assert opening["handshake_ms"] > 0
    assert opening["cipher"].startswith("TLS_")
    if not accepted:
        assert "localhost" in opening["peer_names"]
    assert (ending["ended"], ending["bytes_in"], ending["bytes_out"]) == ("closed", 6, len(data))


def test_the_gate_is_shut_until_it_has_a_name(start_agent: StartAgent, server_context: ssl.SSLContext) -> None:
    """Whoever is woken finds the result, and what a quick program writes is not taken for filler."""
    agent = start_agent()
    client, server = tcp_pair()
    with agent.shim().ask(client, name="localhost") as gated:
        gated.verdict()
        with pytest.raises(BlockingIOError):
            os.write(gated.a.fileno(), b"too early")
        assert not gated.is_open()
        assert gated.a.getpeername() == ""
        epoll = select.epoll()
        epoll.register(gated.a, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        epoll.poll(0)
        serve = in_thread(lambda: server_context.wrap_socket(server, server_side=True))
        assert epoll.poll(20)[0][1] & select.EPOLLOUT
        assert m.parse_gate_name(gated.a.getpeername()).outcome is m.Outcome.RELAY
        gated.a.sendall(b"quick")
        peer = serve()
        assert isinstance(peer, ssl.SSLSocket)
        assert peer.recv(100) == b"quick"
        peer.close()
        epoll.close()


@pytest.mark.parametrize(("action", "flag"), [("", True), ('eof = "lenient"', False)])
def test_the_rule_says_what_end_of_file_without_close_notify_is(
    start_agent: StartAgent, opened: Open, action: str, flag: bool
) -> None:
    agent = start_agent(action)
    gated, peer = opened(agent)
    assert ("s" in m.parse_gate_name(gated.a.getpeername()).flags) is flag
    peer.sendall(b"cut")
    socket.socket.shutdown(peer, socket.SHUT_WR)
    assert gated.a.recv(10) == b"cut"
    assert gated.a.recv(10) == b""
    assert gated.mark() == (125 if flag else 127)
    gated.close()
    assert agent.event("end")["ended"] == ("truncated" if flag else "closed")


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", [False, True], ids=["client", "server"])
def test_clear_text_from_the_peer_is_eproto(start_agent: StartAgent, accepted: bool) -> None:
    agent = start_agent()
    client, server = tcp_pair()
    ours, theirs = (server, client) if accepted else (client, server)
    with agent.shim().ask(ours, accepted=accepted) as gated:
        theirs.sendall(b"220 clear text\r\n")
        assert failure(gated) == errno.EPROTO
        while data := theirs.recv(1000):
            assert b"220" not in data
    theirs.close()
    event = agent.event("failed")
    assert (event["error"], event["errno_name"]) == ("clear-text", "EPROTO")
    assert event["hint"]


@pytest.mark.parametrize("accepted", [False, True], ids=["client", "server"])
@pytest.mark.parametrize("abortive", [False, True], ids=["FIN", "RST"])
def test_a_peer_that_goes_is_econnreset(start_agent: StartAgent, accepted: bool, abortive: bool) -> None:
    agent = start_agent()
    client, server = tcp_pair()
    ours, theirs = (server, client) if accepted else (client, server)
    with agent.shim().ask(ours, accepted=accepted) as gated:
        if not accepted:
            assert theirs.recv(1)  # the ClientHello is on its way
        if abortive:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        assert failure(gated) == errno.ECONNRESET


def test_an_untrusted_server_is_ekeyrejected_and_hears_the_alert(start_agent: StartAgent) -> None:
    agent = start_agent()
    client, server = tcp_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    serve = in_thread(lambda: context.wrap_socket(server, server_side=True))
    with agent.shim().ask(client, name="localhost") as gated:
        assert failure(gated) == errno.EKEYREJECTED
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            serve()
    server.close()


@pytest.mark.parametrize("accepted", [False, True], ids=["client", "server"])
def test_the_deadline_is_etimedout_and_resets_the_connection(start_agent: StartAgent, accepted: bool) -> None:
    agent = start_agent("handshake_timeout = 0.2")
    client, server = tcp_pair()
    ours, theirs = (server, client) if accepted else (client, server)
    with agent.shim().ask(ours, accepted=accepted) as gated:
        assert failure(gated) == errno.ETIMEDOUT
    until(lambda: theirs.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the reset: a FIN is no error")
    theirs.close()
    assert agent.event("failed")["error"] == "timeout"


def test_a_silent_client_may_stay_clear_by_rule(start_agent: StartAgent) -> None:
    agent = start_agent("handshake_timeout = 0.2\nallow_clear_on_timeout = true")
    client, server = tcp_pair()
    with agent.shim().ask(server, accepted=True) as gated:
        gated.verdict()
        assert gated.outcome().outcome is m.Outcome.CLEAR
        client.sendall(b"clear")
        assert server.recv(10) == b"clear"
        server.sendall(b"as well")
        assert client.recv(10) == b"as well"
    client.close()
    clear, end = agent.event("clear"), agent.event("clear-end")
    assert clear["error"] == "timeout"
    assert (end["id"], end["bytes_out"]) == (clear["id"], 7)
    assert end["bytes_in"] in (5, 6)  # TCP may count the peer's FIN


def test_a_client_that_began_tls_does_not_stay_clear(start_agent: StartAgent) -> None:
    agent = start_agent("handshake_timeout = 0.2\nallow_clear_on_timeout = true")
    client, server = tcp_pair()
    client.sendall(b"\x16\x03\x01")
    with agent.shim().ask(server, accepted=True) as gated:
        assert failure(gated) == errno.ETIMEDOUT
    client.close()


def test_a_keyring_whose_files_are_gone_serves_on(
    start_agent: StartAgent, opened: Open, tmp_path: Path, tls_files: Any
) -> None:
    """What was read at the start stays, also where no connection has needed it yet."""
    key = tmp_path / "key.pem"
    shutil.copy(tls_files.key, key)
    agent = start_agent(keyring=f'certificate = "{tls_files.cert}"\nprivate_key = "{key}"\n')
    key.unlink()
    gated, peer = opened(agent, accepted=True)
    peer.sendall(b"still served")
    assert gated.a.recv(12) == b"still served"


def test_an_engine_that_is_not_there_is_refused_and_not_replaced(start_agent: StartAgent) -> None:
    agent = start_agent('engine = "nic"')
    client, server = tcp_pair()
    wrap = in_thread(lambda: server.recv(100000))
    with agent.shim().ask(client, name="localhost") as gated:
        assert failure(gated) == errno.EPROTONOSUPPORT
    wrap()
    server.close()


def test_a_program_that_goes_ends_the_handshake(start_agent: StartAgent) -> None:
    agent = start_agent("handshake_timeout = 60.0")
    client, server = tcp_pair()
    gated = agent.shim().ask(client, name="localhost")
    gated.verdict()
    gated.close()
    while server.recv(1000):
        pass
    server.close()
    assert agent.event("failed")["error"] == "program-gone"


# --- connect() in progress -------------------------------------------------------------------------------------------


@pytest.fixture
def connecting() -> Iterator[Callable[[Any], socket.socket]]:
    opened = []

    def start(address: Any) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        opened.append(sock)
        assert sock.connect_ex(address) in (0, errno.EINPROGRESS)
        return sock

    yield start
    for sock in opened:
        sock.close()


def test_a_connect_in_progress_goes_on_to_the_handshake(
    start_agent: StartAgent, connecting: Callable[[Any], socket.socket], server_context: ssl.SSLContext
) -> None:
    agent = start_agent()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        r = connecting(listener.getsockname())
        with agent.shim().ask(r, connecting=listener.getsockname(), name="localhost") as gated:
            gated.verdict()
            accepted, _ = listener.accept()
            with server_context.wrap_socket(accepted, server_side=True) as peer:
                assert gated.outcome().outcome is m.Outcome.RELAY
                gated.a.sendall(b"hello")
                assert peer.recv(5) == b"hello"


def test_a_connect_that_is_refused_is_econnrefused(
    start_agent: StartAgent, connecting: Callable[[Any], socket.socket], free_port: Callable[[], int]
) -> None:
    agent = start_agent()
    address = ("127.0.0.1", free_port())
    with agent.shim().ask(connecting(address), connecting=address) as gated:
        assert failure(gated) == errno.ECONNREFUSED
    assert agent.event("failed")["error"] == "tcp"


# --- what belongs to the program -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodelay", [0, 1])
@pytest.mark.parametrize("blocking", [True, False])
def test_options_and_flags_of_the_programs_socket_are_as_before(
    start_agent: StartAgent, server_context: ssl.SSLContext, nodelay: int, blocking: bool
) -> None:
    agent = start_agent()
    client, server = tcp_pair()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
    client.setblocking(blocking)
    serve = in_thread(lambda: server_context.wrap_socket(server, server_side=True))
    with agent.shim().ask(client, name="localhost") as gated:
        gated.verdict()
        gated.outcome()
        peer = serve()
        assert isinstance(peer, ssl.SSLSocket)
        gated.a.sendall(b"x" * 1000)
        assert peer.recv(1000)
        assert bool(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is bool(nodelay)
        assert os.get_blocking(client.fileno()) is blocking
        peer.close()


def test_a_lingering_close_of_the_program_does_not_hold_up_the_agent(
    start_agent: StartAgent, opened: Open, server_context: ssl.SSLContext
) -> None:
    """SO_LINGER belongs to the socket, and the agent's close() may be the last one."""
    agent = start_agent()
    gated, _ = opened(agent)
    gated.r.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\x3c\0\0\0")
    gated.a.sendall(b"x" * 200_000)  # nobody reads: it stays in the socket
    gated.close()
    other, other_peer = opened(agent)
    other.a.sendall(b"in time")
    assert other_peer.recv(7) == b"in time"


def test_an_inbound_connection_has_no_name_whatever_the_server_resolved(start_agent: StartAgent) -> None:
    agent = start_agent()
    client, server = tcp_pair()
    with agent.shim().ask(server, accepted=True, name="client.example") as gated:
        client.sendall(b"no TLS")
        assert failure(gated) == errno.EPROTO
    client.close()
    assert "remote_name" not in agent.event("failed")


def test_a_peer_with_a_certificate_that_breaks_the_rules_is_only_refused(start_agent: StartAgent) -> None:
    """The handshake of a peer that sends garbage in TLS form."""
    agent = start_agent()
    shim = agent.shim()
    for garbage in (
        b"\x16\x03\x03\x00\x04\x02\x00\x00\x00",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x14\x03\x03\x00\x01\x01",
    ):
        client, server = tcp_pair()
        with shim.ask(client, name="localhost") as gated:
            server.sendall(garbage)
            assert failure(gated) == errno.EPROTO
        server.close()


def test_the_gates_of_two_connections_have_different_names(start_agent: StartAgent, opened: Open) -> None:
    agent = start_agent()
    names = {opened(agent)[0].a.getpeername() for _ in range(5)}
    assert len(names) == 5


def test_filler_of_a_minimal_buffer_is_small() -> None:
    a, b = socket.socketpair()
    assert 0 < fill(a) < 64
    a.close()
    b.close()

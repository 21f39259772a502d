"""A shared agent is killed and started again in the middle: nothing goes out in clear, and nobody starts anew."""

import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.harness import PATIENCE, until
from tests.e2e.peer import TlsPeer, client_context, server_context
from tests.e2e.talker import Talker

POLICY = """
version = 1
default = "clear"
[keyring.us]
certificate = "{cert}"
private_key = "{key}"
trust = ["{ca}"]
[action.tls]
keyring = "us"
engine = "{engine}"
[[rule]]
name = "in"
direction = "inbound"
local_port = ["{inbound}"]
verdict = "tls"
action = "tls"
[[rule]]
name = "out"
direction = "outbound"
remote_port = ["{outbound}"]
verdict = "tls"
action = "tls"
"""


class Agent:
    """`ktls agent`, killed and started again at will."""

    def __init__(self, folder: Path, policy: Path) -> None:
        self.socket = folder / "run" / "agent"
        self.words = [sys.executable, "-m", "ktls", "agent", "--socket", str(self.socket), "--policy", str(policy)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, stderr=subprocess.PIPE, text=True)
        until(self.serves, "the agent")

    def serves(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            return sock.connect_ex(str(self.socket)) == 0

    def signal(self, number: int) -> None:
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            stat = Path(f"/proc/{self.process.pid}/stat")
            until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the agent to stop")
        elif number != signal.SIGCONT:
            self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def ports(free_port):
    return {"inbound": free_port(), "outbound": free_port()}


@pytest.fixture
def agent(tmp_path, tls_files, engine, ports):
    policy = tmp_path / "policy.toml"
    files = {"ca": tls_files.ca, "cert": tls_files.cert, "key": tls_files.key}
    policy.write_text(POLICY.format(engine=engine, **files, **ports))
    running = Agent(tmp_path, policy)
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture
def program(agent, ports):
    talker = Talker([sys.executable, "-m", "ktls", "run", "--"], KTLS_AGENT=str(agent.socket))
    assert talker.ask(f"(listener := socket.create_server(('127.0.0.1', {ports['inbound']}))) and 0") == "0"
    yield talker
    talker.stop()


@pytest.fixture
def accepted(program, ports, tls_files):
    """Call it for the TLS client of a connection that the program has accepted as `connection`."""
    opened = []

    def accept() -> TlsPeer:
        opened.append(socket.create_connection(("127.0.0.1", ports["inbound"]), timeout=PATIENCE))
        program.tell("(connection := listener.accept()[0]) and connection.send(b'hello')")
        peer = TlsPeer(opened[-1], client_context(tls_files.ca), hostname="localhost").handshake()
        assert program.hear() == "5"
        assert peer.receive_exactly(5) == b"hello"
        return peer

    yield accept
    for sock in opened:
        sock.close()


def test_keys_in_the_kernel_outlive_the_agent(agent, program, accepted, engine):
    if engine == "relay":
        pytest.skip("the relay is the agent")
    peer = accepted()
    agent.signal(signal.SIGKILL)
    assert program.ask("connection.send(b'still here')") == "10"
    assert peer.receive_exactly(10) == b"still here"
    peer.send(b"and here")
    assert program.ask("connection.recv(100)") == "b'and here'"


def test_a_relayed_connection_ends_with_its_agent_as_a_reset_one(agent, program, accepted, engine):
    if engine != "relay":
        pytest.skip("the kernel needs no agent for what is open")
    peer = accepted()
    agent.signal(signal.SIGKILL)
    assert program.ask("connection.recv(100)") == "ECONNRESET"
    assert program.ask("connection.send(b'lost')") in ("EPIPE", "ECONNRESET")
    assert program.ask("connection.close()") == "None"
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        peer.receive()


def test_without_its_agent_a_closed_connection_is_cut_and_not_ended(agent, program, accepted):
    """close_notify at the last close() is the agent's to send; the peer learns that it may have missed something."""
    peer = accepted()
    agent.signal(signal.SIGKILL)
    assert program.ask("connection.close()") == "None"
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        peer.receive()


def test_without_its_agent_shutdown_still_says_close_notify(agent, program, accepted, engine):
    if engine == "relay":
        pytest.skip("the relay is the agent")
    peer = accepted()
    agent.signal(signal.SIGKILL)
    assert program.ask("connection.shutdown(socket.SHUT_WR)") == "None"
    assert peer.receive() == b""
    assert peer.saw_close_notify


def test_new_connections_fail_closed_until_the_agent_is_back_and_then_work(agent, program, accepted, ports, tls_files):
    agent.signal(signal.SIGKILL)
    with socket.create_server(("127.0.0.1", ports["outbound"])) as listener:
        listener.settimeout(PATIENCE)
        for _ in range(2):
            assert program.ask(f"connect({ports['outbound']})") == "ECONNREFUSED"
            raw, _ = listener.accept()
            with raw:
                assert raw.recv(100) == b""
        with socket.create_connection(("127.0.0.1", ports["inbound"])) as raw:
            assert program.ask("listener.accept()") == "ECONNABORTED"
            raw.settimeout(PATIENCE)
            assert ends_without_a_byte(raw)
        agent.start()
        program.tell(f"(outgoing := connect({ports['outbound']})) and outgoing.send(b'again')")
        raw, _ = listener.accept()
        with raw:
            peer = TlsPeer(raw, server_context(tls_files.cert, tls_files.key), server_side=True).handshake()
            assert program.hear() == "5"
            assert peer.receive_exactly(5) == b"again"
    peer = accepted()
    assert program.ask("connection.close()") == "None"
    assert peer.receive() == b""
    assert peer.saw_close_notify


def ends_without_a_byte(raw: socket.socket) -> bool:
    try:
        return raw.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_handshake_ends_with_the_agent(agent, program, ports):
    with socket.create_server(("127.0.0.1", ports["outbound"])) as listener:
        program.tell(f"connect({ports['outbound']})")
        raw, _ = listener.accept()
        with raw:
            assert raw.recv(1) == b"\x16"  # a ClientHello, which is not answered
            agent.signal(signal.SIGKILL)
            assert program.hear() == "ECONNREFUSED"


def test_a_second_agent_does_not_take_the_place_of_a_living_one(agent):
    second = subprocess.run(agent.words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert second.returncode == 2
    assert f"{agent.socket}: Address already in use" in second.stderr
    assert agent.serves()


def test_what_is_no_dead_agents_socket_is_left_alone(agent):
    agent.signal(signal.SIGKILL)
    agent.socket.unlink()
    agent.socket.write_text("precious")
    second = subprocess.run(agent.words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert second.returncode == 2
    assert agent.socket.read_text() == "precious"


def test_a_stopped_agent_is_waited_for(agent, program, ports, tls_files):
    agent.signal(signal.SIGSTOP)
    with socket.create_server(("127.0.0.1", ports["outbound"])) as listener:
        program.tell(f"(outgoing := connect({ports['outbound']})) and outgoing.send(b'late')")
        raw, _ = listener.accept()
        with raw:
            raw.settimeout(0.5)
            with pytest.raises(TimeoutError):
                raw.recv(1)
            raw.settimeout(PATIENCE)
            agent.signal(signal.SIGCONT)
            peer = TlsPeer(raw, server_context(tls_files.cert, tls_files.key), server_side=True).handshake()
            assert program.hear() == "4"
            assert peer.receive_exactly(4) == b"late"


def test_a_stopped_agent_is_not_waited_for_for_ever(agent, program, ports):
    """Not by those whose question is in its queue, and not by those for whose question there is no room."""
    agent.signal(signal.SIGSTOP)
    with socket.create_server(("127.0.0.1", ports["outbound"]), backlog=500) as listener:
        before = time.monotonic()
        assert program.ask(f"set(at_once(400, connect_result, {ports['outbound']}))") == "{'ECONNREFUSED'}"
        assert time.monotonic() - before > 10
        raw, _ = listener.accept()
        with raw:
            assert raw.recv(100) == b""
    agent.signal(signal.SIGCONT)

"""How connections in clear ended, and what went over them."""

import socket
import struct
from pathlib import Path

import pytest

from ktls.agent import messages as m
from tests.agent.agent_process import AgentProcess, Shim, tcp_pair, until
from tests.agent.conftest import StartAgent

CLEAR = 'default = "clear"\n'
WITH_TLS = '[[rule]]\nname = "tls"\nremote_port = ["1"]\nverdict = "tls"\naction = "a"\n'


@pytest.fixture
def agent(start_agent: StartAgent) -> AgentProcess:
    return start_agent(policy=CLEAR + WITH_TLS)


def clear(shim: Shim, r: socket.socket, *, accepted: bool = False) -> None:
    """Let the agent decide about R."""
    gated = shim.ask(r, accepted=accepted)
    assert gated.verdict() == (m.VerdictCode.CLEAR, 0)
    gated.a.close()


def test_both_ends_of_a_connection_are_told_with_their_bytes(agent: AgentProcess) -> None:
    shim = agent.shim()
    client, server = tcp_pair()
    clear(shim, client)
    clear(shim, server, accepted=True)
    client.sendall(b"x" * 1000)
    assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
    server.sendall(b"y" * 10)
    assert len(client.recv(10, socket.MSG_WAITALL)) == 10
    assert agent.events("clear-end") == []
    client.close()
    assert server.recv(1) == b""
    server.close()
    ends = {end["direction"]: end for end in until(lambda: two(agent), "two ends")}
    assert (ends["outbound"]["bytes_out"], ends["inbound"]["bytes_out"]) == (1000, 10)
    assert ends["outbound"]["bytes_in"] in (10, 11)  # TCP may count the FIN
    assert ends["inbound"]["bytes_in"] in (1000, 1001)
    assert {end["ended"] for end in ends.values()} == {"closed"}
    begun = {event["id"]: event for event in agent.events("clear")}
    assert all(end["remote"] == begun[end["id"]]["remote"] for end in ends.values())


def two(agent: AgentProcess) -> list[dict]:
    ends = agent.events("clear-end")
    return ends if len(ends) == 2 else []


def test_a_reset_is_told_as_one(agent: AgentProcess) -> None:
    client, server = tcp_pair()
    clear(agent.shim(), client)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    server.close()
    client.close()
    assert agent.event("clear-end")["ended"] == "reset"


def test_an_observed_connection_is_told_too(start_agent: StartAgent) -> None:
    agent = start_agent(policy='mode = "observe"\n' + WITH_TLS.replace('"1"', '"1-65535"'))
    client, server = tcp_pair()
    clear(agent.shim(), client)
    client.close()
    server.close()
    assert agent.event("clear-end")["id"] == agent.event("observed")["id"]


def test_the_kernel_is_listened_to_only_while_there_is_such_a_connection(agent: AgentProcess) -> None:
    shim = agent.shim()
    for _ in range(2):
        client, server = tcp_pair()
        clear(shim, client)
        assert len(listening(agent)) == 1
        client.close()
        server.close()
        until(lambda: not listening(agent), "nobody to listen")


def listening(agent: AgentProcess) -> set[str]:
    """The agent's netlink sockets."""
    rows = Path("/proc/net/netlink").read_text().splitlines()[1:]
    return {f"socket:[{row.split()[-1]}]" for row in rows} & set(agent.fds())


def test_the_agent_ends_although_a_connection_in_clear_goes_on(agent: AgentProcess) -> None:
    shim = agent.shim()
    client, server = tcp_pair()
    clear(shim, client)
    shim.close()
    assert agent.process.wait(20) == 0
    client.sendall(b"still here")
    assert server.recv(10) == b"still here"
    client.close()
    server.close()


def test_the_agent_that_nobody_needs_waits_for_the_last_end(agent: AgentProcess) -> None:
    shim = agent.shim()
    client, server = tcp_pair()
    clear(shim, client)
    client.close()
    server.close()
    shim.close()
    assert agent.process.wait(20) == 0
    assert len(agent.events("clear-end")) == 1

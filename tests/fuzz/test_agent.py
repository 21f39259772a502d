"""The live agent's socket: whatever comes closes that channel, or is answered, and nobody else notices."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktls.agent import messages as m
from tests.agent.agent_process import AgentProcess, Shim, tcp_pair, until
from tests.fuzz.parsers import _spoil
from tests.fuzz.script import Script

POLICY = '[[rule]]\nname = "nobody"\nverdict = "deny"\n'
KINDS = ("tcp", "unix", "lonely", "datagram", "file", "pipe")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One that denies everything: an answer at once, and nothing stays."""
    running = AgentProcess(tmp_path_factory.mktemp("agent"), POLICY)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def descriptors() -> Iterator[dict[str, int]]:
    """One of each kind, for any request to carry."""
    (ours, theirs), (a, b) = tcp_pair(), socket.socketpair()
    with ours, theirs, a, b, socket.socket() as lonely, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        read, write = os.pipe()
        with Path("/dev/null").open() as file, os.fdopen(read), os.fdopen(write, "w"):
            numbers = (ours.fileno(), b.fileno(), lonely.fileno(), datagram.fileno(), file.fileno(), read)
            yield dict(zip(KINDS, numbers, strict=True))


def is_answered(shim: Shim) -> bool:
    """A request that is right, on a channel of its own."""
    ours, theirs = tcp_pair()
    with ours, theirs, shim.ask(ours) as gated:
        return gated.verdict() == (m.VerdictCode.DENY, 13)


@pytest.mark.slow
def test_hostile_messages_and_descriptors_close_their_channel_alone(
    agent: AgentProcess, descriptors: dict[str, int]
) -> None:
    keeper = agent.shim()
    assert is_answered(keeper)
    before = len(agent.fds())

    @settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.lists(st.sampled_from(KINDS), max_size=20))
    def hostile(scripts: list[bytes], carried: list[str]) -> None:
        bad = Shim(agent.path)
        for data in scripts:
            script = Script(data)
            right = m.pack_request(m.Request(m.RequestKind.CONNECT, False, script.byte(), ("192.0.2.1", 443), "name"))
            kinds = script.pick([carried, ["tcp", "unix"]])
            try:
                bad.send(_spoil(script, right) or b"?", [descriptors[kind] for kind in kinds])
            except (BrokenPipeError, ConnectionResetError):
                break  # an earlier one has closed it
        bad.close()
        assert agent.process.poll() is None

    hostile()
    assert is_answered(keeper)
    until(lambda: len(agent.fds()) <= before, f"the agent to be back at {before} descriptors")

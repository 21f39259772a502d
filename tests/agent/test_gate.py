"""B, the agent's end of the gate, with a real socket pair as the shim makes it."""

import contextlib
import socket

import pytest

from ktls.agent.gate import Gate
from ktls.agent.messages import OPEN_BYTE, Outcome
from ktls.errors import AgentProtocolError
from ktls.poller import Poller

FILLER = 5


@pytest.fixture
def ends():
    """A, filled, and the gate around B."""
    a, b = socket.socketpair()
    with a, b, contextlib.closing(Poller()) as poller:
        a.send(bytes(FILLER))
        b.setblocking(False)
        yield a, Gate(b, FILLER, poller)


@pytest.mark.parametrize("outcome", [Outcome.KERNEL, Outcome.RELAY, Outcome.FAILED, Outcome.CLEAR])
def test_an_open_gate_has_a_name_and_no_filler(ends, outcome):
    a, gate = ends
    gate.open(outcome)
    assert a.getpeername() == gate.opened.pack()
    with pytest.raises(BlockingIOError):
        gate.sock.recv(1)


def test_an_open_gate_is_readable_but_for_the_relay_whose_stream_is_the_programs(ends):
    a, gate = ends
    gate.open(Outcome.KERNEL)
    assert a.recv(10) == OPEN_BYTE


@pytest.mark.parametrize("outcome", [Outcome.KERNEL, Outcome.RELAY])
def test_a_program_that_closed_just_before_leaves_an_end_of_file_and_no_filler(ends, outcome):
    a, gate = ends
    a.close()
    gate.open(outcome)
    assert gate.sock.recv(100) == b""


def test_less_filler_than_was_said_is_no_shim(ends):
    _, gate = ends
    gate.filler += 1
    with pytest.raises(AgentProtocolError, match="5 bytes of filler, not 6"):
        gate.open(Outcome.KERNEL)

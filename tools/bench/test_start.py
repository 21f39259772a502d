"""What `ktls run` adds to the start of a program: at most 100 ms with an agent running, 400 ms without.

`make bench` prints the numbers; the everyday run only sees that each way works. No time is asserted: a busy machine
is no bug.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

KTLS = str(Path(sys.executable).with_name("ktls"))


@pytest.fixture
def agent(tmp_path):
    """What a running agent looks like to the launcher."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen(4096)
        yield server.getsockname()


@pytest.mark.benchmark(group="start")
def test_bare(benchmark):
    benchmark(subprocess.run, ["/bin/true"], check=True)


@pytest.mark.benchmark(group="start")
def test_with_a_running_agent(benchmark, agent):
    environment = {**os.environ, "KTLS_AGENT": agent}
    benchmark(subprocess.run, [KTLS, "run", "--", "/bin/true"], env=environment, check=True)


@pytest.mark.benchmark(group="start")
def test_with_an_agent_of_its_own(benchmark):
    benchmark(subprocess.run, [KTLS, "run", "--outbound", "9", "--", "/bin/true"], check=True)

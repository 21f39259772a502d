"""Fixtures of the shim's tests: the scripted agent, a listener, and programs under the shim."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shim.harness import BASE, SHIM, UNDER, Peers, ScriptedAgent, raise_limit


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ScriptedAgent]:
    scripted = ScriptedAgent(tmp_path / "agent.sock")
    yield scripted
    scripted.stop()


@pytest.fixture
def listener() -> Iterator[Peers]:
    peers = Peers()
    yield peers
    peers.stop()


@pytest.fixture
def preloaded(agent: ScriptedAgent):
    """Call it with Python code for a program under the shim; `port` and what else is given become its globals."""
    running: list[subprocess.Popen] = []

    def start(code: str, *, allow_uncovered: bool = False, **values: object) -> subprocess.Popen:
        head = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        imports = "import errno, fcntl, os, select, signal, socket, struct, sys, threading, time\n"
        environment = {
            **os.environ,
            # Another build of the shim (with sanitizers) may be named, with what must be loaded before it.
            "LD_PRELOAD": os.environ.get("KTLS_SHIM", str(SHIM)),
            "KTLS_AGENT": str(agent.path),
            "KTLS_FD_BASE": str(BASE),
            **({"KTLS_UNCOVERED": "allow"} if UNDER else {}),
            **({"KTLS_UNCOVERED": "allow"} if allow_uncovered else {}),
        }
        process = subprocess.Popen(
            [*UNDER, sys.executable, "-c", imports + head + code],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=raise_limit,  # noqa: PLW1509 - one system call, no lock
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()

"""Agents and TLS peers for the agent's tests."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_process import AgentProcess

StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def start_agent(tmp_path: Path, tls_files: Any) -> Iterator[StartAgent]:
    """Call it with keys of the action, as TOML, for an agent that protects everything with the relay."""
    running: list[AgentProcess] = []

    def start(action: str = "", *, options: tuple[str, ...] = (), keyring: str = "", policy: str = "") -> AgentProcess:
        keyring = keyring or (
            f'certificate = "{tls_files.cert}"\nprivate_key = "{tls_files.key}"\ntrust = ["{tls_files.ca}"]\n'
        )
        if "engine" not in action:
            action = f'engine = "relay"\n{action}'
        text = policy or '[[rule]]\nname = "all"\nverdict = "tls"\naction = "a"\n'
        folder = tmp_path / f"agent{len(running)}"
        folder.mkdir()
        agent = AgentProcess(folder, f'{text}[action.a]\nkeyring = "k"\n{action}\n[keyring.k]\n{keyring}', *options)
        running.append(agent)
        return agent

    yield start
    for agent in running:
        agent.stop()


@pytest.fixture
def server_context(tls_files: Any) -> ssl.SSLContext:
    """A stdlib server's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files.cert, tls_files.key)
    return context


@pytest.fixture
def client_context(tls_files: Any) -> ssl.SSLContext:
    """A stdlib client's."""
    return ssl.create_default_context(cafile=str(tls_files.ca))

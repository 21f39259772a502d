"""A covered echo server, for tests that change its policy or its keyring while it runs."""

import json
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import PROGRAMS, Program
from tests.e2e.peer import TlsPeer, client_context

ECHO = [sys.executable, str(PROGRAMS / "echo.py")]
POLICY = """
version = 1
[[rule]]
name = "echo"
direction = "inbound"
local_port = ["{port}"]
verdict = "tls"
action = {{ keyring = "web", engine = "{{engine}}", {action} }}
[keyring.web]
certificate = "{folder}/cert.pem"
private_key = "{folder}/key.pem"
{keyring}
"""


@dataclass
class Served:
    """The echo server, and what it is under: the folder has its cert.pem and key.pem, and clients trust `ca`."""

    program: Program
    port: int
    folder: Path
    ca: Path
    policy: Path | None = None  # none where the keyring stands on the command line

    def connect(self, **options) -> TlsPeer:
        sock = socket.create_connection(("127.0.0.1", self.port))
        sock.settimeout(60)
        return TlsPeer(sock, client_context(str(self.ca), **options), hostname="localhost").handshake()

    def certificate(self) -> bytes:
        """What a new connection is shown."""
        peer = self.connect()
        shown = peer.tls.getpeercert(binary_form=True)
        peer.sock.close()
        assert shown is not None
        return shown

    def rewrite(self, old: str, new: str) -> None:
        """Change the policy as careful tools do: a new file, renamed over the old one."""
        assert self.policy is not None
        fresh = self.policy.with_name("new.toml")
        fresh.write_text(self.policy.read_text().replace(old, new))
        fresh.rename(self.policy)

    def end(self) -> dict:
        """Wait for the first connection's end, as the program saw it."""
        assert self.program.process.stdout is not None
        return json.loads(self.program.process.stdout.readline())


@pytest.fixture
def serve(covered, write_policy, tls_files, free_port, tmp_path, monkeypatch) -> Callable[..., Served]:
    """Call it with lines of the action and of the keyring, and where its files are: what changes is seen soon.

    A relative folder is, as in any policy, beside the policy. What is in it already is served as it is.
    """
    monkeypatch.setattr("ktls.agent.watching.START", 0.1)

    def start(action: str = "alpn = []", keyring: str = "", folder: Path = Path()) -> Served:
        port, files = free_port(), tmp_path / folder
        if not (files / "cert.pem").exists():
            shutil.copy(tls_files.cert, files / "cert.pem")
            shutil.copy(tls_files.key, files / "key.pem")
        policy = write_policy(POLICY.format(port=port, action=action, keyring=keyring, folder=folder))
        program = covered([*ECHO, str(port)], policy=policy, wait_port=port)
        return Served(program, port, files, tls_files.ca, policy)

    return start

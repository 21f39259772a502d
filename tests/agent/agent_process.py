"""An agent in a process of its own, and a stand-in for the shim that speaks docs/protocol.md to it."""

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktls.agent import messages as m

PATIENCE = 20.0  # seconds until a wait is given up as failed


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until `condition` gives something true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {PATIENCE:.0f} s in vain for {what}")


class AgentProcess:
    """`python -m ktls.agent` with a policy."""

    def __init__(self, folder: Path, policy: str, *options: str) -> None:
        self.directory = folder / "run"
        self.directory.mkdir(mode=0o700)
        self.path, self.log = self.directory / "s", folder / "report.jsonl"
        (folder / "policy.toml").write_text("version = 1\n" + policy)
        receive, send = os.pipe()
        words = ["--socket", str(self.path), "--policy", str(folder / "policy.toml")]
        words += ["--log", str(self.log), "--ready-fd", str(send), *options]
        self.process = subprocess.Popen([sys.executable, "-m", "ktls.agent", *words], pass_fds=[send])
        os.close(send)
        with os.fdopen(receive, "rb") as ready:
            assert ready.read() == b"ready\n"
        self._shims: list[Shim] = []

    def shim(self) -> "Shim":
        """Open a channel."""
        shim = Shim(self.path)
        self._shims.append(shim)
        return shim

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What it wrote down so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, lines) if kind in (None, line["event"])]

    def event(self, kind: str) -> dict[str, Any]:
        """Wait for the first event of a kind."""
        found: dict[str, Any] = until(lambda: self.events(kind), f"{kind!r}; so far {self.events()}")[0]
        return found

    def fds(self) -> list[str]:
        """What its descriptors are."""
        found = []
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(path.readlink()))
        return found

    def stop(self) -> None:
        """Let it end, however."""
        for shim in self._shims:
            shim.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()


class Gated:
    """One connection as the program has it: A, and R beside it."""

    def __init__(self, a: socket.socket, r: socket.socket) -> None:
        self.a, self.r = a, r
        a.settimeout(PATIENCE)

    def verdict(self) -> tuple[m.VerdictCode, int]:
        return m.parse_verdict(self.a.recv(8))

    def is_open(self) -> bool:
        """Whether A is readable, writable or hung up."""
        poll = select.poll()
        poll.register(self.a, select.POLLIN | select.POLLOUT)
        return bool(poll.poll(0))

    def outcome(self) -> m.GateName:
        """Wait for the gate to open, as a poller in the program does, and read how."""
        poll = select.poll()
        poll.register(self.a, select.POLLIN | select.POLLOUT)
        assert poll.poll(PATIENCE * 1000), "the gate stays closed"
        name = self.a.getpeername()
        assert name, "the gate is open, or hung up, without a name"
        outcome = m.parse_gate_name(name)
        if outcome.outcome is m.Outcome.RELAY:
            self.a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        return outcome

    def mark(self) -> int:
        return self.r.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT)

    def close(self) -> None:
        self.a.close()
        self.r.close()

    def __enter__(self) -> "Gated":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Shim:
    """A channel, used as the shim uses it."""

    def __init__(self, path: Path) -> None:
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(PATIENCE)
        self.channel.connect(str(path))

    def send(self, data: bytes, fds: list[int]) -> None:
        """One message, right or wrong."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.channel.sendmsg([data], rights)

    def is_closed(self) -> bool:
        """Wait for the agent to close the channel."""
        try:
            return self.channel.recv(1) == b""
        except ConnectionResetError:
            return True

    def ask(
        self, r: socket.socket, *, accepted: bool = False, name: str | None = None, connecting: Any = None
    ) -> Gated:
        """Put the gate up for R; `connecting` is the address of a connect() in progress."""
        a, b = socket.socketpair()
        address = connecting or r.getpeername()[:2]
        kind = m.RequestKind.ACCEPT if accepted else m.RequestKind.CONNECT
        request = m.Request(kind, bool(connecting), fill(a), address, name)
        self.send(m.pack_request(request), [r.fileno(), b.fileno()])
        b.close()
        return Gated(a, r)

    def close(self) -> None:
        self.channel.close()


def fill(a: socket.socket) -> int:
    """Make A neither readable nor writable; returns how many bytes that took."""
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    filler = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filler += a.send(b"\0", socket.MSG_DONTWAIT)
    return filler


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback: who connected, who accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):
        sock.settimeout(PATIENCE)
    return client, server

"""Where a soak happens: a folder, keys, agents, and programs under `ktls run`, all gone at the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import trustme

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0  # a lab kernel may have one slow processor
STOP_SECONDS = 20.0

POLICY = """version = 1
default = "clear"

[keyring.host]
certificate = "server.pem"
private_key = "server.key"
trust = ["ca.pem"]

[action.secure]
keyring = "host"
engine = "{engine}"

[[rule]]
name = "soak"
direction = "{direction}"
{side} = [{ports}]
verdict = "tls"
action = "secure"
"""


class SoakError(Exception):
    """It could not be run: nothing is known about the product."""


def say(text: str) -> None:
    """Tell of progress, on standard error."""
    print(f"soak: {text}", file=sys.stderr, flush=True)


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that must come.

    Raises:
        SoakError: it did not.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SoakError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether somebody listens on the port, asked without connecting to it."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows)


class Tally:
    """What an agent reports, counted. Its log is a FIFO, so that a long run fills no disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: Counter[str] = Counter()
        self.engines: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.examples: dict[str, dict[str, object]] = {}
        os.mkfifo(path, 0o600)
        # Opened for writing as well: neither opening nor an agent's end is then an end of file.
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def standing(self) -> int:
        """Connections that were opened and have not been reported as ended."""
        return self.events["open"] - self.events["end"]

    def wait(self, seconds: float) -> None:
        """Wait until the last lines have been read, if every connection has ended."""
        deadline = time.monotonic() + seconds
        while self.standing and time.monotonic() < deadline:
            time.sleep(0.05)

    def _read(self) -> None:
        with os.fdopen(self._fd, "rb") as lines:
            for line in lines:
                self._count(line)

    def _count(self, line: bytes) -> None:
        if not line.startswith(b"{"):  # a word of the agent itself, on its standard error
            self.failures["said: " + line.decode(errors="replace").strip()[:100]] += 1
            return
        event = json.loads(line)
        kind = event["event"]
        self.events[kind] += 1
        if kind == "open":
            self.engines[event["engine"]] += 1
        elif kind == "end":
            if event["ended"] != "closed":
                self._fail(f"ended: {event['ended']}", event)
        else:
            self._fail(f"{kind}: {event.get('error', event.get('reason', '?'))}", event)

    def _fail(self, reason: str, event: dict[str, object]) -> None:
        self.failures[reason] += 1
        self.examples.setdefault(reason, event)


class Agent:
    """One `ktls agent`, and what it reports."""

    def __init__(self, folder: Path, name: str, engine: str, direction: str, ports: list[int]) -> None:
        self.name = name
        policy = folder / f"{name}.toml"
        side = "local_port" if direction == "inbound" else "remote_port"
        numbers = ", ".join(f'"{port}"' for port in ports)
        policy.write_text(POLICY.format(engine=engine, direction=direction, side=side, ports=numbers))
        self.socket = folder / f"{name}.sock"
        self.tally = Tally(folder / f"{name}.log")
        words = [sys.executable, "-m", "ktls", "agent", "--socket", str(self.socket), "--policy", str(policy)]
        with (folder / f"{name}.log").open("ab", buffering=0) as errors:
            self.process = subprocess.Popen([*words, "--log", str(self.tally.path)], cwd=ROOT, stderr=errors)
        until(lambda: self.socket.exists() or self.process.poll() is not None, START_SECONDS, f"the agent {name}")

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.process.pid


class Stage:
    """A folder with credentials, and the processes started in it. To be used in a with statement."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="ktls-soak-"))
        self.folder.chmod(0o700)
        self.agents: list[Agent] = []
        self._programs: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Stage":
        authority = trustme.CA()
        server = authority.issue_cert("localhost", *(f"127.0.0.{number}" for number in range(1, 33)))
        (self.folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
        key = self.folder / "server.key"
        key.touch(0o600)
        key.write_bytes(server.private_key_pem.bytes())
        authority.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in reversed(self._programs):
            stop(program)
        for agent in self.agents:
            stop(agent.process)
        shutil.rmtree(self.folder)

    def agent(self, name: str, direction: str, ports: list[int]) -> Agent:
        """Start an agent that protects these ports."""
        agent = Agent(self.folder, name, self.engine, direction, ports)
        self.agents.append(agent)
        return agent

    def start(self, agent: Agent, command: list[str], **options: object) -> "subprocess.Popen[str]":
        """Start a program under `ktls run`."""
        environment = {**os.environ, "KTLS_AGENT": str(agent.socket), "PYTHONPATH": f"{ROOT / 'tools'}:{ROOT}"}
        words = [sys.executable, "-m", "ktls", "run", "--", *command]
        settings: dict[str, object] = {"env": environment, "cwd": ROOT, "text": True, **options}
        program: subprocess.Popen[str] = subprocess.Popen(words, **settings)  # type: ignore[call-overload]
        self._programs.append(program)
        return program

    def serve(self, agent: Agent, command: list[str], port: int) -> "subprocess.Popen[str]":
        """Start a server and wait until it listens.

        Raises:
            SoakError: it does not.
        """
        if shutil.which(command[0]) is None:
            raise SoakError(f"{command[0]} is not installed: tools/packages programs")
        server = self.start(agent, command, stdout=subprocess.DEVNULL)
        until(lambda: listens(port) or server.poll() is not None, START_SECONDS, f"{command[0]} to listen")
        if server.poll() is not None:
            raise SoakError(f"{command[0]} ended at once, status {server.returncode}")
        return server


def stop(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """End a process, whatever it is doing."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()

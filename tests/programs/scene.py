"""One scenario: real programs, started under `ktls run` or without it, and what their agents wrote down about them."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import TlsFiles
from tests.e2e.harness import PATIENCE, Program, check_log, fork_agent, listens, sockets, until
from tests.e2e.peer import OPENED
from tests.programs.results import Results

MEASURE = os.environ.get("KTLS_PROGRAMS_MEASURE") == "1"
Ended = subprocess.CompletedProcess[bytes]


@dataclass
class Agent:
    """An agent of one program. A channel of our own keeps it, so that it can be looked at when its programs are gone.

    `ports` are those that policy covers, `expected` what the scenario says may happen to connections.
    """

    path: Path
    program: Program
    ports: frozenset[int]
    expected: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.channel = self.connect()
        with self.connect() as barrier:  # once the agent ends this one, it has taken the other, and is settled
            barrier.shutdown(socket.SHUT_WR)
            barrier.recv(1)
        self.pid = int.from_bytes(self.channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        self.before = sockets(self.pid)

    def connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.connect(str(self.path))
        return channel

    def covered(self) -> list[dict]:
        """The events about the covered ports."""

        def port(event: dict) -> int:
            address = event.get("remote" if event.get("direction") == "outbound" else "local", "")
            return int(str(address).rpartition(":")[2] or 0)

        return [event for event in self.program.events() if "direction" not in event or port(event) in self.ports]

    def count(self, event: str) -> int:
        return len(self.program.events(event))

    def check(self, engine: str) -> None:
        """Every connection was protected by this engine and ended in order; nothing is left of them."""
        name = self.program.arguments[self.program.arguments.index("--") + 1 :][:2]
        until(lambda: sockets(self.pid) <= self.before, f"{name}: its agent to have {self.before} sockets again")
        until(lambda: self.count("open") == self.count("end"), f"{name}: an end of each connection")
        events = self.covered()
        opened = [event for event in events if event["event"] == "open"]
        assert opened, f"{name}: no connection was protected; {self.program.events()}"
        assert {event["engine"] for event in opened} == {engine}, opened
        odd = [event for event in events if event["event"] not in ("open", "end")]
        odd += [event for event in events if event["event"] == "end" and event["ended"] != "closed"]
        odd = [event for event in odd if event.get("error", event["event"]) not in self.expected]
        assert not odd, f"{name}: {[(event.get('error', event['event']), event.get('message')) for event in odd[:5]]}"


@dataclass
class Scene:
    """What a test starts programs with. Everything a scenario starts is ended, and checked, at its end.

    Attributes:
        engine: which engine must protect every connection.
        folder: a folder for files; every user may enter it, since servers give up root.
        tls: certificate, key and authority.
        covered: False when the scenario runs without us, to be measured against.
    """

    engine: str
    folder: Path
    tls: TlsFiles
    results: Results
    free_port: Callable[[], int]
    covered: bool = True
    expected: set[str] = field(default_factory=set)
    agents: list[Agent] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)

    def port(self) -> int:
        """A TCP port nobody uses."""
        return self.free_port()

    def load(self, small: int, large: int) -> int:
        """How much to do: `large`, good for about 2 s, only when the scenario is measured; a tenth of it in the lab."""
        return max(small, large // (10 if self.engine == "kernel" else 1)) if MEASURE else small

    def file(self, name: str, data: bytes | str, mode: int = 0o644) -> Path:
        """A file in the folder, for everybody to read."""
        path = self.folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        return path

    def directory(self, name: str, mode: int = 0o777) -> Path:
        """A folder in the folder, for everybody to write."""
        path = self.folder / name
        path.mkdir()
        path.chmod(mode)
        return path

    # --- programs ------------------------------------------------------------------------------------------------

    def serve(
        self,
        command: list[str],
        port: int,
        *,
        outbound: Iterable[int] = (),
        covered: bool = True,
        ready: Callable[[], object] | None = None,
        **options: Any,
    ) -> Program:
        """Start a server with TLS at `port` (and towards the ports `outbound`) and wait until it listens."""
        program = self._start(command, [port], list(outbound), covered, options)
        ended = lambda: program.process.poll() is not None  # noqa: E731
        until(lambda: ended() or (ready() if ready else listens(port)), f"{command[0]} on port {port}: {said(program)}")
        assert not ended(), f"{command[0]} ended with {program.process.returncode}: {said(program)}"
        return program

    def begin(self, command: list[str], *ports: int, covered: bool = True, **options: Any) -> Program:
        """Start a client whose connections to these ports are TLS; it is the scenario's to finish."""
        return self._start(command, [], list(ports), covered, options)

    def use(
        self,
        command: list[str],
        *ports: int,
        input: bytes = b"",
        covered: bool = True,
        status: int = 0,
        timeout: float = PATIENCE,
        **options: Any,
    ) -> Ended:
        """Run a client whose connections to these ports are TLS, to its end, which must have this status."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        program = self.begin(command, *ports, covered=covered, **{**pipes, **options})
        try:
            out, err = program.process.communicate(input, timeout=timeout)  # type: ignore[arg-type]
        except subprocess.TimeoutExpired as late:
            raise AssertionError(
                f"{command[:2]} is not done after {timeout} s: {late.stderr!r} {self.said()}"
            ) from late
        if program.process.returncode != status:
            raise AssertionError(f"{command} gave {program.process.returncode}: {err!r} {self.said()}")
        return Ended(command, status, out, err)  # type: ignore[arg-type]

    def serve_plain(self, command: list[str], port: int, **options: Any) -> Program:
        """Start a server that we have no part in."""
        return self.serve(command, port, covered=False, **options)

    def use_plain(self, command: list[str], **options: Any) -> Ended:
        """Run a client that we have no part in."""
        return self.use(command, covered=False, **options)

    def _start(
        self, command: list[str], inbound: list[int], outbound: list[int], covered: bool, options: dict
    ) -> Program:
        number = len(self.programs)
        output = self.folder / f"program-{number}.out"
        log = self.folder / f"agent-{number}.log"
        environment = {**os.environ, **(options.pop("env", None) or {})}
        words = list(command)
        path = None
        if covered and self.covered and (inbound or outbound):
            settings: dict = {}
            if inbound:
                settings |= {"inbound": inbound, "cert": self.tls.cert, "key": self.tls.key}
            if outbound:
                settings |= {"outbound": outbound, "ca": self.tls.ca}
            path = fork_agent(settings, self.engine, log)
            environment["KTLS_AGENT"] = str(path)
            words = [sys.executable, "-m", "ktls", "run", "--", *words]
        else:
            words = ["env", "--", *words]
        program = Program(words, log)
        if path is not None:
            self.agents.append(Agent(path, program, frozenset([*inbound, *outbound]), self.expected))
        with output.open("wb") as file:
            streams = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
            program.start(**{**streams, "cwd": self.folder, "text": False, "env": environment, **options})
        self.programs.append(program)
        return program

    def said(self) -> str:
        """What all programs wrote, shortened."""
        return "; ".join(said(program) for program in self.programs)

    # --- results -------------------------------------------------------------------------------------------------

    def expect(self, *words: str) -> None:
        """Say what may happen to a connection besides its being closed in order: "reset", "program-gone"..."""
        self.expected.update(words)

    def row(self, program: str, version: str, found: str = "") -> None:
        """Name the program of this scenario for docs/programs.md, and what was found with it."""
        self.program = program
        self.results.row(program, version, found)

    def rate(self, unit: str, value: float) -> None:
        """Note how fast it was, after `row`; kept only when scenarios are measured."""
        if MEASURE:
            self.results.rate(self.program, unit, value, covered=self.covered)

    # --- the end -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        while OPENED:
            OPENED.pop().close()
        for program in reversed(self.programs):
            with contextlib.suppress(ProcessLookupError):
                program.stop()

    def check(self) -> None:
        """After `stop`: what the agents say about the connections."""
        for program in self.programs:
            check_log(program.log)
        for agent in self.agents:
            agent.check(self.engine)

    def close(self) -> None:
        for agent in self.agents:
            agent.channel.close()


def said(program: Program) -> str:
    """The end of what a program wrote into its file."""
    output = program.log.with_name(program.log.name.replace("agent", "program")).with_suffix(".out")
    return output.read_bytes()[-1500:].decode(errors="replace").strip() if output.exists() else ""


def open_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder that every user may enter."""
    folder = tempfile.TemporaryDirectory(prefix="programs-")
    Path(folder.name).chmod(0o755)
    return folder

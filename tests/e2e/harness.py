"""Programs under `ktls run`, and what their agents wrote down."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ktls.agent.main import AgentSettings, run
from ktls.sources import Source
from ktls.spawn import runtime_directory, start_agent
from policy.load import load
from policy.secure_port import secure_port

T = TypeVar("T")
PROGRAMS = Path(__file__).parent / "programs"
PATIENCE = 60.0 if os.environ.get("KTLS_REQUIRE_LAB") else 20.0  # seconds until a wait is given up as failed


def can_rekey() -> bool:
    """Whether this run's engine follows a KeyUpdate: the relay always, the kernel where the probe says so."""
    if os.environ.get("KTLS_TEST_ENGINE", "relay") == "relay":
        return True
    from ktls.probe import probe

    return probe().rekey


def until(condition: Callable[[], T], what: str) -> T:
    """Poll until `condition` gives something true; the value it gave."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE:.0f} s in vain for {what}")


def listens(port: int) -> bool:
    """Whether somebody listens on the port, asked without connecting to it."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = Path(table).read_text().splitlines()[1:]
        if any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows):
            return True
    return False


def sockets(pid: int) -> int:
    """Count a process's sockets. Other descriptors come and go: an agent watches files from its first second on."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(entry.readlink()).startswith("socket:")
    return count


@dataclass
class Program:
    """One program under `ktls run`."""

    arguments: list[str]
    log: Path
    stumbles: bool = False
    process: subprocess.Popen[str] = field(init=False)

    def start(self, **options: object) -> "Program":
        settings: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        self.process = subprocess.Popen(self.arguments, **settings)
        return self

    def finish(self, timeout: float = PATIENCE) -> tuple[int, str, str]:
        """Wait for its end: (status, standard output, standard error)."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def results(self) -> list[dict]:
        """Wait for its end; the JSON lines it printed."""
        _, out, _ = self.finish()
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def events(self, kind: str | None = None) -> list[dict]:
        """What its agent wrote down so far."""
        if not self.log.exists():
            return []
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return [line for line in lines if kind in (None, line.get("event"))]

    def event(self, kind: str) -> dict:
        """Wait for the first event of a kind."""
        return self.told(1, kind)[0]

    def told(self, count: int, *kinds: str) -> list[dict]:
        """Wait for so many events of these kinds; all of them.

        The agent writes down what it did after it did it, so a program may have ended before.
        """

        def events() -> list[dict]:
            found = [event for event in self.events() if event["event"] in kinds]
            return found if len(found) >= count else []

        return until(events, f"{count} events of {kinds}; so far {self.events()}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr, self.process.stdin):
            if pipe:
                pipe.close()


def check_log(log: Path) -> None:
    """Fail when an agent stumbled over a mistake of ours: a test can pass all the same, or fail for no clear reason."""
    text = log.read_text() if log.exists() else ""
    assert "Traceback" not in text, text[max(0, text.index("Traceback") - 300) :]


SETTINGS = ("inbound", "outbound", "cert", "key", "ca", "policy")


def as_words(options: dict[str, Any], engine: str) -> list[str]:
    """The settings as `ktls run` takes them on its command line."""
    words = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(one)]
    return words if "policy" in options or not options else [*words, "--engine", engine]


def fork_agent(options: dict[str, Any], engine: str, log: Path) -> Path:
    """Start an agent with these settings, as the launcher does it; returns the path of its socket."""
    policy = load(options["policy"]) if "policy" in options else secure_port(
        inbound=options.get("inbound", []),
        outbound=[(None, port) for port in options.get("outbound", [])],
        certificate=options.get("cert"),
        private_key=options.get("key"),
        trust=(str(options["ca"]),) if "ca" in options else (),
        engine=engine,
    )  # fmt: skip

    def body(path: Path, ready: int) -> None:
        file = Path(options["policy"]) if "policy" in options else None
        run(AgentSettings(source=Source(policy, file), socket_path=path, log=log, ready_fd=ready))

    return start_agent(body, runtime_directory(os.environ), log)

"""Before and after, side by side, and what is wrong with it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from .counts import Counts
from .stage import Agent

AGENT_THREADS = 16
"""An agent's pools fill as they are needed: handshakes, rekeys, looks for other holders (ktls/agent/shared.py)."""
EXPLAINED = {
    "failed: program-gone": "a client was gone in the handshake, closed or killed",
    "failed: peer-closed": "the server's end of the same",
    "ended: peer-closed": "a client's RST",
}
"""What clients that abort and are killed make agents report. Nothing else may be reported."""
TLS_ERRORS = ("TlsDecryptError", "TlsRxNoPadViolation", "TlsTxRekeyError", "TlsRxRekeyError")
"""Kernel counters that no abort explains: a RST ends a connection between records, never within one that is opened."""


@dataclass(slots=True)
class Verdict:
    """How a run went.

    Attributes:
        title: what was run.
        figures: what it did, for the table.
        before: counts before the load, after a first load has warmed everything up.
        after: counts in the quiet after it.
        agents: whose reports are looked at.
        rss: KiB that a process may have grown by, by the first word of its name.
        faults: what went wrong.
    """

    title: str
    figures: dict[str, object]
    before: Counts
    after: Counts
    agents: list[Agent]
    rss: dict[str, int]
    faults: list[str] = field(default_factory=list)

    def judge(self, engine: str) -> "Verdict":
        """Compare everything that must be alike."""
        self._judge_processes()
        for name, value in self.after.network.items():
            if value != self.before.network[name]:
                self.faults.append(f"sockets ({name}): {self.before.network[name]} before, {value} after")
        for name, value in self.after.tls.items():
            if (name.startswith("TlsCurr") or name in TLS_ERRORS) and value != self.before.tls[name]:
                self.faults.append(f"{name}: {self.before.tls[name]} before, {value} after")
        for agent in self.agents:
            self._judge_report(agent, engine)
        return self

    def _judge_processes(self) -> None:
        for name, rss in self.after.grown(self.before, self.rss).items():
            self.faults.append(f"{name}: {self.before.processes[name].rss} KiB before, {rss} after")
        for name, after in self.after.processes.items():
            before = self.before.processes[name]
            if after.descriptors != before.descriptors:
                self.faults.append(f"{name}: descriptors {before.descriptors} before, {after.descriptors} after")
            most = max(before.threads, AGENT_THREADS if name.startswith("agent") else 0)
            if after.threads > most:
                self.faults.append(f"{name}: {before.threads} threads before, {after.threads} after")

    def _judge_report(self, agent: Agent, engine: str) -> None:
        tally = agent.tally
        tally.wait(5)
        if set(tally.engines) != {engine}:
            self.faults.append(f"agent {agent.name}: engines {dict(tally.engines)}, not {engine} alone")
        if tally.standing:
            self.faults.append(f"agent {agent.name}: {tally.standing} connections opened and never ended")
        for reason, number in tally.failures.items():
            if number and reason not in EXPLAINED:
                example = tally.examples.get(reason, {})
                self.faults.append(f"agent {agent.name}: {number} x {reason} {example}")

    @property
    def good(self) -> bool:
        """Whether nothing went wrong."""
        return not self.faults

    def reports(self) -> dict[str, dict[str, int]]:
        """What each agent reported, counted."""
        return {agent.name: dict(agent.tally.events) | dict(+Counter(agent.tally.failures)) for agent in self.agents}

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        processes = {
            name: {
                "descriptors": [self.before.processes[name].descriptors, after.descriptors],
                "rss_kib": [self.before.processes[name].rss, after.rss],
                "threads": [self.before.processes[name].threads, after.threads],
            }
            for name, after in self.after.processes.items()
        }
        return {
            "run": self.title,
            "good": self.good,
            "faults": self.faults,
            **self.figures,
            "processes": processes,
            "network": {name: [self.before.network[name], value] for name, value in self.after.network.items()},
            "tls_stat": {name: [self.before.tls[name], value] for name, value in self.after.tls.items()},
            "agents": self.reports(),
        }

    def show(self) -> None:
        """Print tables, and what is wrong."""
        console = Console(width=118, highlight=False)
        table = Table("what", "before", "after", title=self.title, title_justify="left")
        for name, after in self.after.processes.items():
            before = self.before.processes[name]
            table.add_row(f"{name}: descriptors", _kinds(before.descriptors), _kinds(after.descriptors))
            table.add_row("  memory (KiB), threads", f"{before.rss}, {before.threads}", f"{after.rss}, {after.threads}")
        for name, value in self.after.network.items():
            table.add_row(f"sockets: {name}", str(self.before.network[name]), str(value))
        for name, value in self.after.tls.items():
            if value or self.before.tls[name]:
                table.add_row(name, str(self.before.tls[name]), str(value))
        console.print(table)
        for name, figure in self.figures.items():
            console.print(f"{name.replace('_', ' ')}: {figure}", markup=False)
        for name, report in self.reports().items():
            console.print(f"agent {name}: {', '.join(f'{reason} {number}' for reason, number in report.items())}")
        for fault in self.faults:
            console.print(f"FAULT {fault}", markup=False, soft_wrap=True)
        console.print("nothing was lost, nothing is left behind" if self.good else f"{len(self.faults)} faults")


def _kinds(descriptors: dict[str, int]) -> str:
    return f"{sum(descriptors.values())}: " + ", ".join(f"{kind} {number}" for kind, number in descriptors.items())

"""What /proc says of the programs and of the network: taken before and after, the two must be alike."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

TLS_STAT = Path("/proc/net/tls_stat")
TIME_WAIT = "06"
"""A TCP state that nobody holds a descriptor of and that ends by itself after a minute (net/tcp_states.h)."""


@dataclass(frozen=True, slots=True)
class ProcessCounts:
    """One process.

    Attributes:
        descriptors: how many of each kind: socket, pipe, file, and the names of anonymous inodes.
        rss: resident memory, in KiB.
        threads: how many.
    """

    descriptors: dict[str, int]
    rss: int
    threads: int

    @property
    def total(self) -> int:
        """All descriptors."""
        return sum(self.descriptors.values())


@dataclass(frozen=True, slots=True)
class Counts:
    """Everything at one moment.

    Attributes:
        processes: by a name that stays the same.
        network: sockets in this network namespace, without those in TIME_WAIT.
        tls: /proc/net/tls_stat, empty where the kernel has no kTLS.
    """

    processes: dict[str, ProcessCounts]
    network: dict[str, int]
    tls: dict[str, int]

    def settled(self) -> tuple[object, ...]:
        """Return the part that must be the very same before and after."""
        descriptors = {name: process.descriptors for name, process in self.processes.items()}
        current = {name: value for name, value in self.tls.items() if name.startswith("TlsCurr")}
        return descriptors, self.network, current

    def grown(self, before: "Counts", allowed: dict[str, int]) -> dict[str, int]:
        """Return the resident memory, in KiB, of processes that have more of it than they may.

        Args:
            before: what it was.
            allowed: KiB more, by the first word of the process's name, or "other".
        """
        return {
            name: process.rss
            for name, process in self.processes.items()
            if process.rss > before.processes[name].rss + allowed.get(name.split()[0], allowed["other"])
        }


QUIET_SECONDS = 90.0
"""Until counts must be back. Servers wait 20 s for a client that says nothing, agents 5 s for a peer that has gone."""


def take(processes: dict[str, int]) -> Counts:
    """Count now.

    Args:
        processes: process numbers by name. One that has gone has no descriptors.
    """
    return Counts({name: of_process(pid) for name, pid in processes.items()}, of_network(), of_tls())


def of_process(pid: int) -> ProcessCounts:
    """Count what one process holds."""
    folder = Path(f"/proc/{pid}")
    kinds: Counter[str] = Counter()
    try:
        numbers = os.listdir(folder / "fd")  # noqa: PTH208 - names only
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    except (FileNotFoundError, ProcessLookupError):
        return ProcessCounts({}, 0, 0)
    for number in numbers:
        try:
            kinds[kind_of(os.readlink(folder / "fd" / number))] += 1  # noqa: PTH115
        except FileNotFoundError:  # closed since
            continue
    rss = int(status["VmRSS"].split()[0]) if "VmRSS" in status else 0
    return ProcessCounts(dict(sorted(kinds.items())), rss, int(status["Threads"]))


def kind_of(target: str) -> str:
    """Name the kind of a descriptor by where its link points.

    >>> kind_of("socket:[12]"), kind_of("anon_inode:[eventpoll]"), kind_of("/dev/null")
    ('socket', 'eventpoll', 'file')
    """
    if target.startswith("/"):
        return "file"
    kind, _, name = target.partition(":")
    return name.strip("[]") if kind == "anon_inode" else kind


def of_network() -> dict[str, int]:
    """Count the sockets of this network namespace."""
    tcp = [line.split()[3] for name in ("tcp", "tcp6") for line in _rows(Path("/proc/net", name))]
    return {
        "tcp": sum(state != TIME_WAIT for state in tcp),
        "tcp in use": _sockstat("TCP:", "inuse"),
        "unix": len(_rows(Path("/proc/net/unix"))),
    }


def of_tls() -> dict[str, int]:
    """Read the kernel's TLS counters."""
    if not TLS_STAT.exists():
        return {}
    return {name: int(value) for name, value in (line.split() for line in TLS_STAT.read_text().splitlines())}


def _rows(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []


def _sockstat(line: str, field: str) -> int:
    for words in (row.split() for row in Path("/proc/net/sockstat").read_text().splitlines()):
        if words[0] == line:
            return int(words[words.index(field) + 1])
    return 0


def children(pid: int) -> list[int]:
    """List a process's children, oldest first."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def quiet(processes: dict[str, int], wanted: Counts, memory: dict[str, int] | None = None) -> Counts:
    """Wait until counts are as wanted, or time is over; returns those of then.

    Args:
        processes: process numbers by name.
        wanted: the counts.
        memory: as `Counts.grown` has it; None when it does not matter.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        now = take(processes)
        good = now.settled() == wanted.settled() and not (memory and now.grown(wanted, memory))
        if good or time.monotonic() > deadline:
            return now
        time.sleep(0.5)

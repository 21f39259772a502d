"""`tools/soak mix`: load with abuse, a first short round to warm up, and then the one that counts."""

import argparse
import json
import selectors
import subprocess
import sys
import time
from collections import Counter
from random import Random

from . import client, counts, servers
from .exchanges import Targets
from .stage import Agent, Stage, say, stop
from .verdict import Verdict

SLOTS_EACH = 8
"""Clients of one process: killing it cuts so many connections at once."""
WARM_UP = 5
"""The first round is this part of the second: allocators and pools grow to their working size."""
GRACE_SECONDS = 150.0
"""For the visits under way when time is up: one that hangs is noticed after a minute."""
KILL_SECONDS = 1.0, 5.0
PROGRESS_SECONDS = 10.0
RSS_KIB = {"agent": 16 * 1024, "other": 48 * 1024}
"""An allocator never gives back all. Redis has the clients' last values; they are few and bounded."""
FAULTS_TOLD = 20


class Round:
    """One round of load: client processes, killed and started again, until all is done or time is over."""

    def __init__(self, stage: Stage, agent: Agent, targets: Targets, options: argparse.Namespace) -> None:
        self._stage, self._agent, self._targets = stage, agent, targets
        self._seed: int = options.seed
        self._left = dict.fromkeys(range(options.clients), int(options.requests))
        self._visits = dict.fromkeys(self._left, 0)
        self._deadline = time.monotonic() + options.seconds
        self._kinds = {slot: slot // SLOTS_EACH for slot in self._left}
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._pieces: dict[int, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self.deeds: Counter[str] = Counter()
        self.requests = self.bytes = self.visits = self.kills = 0
        self.faults: list[str] = []

    def run(self) -> None:
        """Do all of it."""
        dice = Random(f"{self._seed}/kills")
        for group in set(self._kinds.values()):
            self._start(group)
        next_kill = time.monotonic() + dice.uniform(*KILL_SECONDS)
        told = time.monotonic()
        while self._running and time.monotonic() < self._deadline:
            self._read(0.2)
            now = time.monotonic()
            if now > next_kill and self._running:
                self._kill(dice.choice(sorted(self._running)))
                next_kill = now + dice.uniform(*KILL_SECONDS)
            if now > told + PROGRESS_SECONDS:
                told = now
                say(f"{self.requests} requests, {self.visits} visits, {self.kills} kills, {len(self.faults)} faults")
        self._end()

    def _start(self, group: int) -> None:
        slots = {
            slot: (self._visits[slot], self._left[slot])
            for slot, kind in self._kinds.items()
            if kind == group and self._left[slot] > 0
        }
        if not slots:
            return
        order = client.order(self._seed, self._targets, slots, blocking=group % 2 == 1)
        words = [sys.executable, "-m", "soaking.client", order]
        process = self._stage.start(self._agent, words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        self._running[group], self._pieces[group] = process, b""
        self._selector.register(process.stdout, selectors.EVENT_READ, group)

    def _read(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            data = key.fileobj.buffer.raw.read(65536)  # type: ignore[union-attr]
            if not data:
                self._ended(key.data)
                continue
            *lines, self._pieces[key.data] = (self._pieces[key.data] + data).split(b"\n")
            for line in lines:
                self._count(json.loads(line))

    def _count(self, line: dict[str, object]) -> None:
        slot, requests = int(str(line["slot"])), int(str(line["requests"]))
        self._visits[slot] += 1
        self._left[slot] -= max(1, requests)
        self.visits += 1
        self.requests += requests
        self.bytes += int(str(line["bytes"]))
        self.deeds[str(line["deed"])] += 1
        if "fault" in line:
            self.faults.append(f"seed {self._seed}: {line}")

    def _ended(self, group: int) -> None:
        """A client process has ended: killed, and then it starts again, or done."""
        process = self._running.pop(group)
        assert process.stdout is not None
        self._selector.unregister(process.stdout)
        status = process.wait()
        stop(process)
        if status == -9:
            self._start(group)
        elif status not in (0, -15):  # SIGTERM may come before it is ready for it
            self.faults.append(f"a client process ended with status {status}")

    def _kill(self, group: int) -> None:
        self._running[group].kill()
        self.kills += 1

    def _end(self) -> None:
        """Time is over, or all is done: the visits under way are brought to their end."""
        for process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running and time.monotonic() < deadline:
            self._read(0.2)
        for group, process in self._running.items():
            self.faults.append(f"client process {group} did not end within {GRACE_SECONDS:.0f} s")
            stop(process)


def run(options: argparse.Namespace) -> Verdict:
    """Run a mix as the command line says."""
    with Stage(options.engine) as stage:
        ports = list(servers.PORTS.values())
        inbound = stage.agent("servers", "inbound", ports)
        outbound = stage.agent("clients", "outbound", ports)
        running = servers.start(stage, inbound)
        processes = {"agent of servers": inbound.pid, "agent of clients": outbound.pid} | running.pids
        nothing = counts.take(processes)
        warm = argparse.Namespace(**vars(options))
        warm.requests, warm.seconds = max(1, options.requests // WARM_UP), max(1, options.seconds // WARM_UP)
        warm.seed = options.seed + 1
        say(f"warming up: {warm.clients} clients x {warm.requests} requests, at most {warm.seconds} s")
        first = Round(stage, outbound, running.targets, warm)
        first.run()
        before = counts.quiet(processes, nothing)
        say(f"{options.clients} clients x {options.requests} requests, at most {options.seconds} s")
        start = time.monotonic()
        main = Round(stage, outbound, running.targets, options)
        main.run()
        seconds = time.monotonic() - start
        after = counts.quiet(processes, before, RSS_KIB)
        figures = {
            "engine": options.engine,
            "seed": options.seed,
            "seconds": round(seconds, 1),
            "quiet_after_seconds": round(time.monotonic() - start - seconds, 1),
            "connections": main.visits,
            "requests": main.requests,
            "bytes_checked": main.bytes,
            "kills": main.kills,
            "deeds": dict(main.deeds.most_common()),
            "connections_before": first.visits,
        }
        verdict = Verdict("tools/soak mix", figures, before, after, stage.agents, RSS_KIB)
        faults = first.faults + main.faults
        verdict.faults += faults[:FAULTS_TOLD]
        if len(faults) > FAULTS_TOLD:
            verdict.faults.append(f"and {len(faults) - FAULTS_TOLD} more of these")
        return verdict.judge(options.engine)

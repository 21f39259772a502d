"""`tools/soak hold`: many connections held open at once, all covered at both ends."""

import argparse
import json
import resource
import selectors
import subprocess
import sys
import time
from typing import Any

from . import counts
from .stage import SoakError, Stage, say, stop
from .verdict import Verdict

FIRST_PORT = 9000
WINDOW = 64
ADDRESSES = 8
SPARE = 128
"""Descriptors of an agent or a program that are no connections."""
STEP_SECONDS = 900.0
WARM_UP = 50
RSS_KIB = {"agent": 64 * 1024, "other": 32 * 1024}


class Share:
    """A part of the connections: a server and a client, each with an agent: a process has only so many descriptors."""

    def __init__(self, stage: Stage, number: int, count: int) -> None:
        port = FIRST_PORT + number
        self._stage, self._port = stage, port
        self._inbound = stage.agent(f"of server {number}", "inbound", [port])
        self._outbound = stage.agent(f"of client {number}", "outbound", [port])
        server = stage.serve(self._inbound, [sys.executable, "-m", "soaking.holder", "serve", str(port)], port)
        self.client = self.opener(count)
        self.pids = {
            f"agent of server {number}": self._inbound.pid,
            f"agent of client {number}": self._outbound.pid,
            f"server {number}": server.pid,
            f"client {number}": self.client.pid,
        }

    def opener(self, count: int) -> "subprocess.Popen[str]":
        """Start a client that waits for orders."""
        words = [sys.executable, "-m", "soaking.holder", "open", *map(str, (self._port, count, WINDOW, ADDRESSES))]
        client = self._stage.start(self._outbound, words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answers([client], "start")
        return client


def shares_of(connections: int, limit: int) -> list[int]:
    """Split connections so that no process needs more descriptors than it may have.

    A connection takes two in its agent, which keeps a quarter for channels (ktls/agent/server.py), and two in its
    program, the hidden one included (ktls/limits.py).

    >>> shares_of(10000, 1048576), shares_of(10000, 20000)
    ([10000], [5000, 5000])
    """
    most = max(1, limit * 3 // 8 - SPARE)
    parts = -(-connections // most)
    return [connections // parts + (number < connections % parts) for number in range(parts)]


def order(clients: "list[subprocess.Popen[str]]", word: str) -> list[dict[str, Any]]:
    """Have all clients do something at the same time; what they say of it.

    Raises:
        SoakError: one has ended, or does not answer.
    """
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(word + "\n")
        client.stdin.flush()
    return answers(clients, word)


def answers(clients: "list[subprocess.Popen[str]]", word: str) -> list[dict[str, Any]]:
    """Wait until each client has answered.

    Raises:
        SoakError: one has ended, or does not answer.
    """
    said = []
    with selectors.DefaultSelector() as selector:
        for client in clients:
            assert client.stdout is not None
            selector.register(client.stdout, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(STEP_SECONDS)
            if not ready:
                raise SoakError(f"{word}: no answer within {STEP_SECONDS:.0f} s")
            for key, _ in ready:
                line = key.fileobj.readline()  # type: ignore[union-attr]
                if not line:
                    raise SoakError(f"{word}: a client has ended")
                said.append(json.loads(line))
                selector.unregister(key.fileobj)
    return said


def run(options: argparse.Namespace) -> Verdict:
    """Open, hold and close, as the command line says."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    parts = shares_of(options.connections, limit if limit > 0 else 1 << 20)
    with Stage(options.engine) as stage:
        shares = [Share(stage, number, count) for number, count in enumerate(parts, 1)]
        processes = {name: pid for share in shares for name, pid in share.pids.items()}
        nothing = counts.take(processes)
        _warm_up(shares)
        before = counts.quiet(processes, nothing)
        clients = [share.client for share in shares]
        figures: dict[str, object] = {"engine": options.engine, "connections": options.connections, "pairs": len(parts)}
        faults: list[str] = []

        def step(word: str) -> float:
            say(f"{word}: {options.connections} connections in {len(parts)} pairs of programs")
            begun = time.monotonic()
            for answer in order(clients, word):
                faults.extend(f"{word}: {fault}" for fault in answer["faults"])
            seconds = time.monotonic() - begun
            figures[f"{word}_seconds"] = round(seconds, 1)
            return seconds

        seconds = step("open")
        figures["handshakes_per_second"] = round(options.connections / seconds)
        held = counts.take(processes)
        figures |= _each(before, held, options.connections)
        time.sleep(options.seconds)
        if held.network != counts.of_network():
            faults.append(f"sockets changed while they were held: {held.network}, then {counts.of_network()}")
        step("again")
        step("close")
        after = counts.quiet(processes, before, RSS_KIB)
        return Verdict("tools/soak hold", figures, before, after, stage.agents, RSS_KIB, faults).judge(options.engine)


def _warm_up(shares: list[Share]) -> None:
    for share in shares:
        client = share.opener(WARM_UP)
        for word in ("open", "again", "close"):
            order([client], word)
        stop(client)


def _each(before: counts.Counts, held: counts.Counts, connections: int) -> dict[str, object]:
    """What a connection takes, in each kind of process."""
    figures: dict[str, object] = {"tcp_sockets_held": held.network["tcp"], "unix_sockets_held": held.network["unix"]}
    for kind in ("agent of server", "agent of client", "server", "client"):
        names = [name for name in held.processes if name.rstrip("0123456789 ") == kind]
        grown = sum(held.processes[name].rss - before.processes[name].rss for name in names)
        more = sum(held.processes[name].total - before.processes[name].total for name in names)
        key = kind.replace(" ", "_")
        figures[f"{key}_kib_each"] = round(grown / connections, 1)
        figures[f"{key}_descriptors_each"] = round(more / connections, 2)
    return figures

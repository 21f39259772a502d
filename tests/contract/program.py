"""The program that runs rows: `python -m tests.contract.program GROUP WORLD [ROW...]`, WORLD being JSON.

Each row has a process of its own, so that what it leaves open or breaks is nobody else's, and a deadline. One JSON line
a row on standard output: {"row": name, "seen": what it returned} or {"row": name, "failed": why}.
"""

import contextlib
import faulthandler
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path

from tests.contract.row import Row, load_rows
from tests.contract.world import World
from tests.e2e.harness import PATIENCE

SECONDS = 2 * PATIENCE  # for one row


def run_row(row: Row, world: World) -> dict:
    """Run a row in a child and take its report."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setpgid(0, 0)
        report(row, world, writing)
        os._exit(0)
    os.close(writing)
    text = read_all(reading)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what the row left running
    _, status = os.waitpid(pid, 0)
    return json.loads(text) if text else {"row": row.name, "failed": f"ended with status {status}, or hung: see stderr"}


def report(row: Row, world: World, to: int) -> None:
    """In the child: do it, say what was seen."""
    faulthandler.dump_traceback_later(SECONDS - 5, exit=False)
    assert row.run
    folder = world.folder / row.name
    folder.mkdir()
    world.folder = folder
    try:
        answer = {"row": row.name, "seen": row.run(world)}
    except BaseException:
        answer = {"row": row.name, "failed": traceback.format_exc(limit=-6)}
    os.write(to, json.dumps(answer, default=repr).encode())


def read_all(fd: int) -> str:
    """Read until the row has answered, or its time is up."""
    ready, _, _ = select.select([fd], [], [], SECONDS)
    data = os.read(fd, 1 << 20) if ready else b""
    os.close(fd)
    return data.decode()


def main(group: str, world: str, *names: str) -> None:
    settings = json.loads(world)
    settings["folder"] = Path(settings["folder"])
    for row in load_rows():
        if row.group != group or row.run is None or (names and row.name not in names):
            continue
        print(json.dumps(run_row(row, World(**settings))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

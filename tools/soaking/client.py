"""One client process: `python -m soaking.client JSON`, many connections at once, a line of JSON after each visit.

It may be killed at any time. Whoever started it knows from the lines how far each slot came, and starts it again.
"""

import asyncio
import dataclasses
import json
import signal
import sys
import threading
import time
from random import Random
from typing import Any

from .exchanges import Targets, Visit
from .links import Blocking, Broken, Link, Nonblocking, drive


class Client:
    """The slots of one process.

    Args:
        order: `seed`, `targets`, `blocking`, and `slots`: number -> [visits done, requests left].
    """

    def __init__(self, order: dict[str, Any]) -> None:
        files = {path: (size, digest) for path, (size, digest) in order["targets"]["files"].items()}
        self._targets = Targets(order["targets"]["host"], order["targets"]["ports"], files)
        self._seed: int = order["seed"]
        self._slots = {int(slot): (int(done), int(left)) for slot, (done, left) in order["slots"].items()}
        self._blocking: bool = order["blocking"]
        self._ending = False
        self._lock = threading.Lock()

    def run(self) -> None:
        """Until every slot is done, or SIGTERM came and the visits have ended."""
        signal.signal(signal.SIGTERM, self._end)
        if self._blocking:
            threads = [
                threading.Thread(target=drive, args=(self._slot(slot),), name=f"slot {slot}") for slot in self._slots
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # a join without limit would hold up the signal's handler
                    thread.join(0.5)
        else:
            asyncio.run(self._all())

    def _end(self, *_: object) -> None:
        self._ending = True

    async def _all(self) -> None:
        await asyncio.gather(*(self._slot(slot) for slot in self._slots))

    async def _slot(self, slot: int) -> None:
        number, left = self._slots[slot]
        while left > 0 and not self._ending:
            link: Link = Blocking() if self._blocking else Nonblocking()
            # Its own dice, so that a visit can be repeated whatever came before it.
            visit = Visit(link, Random(f"{self._seed}/{slot}/{number}"), self._targets, slot)
            fault, begun = None, time.monotonic()
            try:
                await visit.run()
            except (OSError, Broken) as error:
                fault = f"{type(error).__name__}: {error}"
            self._tell(slot, number, visit, fault, time.monotonic() - begun)
            number += 1
            left -= max(1, visit.requests)

    def _tell(self, slot: int, number: int, visit: Visit, fault: str | None, seconds: float) -> None:
        line = {"slot": slot, "visit": number, "deed": visit.deed, "requests": visit.requests, "bytes": visit.checked}
        if fault:
            line |= {"fault": fault, "seconds": round(seconds, 1)}
        with self._lock:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def order(seed: int, targets: Targets, slots: dict[int, tuple[int, int]], *, blocking: bool) -> str:
    """Write what a client is to do, as its one argument."""
    return json.dumps({"seed": seed, "targets": dataclasses.asdict(targets), "slots": slots, "blocking": blocking})


if __name__ == "__main__":
    Client(json.loads(sys.argv[1])).run()

"""A program that does what a test tells it, a line at a time."""

import os
import select
import subprocess
import sys
from typing import Any

from tests.e2e.harness import PATIENCE

PROGRAM = """
import concurrent.futures, errno, os, resource, socket, sys
def connect(port):
    connection = socket.socket()
    connection.connect(("127.0.0.1", port))
    return connection
def connect_result(port):
    with socket.socket() as connection:
        return errno.errorcode.get(connection.connect_ex(("127.0.0.1", port)))
def at_once(count, work, *arguments):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(work, *arguments) for _ in range(count)]]
for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


class Talker:
    """Each line is an expression; the answer is its value, or the name of an errno.

    Args:
        prefix: what the program is started with, `ktls run ... --`.
        options: of subprocess.Popen.
        environment: added to ours.
    """

    def __init__(self, prefix: list[str], options: dict[str, Any] | None = None, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", PROGRAM],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            **(options or {}),
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")

    def hear(self) -> str:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, "no answer"
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

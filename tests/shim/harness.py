"""The shim alone: programs preloaded with it, and an agent that does what the test says (docs/protocol.md), no TLS.

With outcome K and no keys the descriptor becomes the plain TCP socket again: what a test sees is the shim's own doing.
"""

import array
import contextlib
import os
import queue
import resource
import socket
import struct
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

SHIM = Path(__file__).parents[2] / "ktls" / "shim" / "libktls.so"
UNDER = os.environ.get("KTLS_TEST_UNDER", "").split()
"""What runs the programs, for example valgrind and its options (`make valgrind`)."""
PATIENCE = 180.0 if UNDER else 20.0
"""Seconds until a wait is given up as failed."""
BASE = 1000
NOTICE = 3
HEADER = struct.Struct("=4sBBHIHH")


@dataclass
class Request:
    """One request of the shim, and the agent's side of its gate."""

    kind: int
    flags: int
    filler: int
    address: bytes
    name: str
    tcp: socket.socket
    gate: socket.socket

    def verdict(self, letter: str, error: int = 0) -> None:
        self.gate.sendall(struct.pack("=cc2xi", b"V", letter.encode(), error))

    def outcome(self, letter: str, error: int = 0, flags: str = "-") -> None:
        """Open the gate, in the protocol's order."""
        self.gate.bind(f"\0ktls/{letter}/{error}/{flags}/{os.urandom(8).hex()}")
        if letter != "R":
            self.gate.sendall(b"!")
        left = self.filler
        while left:
            left -= len(self.gate.recv(left))

    def close(self) -> None:
        self.tcp.close()
        self.gate.close()


class ScriptedAgent:
    """Takes requests from the shim and hands them to the test."""

    def __init__(self, path: Path) -> None:
        self.path, self.requests = path, queue.Queue[Request]()
        self.notices = queue.Queue[tuple[str, bool]]()  # text, allowed
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.open: list[Request] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with channel:
            while True:
                try:
                    message, ancillary, _, _ = channel.recvmsg(512, socket.CMSG_SPACE(8))
                except OSError:
                    return
                if not message:
                    return
                magic, version, kind, flags, filler, address, name = HEADER.unpack_from(message)
                assert (magic, version) == (b"KTLS", 1)
                assert len(message) == 44 + name
                if kind == NOTICE:
                    assert not ancillary
                    self.notices.put((message[44:].decode(), flags == 2))
                    continue
                fds = array.array("i", ancillary[0][2])
                request = Request(
                    kind, flags, filler, message[16 : 16 + address], message[44:].decode(),
                    socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]),
                )  # fmt: skip
                self.open.append(request)
                self.requests.put(request)

    def next(self) -> Request:
        return self.requests.get(timeout=PATIENCE)

    def protect(self) -> Request:
        """The next request, with the verdict tls."""
        request = self.next()
        request.verdict("T")
        return request

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # stopped before
            self.listener.shutdown(socket.SHUT_RDWR)  # else accept() goes on, with whoever gets the number next
        self.listener.close()
        for request in self.open:
            request.close()


class Peers:
    """A TCP listener that closes what it accepted when the test is over."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(PATIENCE)
        self.accepted: list[socket.socket] = []

    @property
    def port(self) -> int:
        return self.sock.getsockname()[1]

    def accept(self) -> socket.socket:
        self.accepted.append(self.sock.accept()[0])
        self.accepted[-1].settimeout(PATIENCE)
        return self.accepted[-1]

    def stop(self) -> None:
        for sock in [self.sock, *self.accepted]:
            sock.close()


def raise_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * BASE + 64, hard))  # valgrind takes a dozen for itself


def output(process: subprocess.Popen) -> list[str]:
    """Wait for the program; the lines it printed. It must have ended well."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out.splitlines()


def line(process: subprocess.Popen) -> str:
    """The next line the program prints."""
    assert process.stdout
    return process.stdout.readline().rstrip("\n")

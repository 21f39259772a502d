"""The two programs of `tools/soak hold`, each with thousands of connections: `python -m soaking.holder serve|open ...`.

Both are what an event-driven program is: one thread, one epoll set, non-blocking sockets. A client sends 32 random
bytes, the server answers with their SHA-256. The client does what it is told on standard input, one word a line:

    open    open all connections, a bounded number in the opening at once, and exchange on each as it stands
    again   exchange on all of them
    close   close all

and answers with a line of JSON when it has done so, the first of which says that it is ready.
"""

import errno
import hashlib
import json
import os
import select
import socket
import sys
import time
from typing import TextIO

SIZE = 32
BACKLOG = 4096
PATIENCE = 60.0
"""Seconds without any progress until it is given up."""
IN, OUT, ENDED = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR


def serve(port: int) -> None:
    """Answer for ever."""
    listener = socket.create_server(("", port), backlog=BACKLOG)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, IN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                accept_all(listener, epoll, connections)
            elif not answer(connections[fd]):
                connections.pop(fd).close()


def accept_all(listener: socket.socket, epoll: select.epoll, connections: dict[int, socket.socket]) -> None:
    """Take in whoever waits."""
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue
        sock.setblocking(False)
        connections[sock.fileno()] = sock
        epoll.register(sock, IN)


def answer(sock: socket.socket) -> bool:
    """Read one message and answer it; False at the end. So few bytes arrive, and leave, at once."""
    try:
        data = sock.recv(SIZE)
    except BlockingIOError:
        return True
    except OSError:
        return False
    if data:
        sock.sendall(hashlib.sha256(data).digest())
    return bool(data)


class Opener:
    """The client.

    Args:
        port: of the server.
        count: connections.
        window: how many may be in the opening at once: the agents' handshakes have a deadline.
        addresses: how many of 127.0.0.x are connected to, in turn.
    """

    def __init__(self, port: int, count: int, window: int, addresses: int) -> None:
        self._port, self._count, self._window, self._addresses = port, count, window, addresses
        self._epoll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._asked: dict[int, bytes] = {}
        self.faults: list[str] = []

    def open(self) -> None:
        """Open them all and exchange on each."""
        while len(self._socks) < self._count and not self.faults:
            while len(self._socks) < self._count and len(self._asked) < self._window:
                self._connect(f"127.0.0.{1 + len(self._socks) % self._addresses}")
            self._turn()
        while self._asked and not self.faults:
            self._turn()

    def again(self) -> None:
        """Exchange on all."""
        for fd in self._socks:
            self._ask(fd)
        while self._asked and not self.faults:
            self._turn()

    def close(self) -> None:
        """Close all."""
        for sock in self._socks.values():
            sock.close()
        self._socks.clear()

    def _connect(self, host: str) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        error = sock.connect_ex((host, self._port))
        if error not in (0, errno.EINPROGRESS):
            self.faults.append(f"connect: {os.strerror(error)}")
        self._socks[sock.fileno()] = sock
        self._asked[sock.fileno()] = b""
        self._epoll.register(sock, OUT)

    def _ask(self, fd: int) -> None:
        self._asked[fd] = os.urandom(SIZE)
        self._socks[fd].sendall(self._asked[fd])
        self._epoll.modify(fd, IN)

    def _turn(self) -> None:
        ready = self._epoll.poll(PATIENCE)
        if not ready:
            self.faults.append(f"no answer on {len(self._asked)} connections within {PATIENCE:.0f} s")
        for fd, events in ready:
            try:
                self._step(fd, events)
            except OSError as error:
                self.faults.append(f"{type(error).__name__}: {error}")
                return

    def _step(self, fd: int, events: int) -> None:
        sock = self._socks[fd]
        if self._asked.get(fd) == b"":
            if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
            if events & OUT:
                self._ask(fd)
        elif fd not in self._asked:
            self.faults.append(f"an event {events:#x} that nobody waits for: {sock.recv(SIZE)!r}")
        else:
            self._take(fd, sock)

    def _take(self, fd: int, sock: socket.socket) -> None:
        try:
            got = sock.recv(SIZE + 1)
        except BlockingIOError:
            return
        if got != hashlib.sha256(self._asked.pop(fd)).digest():
            self.faults.append(f"a wrong answer: {got!r}")


def obey(opener: Opener, orders: TextIO) -> None:
    """Do what standard input says, until it ends."""
    print(json.dumps({"done": "ready"}), flush=True)
    for line in orders:
        begun = time.monotonic()
        {"open": opener.open, "again": opener.again, "close": opener.close}[line.strip()]()
        seconds = round(time.monotonic() - begun, 3)
        print(json.dumps({"done": line.strip(), "seconds": seconds, "faults": opener.faults[:5]}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        obey(Opener(*map(int, sys.argv[2:6])), sys.stdin)

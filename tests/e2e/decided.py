"""One covered program, one policy, one connection: what became of it. For tests of what a key of the language does."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.harness import Program
from tests.e2e.peer import TlsPeer

WORDS = ("open", "failed", "clear", "denied", "observed")
"""The events that say what became of a connection."""
SAID = b"said by the peer"


@dataclass
class Fate:
    """What the agent wrote down, and what the two programs saw."""

    event: dict[str, Any]
    result: dict[str, Any]
    peer: "Peer"
    program: Program

    def __str__(self) -> str:
        """In a word, or the name of the errno."""
        name = self.event["event"]
        return str(self.event["errno_name"]) if name == "failed" else name


class Peer:
    """A TLS server on a thread, for one connection; what it saw is there when the program has ended."""

    def __init__(self, context: ssl.SSLContext | None, *, as_client: bool = False, after: float = 0.0) -> None:
        self.context, self.as_client, self.after = context, as_client, after
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.tls: ssl.SSLObject | None = None
        self.received = b""
        self.gone = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            sock, _ = self.listener.accept()
            with sock:
                self._talk(sock)

    def _talk(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        if self.after:
            self.gone.wait(self.after)
        if self.context is None:
            sock.sendall(SAID)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(1000):
                self.received += data
            return
        hostname = "localhost" if self.as_client else None
        peer = TlsPeer(sock, self.context, server_side=not self.as_client, hostname=hostname).handshake()
        self.tls = peer.tls
        peer.send(SAID)
        peer.close_notify()
        while data := peer.receive():
            self.received += data

    def close(self) -> None:
        self.gone.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def connect(covered, transfer_command, write_policy) -> Iterator[Callable[..., Fate]]:
    """Call it with the text of a policy (PORT in it is the peer's) and the peer's context: the program connects."""
    peers: list[Peer] = []

    def run(policy: str, context: ssl.SSLContext | None, *, host="127.0.0.1", wrap=(), **how: Any) -> Fate:
        peer = Peer(context, **how)
        peers.append(peer)
        path = write_policy("version = 1\n" + policy.replace("PORT", str(peer.port)))
        program = covered([*wrap, *transfer_command("client", f"{host}:{peer.port}", 5)], policy=path)
        (result,) = program.results()
        peer.close()
        return Fate(decided(program), result, peer, program)

    yield run
    for peer in peers:
        peer.close()


def decided(program: Program) -> dict[str, Any]:
    """The first word about the program's first connection."""
    return program.told(1, *WORDS)[0]


@dataclass
class Visit:
    """What a covered server's agent wrote down, and what a client that is not ours saw."""

    event: dict[str, Any]
    result: dict[str, Any]
    error: Exception | None
    tls: ssl.SSLObject
    session: ssl.SSLSession | None

    __str__ = Fate.__str__


@pytest.fixture
def visit(covered, transfer_command, write_policy, free_port) -> Callable[..., list[Visit]]:
    """Call it with the text of a policy (PORT in it is the program's) and the contexts of clients, who come in turn.

    A name (`sni`) is what they ask for. With `resume` each offers the session of the one before.
    """

    def run(policy: str, *contexts: ssl.SSLContext, sni: str = "localhost", resume: bool = False) -> list[Visit]:
        port = free_port()
        path = write_policy("version = 1\n" + policy.replace("PORT", str(port)))
        command = transfer_command("server", f"127.0.0.1:{port}", 5, connections=len(contexts))
        program = covered(command, policy=path, wait_port=port)
        session: ssl.SSLSession | None = None
        seen = []
        for context in contexts:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.settimeout(30)
                peer = TlsPeer(sock, context, hostname=sni)
                if resume and session is not None:
                    peer.tls.session = session
                error = _exchange(peer)
                session = None if error else peer.tls.session  # one that failed has none to give
                seen.append((error, peer.tls, session))
        results = program.results()
        events = program.told(len(contexts), *WORDS)
        return [Visit(event, result, *one) for event, result, one in zip(events, results, seen, strict=True)]

    return run


def _exchange(peer: TlsPeer) -> Exception | None:
    """Send five bytes and read to the end; what went wrong, if something did."""
    try:
        peer.handshake()
        peer.send(b"hello")
        peer.close_notify()
        while peer.receive():
            pass
    except (OSError, ssl.SSLError) as error:
        return error
    return None

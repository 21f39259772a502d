"""What a row has: ports that are covered or not, pairs of connected sockets, and a peer that is not ours."""

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.e2e.harness import PATIENCE
from tests.e2e.peer import TlsPeer, client_context, server_context

HOST = "127.0.0.1"


@dataclass
class Peer:
    """The other end, outside our cover: a plain socket on plain TCP, a TLS stack of its own under `ktls run`."""

    sock: socket.socket
    tls: TlsPeer | None

    def send(self, data: bytes) -> None:
        self.tls.send(data) if self.tls else self.sock.sendall(data)

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes, or what there was before the end."""
        if self.tls:
            return self.tls.receive_exactly(size)
        data = b""
        while len(data) < size and (part := self.sock.recv(size - len(data))):
            data += part
        return data

    def read_to_end(self) -> tuple[int, str]:
        """How many bytes still came, and how it ended: "end" (close_notify or FIN), "cut" (FIN alone) or "reset"."""
        count = 0
        try:
            while part := self.tls.receive() if self.tls else self.sock.recv(65536):
                count += len(part)
        except ssl.SSLError:
            return count, "cut"
        except ConnectionResetError:
            return count, "reset"
        return count, "end"

    def end(self) -> None:
        """End our direction: close_notify, then FIN as a TLS peer does it; on plain TCP, FIN."""
        if self.tls:
            self.tls.close_notify()
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Cut the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.end()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


@dataclass
class World:
    """Where a row happens.

    Attributes:
        engine: "plain", or what protects the covered connections: "relay" or "kernel".
        both: port on which accept() and connect() are covered.
        inbound: port on which only accept() is: for a foreign client.
        outbound: port on which only connect() is: for a foreign server.
        impatient: as `inbound`, with a handshake deadline of two seconds.
        folder: an empty directory.
        ca, cert, key: PEM files for the foreign peer.
    """

    engine: str
    both: int
    inbound: int
    outbound: int
    impatient: int
    folder: Path
    ca: str
    cert: str
    key: str
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def covered(self) -> bool:
        """Whether this is the run under `ktls run`."""
        return self.engine != "plain"

    def listen(self, port: int | None = None, backlog: int = 128, host: str = HOST) -> socket.socket:
        """A blocking listener, on `both` unless told."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port or self.both), family=family, backlog=backlog)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """(client, server): both covered, both blocking, just connected; the server may not know yet."""
        with self.listen() as listener:
            connecting = self.thread(socket.create_connection, (HOST, self.both))  # it waits for the handshake
            server, _ = listener.accept()
            return connecting.result(), server

    def ready_pair(self) -> tuple[socket.socket, socket.socket]:
        """As pair(), with the handshake done and one byte gone each way."""
        client, server = self.pair()
        client.sendall(b"?")
        assert server.recv(1) == b"?"
        server.sendall(b"!")
        assert client.recv(1) == b"!"
        return client, server

    def server_with_peer(self, *, handshake: bool = True) -> tuple[socket.socket, Peer]:
        """A covered accepted socket and the foreign client at its other end; the handshake is done for both."""
        with self.listen(self.inbound) as listener:
            raw = socket.create_connection((HOST, self.inbound))
            server, _ = listener.accept()
        peer = self.peer(raw)
        if handshake and peer.tls:
            peer.tls.handshake()
            select.select([], [server], [], PATIENCE)
        return server, peer

    def client_with_peer(self, *, handshake: bool = True) -> tuple[socket.socket, Peer]:
        """A covered connected socket and the foreign server at its other end."""
        with self.listen(self.outbound) as listener:
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((HOST, self.outbound))  # a blocking one would wait for the handshake
            raw, _ = listener.accept()
        peer = self.peer(raw, server_side=True)
        if handshake and peer.tls:
            peer.tls.handshake()
        self.until(lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "the connection")
        if handshake:
            select.select([], [client], [], PATIENCE)
        client.setblocking(True)
        return client, peer

    def peer(self, raw: socket.socket, *, server_side: bool = False) -> Peer:
        """Make a foreign peer of a connected socket that is not covered; its handshake has not begun."""
        raw.settimeout(PATIENCE)
        if not self.covered:
            return Peer(raw, None)
        context = server_context(self.cert, self.key) if server_side else client_context(self.ca)
        return Peer(raw, TlsPeer(raw, context, server_side=server_side, hostname=None if server_side else "localhost"))

    def thread(self, work: Callable[..., Any], *arguments: Any) -> "Task":
        """Run something beside the row; .result() waits for it."""
        return Task(work, arguments)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll until `condition` gives something true; what it gave."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.01)
        raise AssertionError(f"waited in vain for {what}")


class Task(threading.Thread):
    """A thread with a result."""

    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__(daemon=True)
        self.work, self.arguments = work, arguments
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self.work(*self.arguments)
        except BaseException as error:
            self.error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), f"{self.work} hangs"
        if self.error:
            raise self.error
        return self.value


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives, or the name of its errno: outcome(sock.recv, 5) -> "EAGAIN"."""
    import errno

    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)


def stream(total: int) -> bytes:
    """Bytes of which no two neighbouring records look alike."""
    block = bytes(range(251)) * (total // 251 + 1)
    return block[:total]


@contextlib.contextmanager
def child(work: Callable[[], Any]):
    """A forked child that does `work` and exits with 0; on leaving the block it is waited for and must have done so."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    yield pid
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"child ended with {status}"

"""A relayed connection in this process: A for the test, the pump on a loop of its own, and the TLS peer."""

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from OpenSSL import SSL

from ktls.poller import Poller
from ktls.pump import Pump
from ktls.relay import RelayCore, RelayEnd
from ktls.session import TxKeys


class WatchedPump(Pump):
    """Remembers the most it ever held in each direction."""

    most = (0, 0)

    def _pump(self) -> None:
        super()._pump()
        self.most = (max(self.most[0], self.held[0]), max(self.most[1], self.held[1]))


@dataclass
class Loop:
    """An asyncio loop with a poller, in a thread."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __enter__(self) -> "Loop":
        self.poller = Poller(self.loop)
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.poller.close()
        self.loop.close()

    def start(
        self,
        connection: SSL.Connection,
        inside: socket.socket,
        outside: socket.socket,
        *,
        strict: bool,
        keys: TxKeys | None = None,
    ) -> "Relayed":
        relayed = Relayed(self)
        relayed.pump = WatchedPump(
            RelayCore(connection, keys),
            inside,
            outside,
            poller=self.poller,
            call_later=self.loop.call_later,
            strict=strict,
            finished=relayed._ended,
        )
        self.loop.call_soon_threadsafe(relayed.pump.start)
        return relayed


class Relayed:
    """One pump: `end` waits for it."""

    pump: WatchedPump

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._done = threading.Event()
        self._end: RelayEnd | None = None

    def _ended(self, end: RelayEnd) -> None:
        self._end = end
        self._done.set()

    def end(self) -> RelayEnd:
        assert self._done.wait(30), "the relay does not end"
        assert self._end is not None
        return self._end

    def stop(self) -> None:
        self._loop.loop.call_soon_threadsafe(self.pump.stop)

    def close(self) -> None:
        self._loop.loop.call_soon_threadsafe(self.pump.close)

    def update_keys(self) -> None:
        self._loop.loop.call_soon_threadsafe(self.pump.update_keys)


def handshake(connection: SSL.Connection, sock: socket.socket) -> None:
    """Finish the handshake of a memory-BIO connection over a blocking socket, as the agent does: no byte too many."""
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            flush(connection, sock)
            connection.bio_write(read_record(sock))
        else:
            flush(connection, sock)
            return


def read_record(sock: socket.socket) -> bytes:
    head = exactly(sock, 5)
    return head + exactly(sock, int.from_bytes(head[3:]))


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        assert chunk, f"end of file after {len(data)} of {count} bytes"
        data += chunk
    return data


def sealed(connection: SSL.Connection) -> bytes:
    """The records that the connection has made so far and nobody has taken."""
    data = b""
    while True:
        try:
            data += connection.bio_read(65536)
        except SSL.WantReadError:
            return data


def flush(connection: SSL.Connection, sock: socket.socket) -> None:
    sock.sendall(sealed(connection))


class OtherEnd:
    """A peer made of pyOpenSSL, for what the standard library cannot do: end one direction, then go on reading."""

    def __init__(self, connection: SSL.Connection, sock: socket.socket) -> None:
        self.connection, self.sock = connection, sock

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)
        flush(self.connection, self.sock)

    def close_notify(self) -> None:
        self.connection.shutdown()
        flush(self.connection, self.sock)

    def receive(self) -> bytes:
        """b"" is close_notify; end of file without one is an AssertionError."""
        while True:
            try:
                return self.connection.recv(65536)
            except SSL.ZeroReturnError:
                return b""
            except SSL.WantReadError:
                self.connection.bio_write(read_record(self.sock))

    def receive_all(self) -> bytes:
        return b"".join(iter(self.receive, b""))


def in_thread(function: Callable[[], object]) -> Callable[[], object]:
    """Run it in a thread; call the result to join and get what it returned, or its exception."""
    results: list[object] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()

    def join() -> object:
        thread.join(60)
        assert not thread.is_alive(), "the thread does not end"
        if errors:
            raise errors[0]
        return results[0]

    return join

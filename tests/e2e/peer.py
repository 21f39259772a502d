"""A TLS peer that is not ours: the standard library's ssl over memory BIOs, both directions at once, one thread."""

import contextlib
import hashlib
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SILENCE = 60.0  # seconds without a byte until a transfer is given up
BLOCK = bytes(range(251)) * 261  # the same stream as programs/transfer.py


def stream_digest(total: int) -> str:
    """SHA-256 of the stream that both ends send."""
    digest = hashlib.sha256()
    while total > 0:
        digest.update(BLOCK[:total])
        total -= len(BLOCK[:total])
    return digest.hexdigest()


def client_context(ca: str, **options: object) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    return _with(context, options)


def server_context(certificate: str, key: str, **options: object) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return _with(context, options)


def _with(context: ssl.SSLContext, options: dict[str, object]) -> ssl.SSLContext:
    """Apply `version` ("1.2", "1.3"), `ciphers` (OpenSSL names, TLS 1.2) and any attribute of the context by name."""
    version, ciphers = options.pop("version", None), options.pop("ciphers", None)
    if version:
        exact = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
        context.minimum_version = context.maximum_version = exact
    if ciphers:
        context.set_ciphers(str(ciphers))
    for name, value in options.items():
        setattr(context, name, value)
    return context


@contextlib.contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A listener whose connections are handed to `behave(sock)` on threads; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def loop() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=_quietly, args=(behave, sock), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # else accept() goes on, with whoever gets the number next


def _quietly(behave: Callable[[socket.socket], None], sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError, ssl.SSLError):
        behave(sock)


OPENED: list[socket.socket] = []
"""Closed after each test (conftest.py), for tests that do not care when."""


@dataclass
class TlsPeer:
    """One connection. Give it a connected socket and a context; then handshake(), transfer(), or the single steps."""

    sock: socket.socket
    context: ssl.SSLContext
    server_side: bool = False
    hostname: str | None = None
    saw_close_notify: bool = False
    early: bytes = b""
    wire: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        OPENED.append(self.sock)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, self.server_side, self.hostname)

    def flush(self) -> None:
        if data := self.outgoing.read():
            self.sock.sendall(data)

    def fill(self) -> bool:
        """Read from the wire once; False at its end."""
        data = self.sock.recv(65536)
        self.wire.append(data)
        self.incoming.write(data) if data else self.incoming.write_eof()
        return bool(data)

    def handshake(self) -> "TlsPeer":
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()
            except ssl.SSLError:
                self.flush()  # the alert
                raise
            else:
                self.flush()
                return self

    def _read(self, size: int) -> bytes:
        """b"" is close_notify, an exception in ssl once we have said ours; other ends are an SSLEOFError."""
        if self.early:
            data, self.early = self.early[:size], self.early[size:]
            return data
        try:
            data = self.tls.read(size)
        except ssl.SSLZeroReturnError:
            data = b""
        self.saw_close_notify |= not data
        return data

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def receive(self, size: int = 65536) -> bytes:
        """Some clear text; b"" at close_notify. Raises ssl.SSLEOFError when the wire ends without one."""
        while True:
            try:
                return self._read(size)
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()

    def receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.receive(size - len(data))
            if not part:
                break
            data += part
        return data

    def close_notify(self) -> None:
        """End our direction; what the peer still sends can be read.

        What has come already is read first: OpenSSL takes it for an error once our close_notify is out.
        """
        early = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := self._read(65536):
                early += data
        self.early = early
        self._unwrap()
        self.flush()

    def _unwrap(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            self.tls.unwrap()

    def transfer(self, total: int) -> tuple[int, str]:
        """Send `total` bytes while reading to the end; returns (bytes received, SHA-256)."""
        self.sock.setblocking(False)
        left, digest, received, wire, ended, closing = total, hashlib.sha256(), 0, b"", False, False
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            while not ended or wire or left or not closing:
                while not wire and left:
                    block = BLOCK[:left]
                    self.tls.write(block)
                    left -= len(block)
                    wire = self.outgoing.read()
                if not left and not wire and not closing:
                    closing = True
                    ended, count = self._drain(digest)  # as in close_notify()
                    received += count
                    self._unwrap()
                    wire = self.outgoing.read()
                events = selectors.EVENT_READ * (not ended) | selectors.EVENT_WRITE * bool(wire)
                if not events:
                    break
                selector.modify(self.sock, events)
                ready = selector.select(SILENCE)
                if not ready:
                    raise TimeoutError(f"nothing to read or write for {SILENCE:.0f} s, {received} bytes received")
                for _, mask in ready:
                    if mask & selectors.EVENT_WRITE:
                        wire = wire[self.sock.send(wire) :]
                    if mask & selectors.EVENT_READ and not ended:
                        self.fill()
                        ended, count = self._drain(digest)
                        received += count
                        wire += self.outgoing.read()
        self.sock.setblocking(True)
        return received, digest.hexdigest()

    def _drain(self, digest) -> tuple[bool, int]:
        count = 0
        while True:
            try:
                data = self._read(65536)
            except ssl.SSLWantReadError:
                return False, count
            if not data:
                return True, count
            digest.update(data)
            count += len(data)

"""A connection with kTLS at one end and nothing but bytes at the other, where records are made and opened by hand.

No shim, no agent, no OpenSSL: what the tests of facts see is the kernel alone. Keys are random for each connection.
"""

import array
import ctypes
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ktls import kernel
from ktls.ciphers import SUITES, CipherSuite, Version, aead
from ktls.probe import probe
from ktls.records import ContentType, Plaintext, RecordProtection, RecordReader
from ktls.session import RxKeys, TxKeys

PATIENCE = 20.0
CAPABILITIES = probe()
needs_rekey = pytest.mark.skipif(not CAPABILITIES.rekey, reason="this kernel cannot rekey")
no_rekey = pytest.mark.skipif(CAPABILITIES.rekey, reason="this kernel can rekey")

DATA, ALERT, HANDSHAKE = ContentType.APPLICATION_DATA, ContentType.ALERT, ContentType.HANDSHAKE
CLOSE_NOTIFY = b"\1\0"
TICKET = bytes((4, 0, 0, 5)) + b"nonce"
KEY_UPDATE = bytes((24, 0, 0, 1, 0))

ONE_EACH = tuple({(suite.kernel, version): (version, suite) for suite in SUITES for version in suite.versions}.values())
"""Version and suite, once for each of the kernel's ciphers."""
BY_VERSION = {version: next(s for v, s in ONE_EACH if v is version) for version in Version}
ABORT = struct.pack("=ii", 1, 0)
"""struct linger: close() is a RST."""
libc = ctypes.CDLL(None, use_errno=True)


def make_keys(suite: CipherSuite, version: Version, sequence: int = 0) -> TxKeys:
    """Random keys; in TLS 1.3 from a random secret, so that they can be updated."""
    if version is Version.TLS13:
        return TxKeys.from_secret(os.urandom(32 if suite.hash_name == "sha256" else 48), suite, sequence=sequence)
    key, iv, nonce = map(os.urandom, (suite.key_length, suite.fixed_iv_length, suite.explicit_nonce_length))
    return TxKeys(suite=suite, version=version, key=key, iv=iv, explicit_nonce=nonce, sequence=sequence)


def receiving(keys: TxKeys) -> RxKeys:
    """The other side of the same keys."""
    return RxKeys(
        suite=keys.suite, version=keys.version, secret=keys.secret, key=keys.key, iv=keys.iv, sequence=keys.sequence
    )


def seal_any(keys: TxKeys, number: int, data: bytes) -> bytes:
    """Make a record of any type: `RecordProtection` makes only those of the RFC."""
    cipher = aead(keys.suite, keys.key)
    mask = (int.from_bytes(keys.iv) ^ keys.sequence).to_bytes(12)
    if keys.version is Version.TLS13:
        header = struct.pack(">BHH", DATA, 0x0303, len(data) + 17)
        return header + cipher.encrypt(mask, data + bytes([number]), header)
    explicit = os.urandom(keys.suite.explicit_nonce_length)
    header = struct.pack(">BHH", number, 0x0303, len(data) + keys.suite.overhead)
    aad = struct.pack(">QBHH", keys.sequence, number, 0x0303, len(data))
    return header + explicit + cipher.encrypt(keys.iv + explicit if explicit else mask, data, aad)


class Link:
    """A connection over loopback. `end` has kTLS; `peer` is plain TCP, and `put` and `take` do TLS for it."""

    def __init__(self, version: Version, suite: CipherSuite, *, keyed: bool = True, attached: bool = True) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.peer = socket.create_connection(server.getsockname())
            self.end, _ = server.accept()
        for sock in (self.end, self.peer):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or a second small record waits for an ACK
        self.peer.settimeout(PATIENCE)
        self.version, self.suite = version, suite
        self.tx, self.from_peer = make_keys(suite, version), make_keys(suite, version)
        self.rx = receiving(self.from_peer)
        self._seal, self._open = RecordProtection(self.from_peer), RecordProtection(receiving(self.tx))
        self._reader = RecordReader()
        self._put = 0
        try:
            if attached or keyed:
                kernel.attach(self.end)
            if keyed:
                self.install()
        except BaseException:
            self.close()
            raise

    def install(self) -> None:
        """Put both directions' keys into the kernel."""
        kernel.install_tx(self.end, self.tx)
        kernel.install_rx(self.end, self.rx)

    def close(self) -> None:
        """Close both ends."""
        self.end.close()
        self.peer.close()

    # --- the peer ----------------------------------------------------------------------------------------------------

    def seal(self, content_type: int, data: bytes, padding: int = 0) -> bytes:
        """Make the peer's next record."""
        return self._seal.seal(ContentType(content_type), data, padding=padding)

    def put(self, content_type: int, data: bytes, padding: int = 0) -> bytes:
        """Send the peer's next record, and wait until it has arrived."""
        return self.put_raw(self.seal(content_type, data, padding))

    def put_type(self, number: int, data: bytes) -> bytes:
        """Send a record of any type, known or not, made like `seal` does it."""
        self._seal.sequence += 1
        return self.put_raw(seal_any(self.from_peer.at(self._seal.sequence - 1), number, data))

    def put_at(self, sequence: int, number: int, data: bytes) -> bytes:
        """Send a record under another number than the next."""
        return self.put_raw(seal_any(self.from_peer.at(sequence), number, data))

    def put_raw(self, data: bytes) -> bytes:
        """Send bytes from the peer, and wait until they have arrived."""
        self.peer.sendall(data)
        self._put += len(data)
        until(lambda: bytes_received(self.end) >= self._put, "the peer's bytes")
        return data

    def take(self) -> Plaintext | None:
        """Open the next record that the peer gets; None at the end of file."""
        while (record := self._reader.next_record()) is None:
            data = self.peer.recv(self._reader.want)
            if not data:
                return None
            self._reader.feed(data)
        return self._open.open(record)

    def take_record(self) -> bytes:
        """Take the next record that the peer gets, as it is."""
        while (record := self._reader.next_record()) is None:
            data = self.peer.recv(self._reader.want)
            assert data, "the end of file"
            self._reader.feed(data)
        return record

    def peer_finishes(self) -> None:
        """Send FIN from the peer, and wait until it has arrived."""
        self.peer.shutdown(socket.SHUT_WR)
        until(lambda: poll(self.end) & select.POLLRDHUP, "the peer's FIN")

    def updated_from_peer(self) -> RxKeys:
        """Move the peer to its next keys, as after its KeyUpdate; what the kernel then needs."""
        self.from_peer = self.from_peer.updated()
        self._seal = RecordProtection(self.from_peer)
        return receiving(self.from_peer)

    def end_was_updated(self) -> None:
        """Move the peer's reading to the keys after the end's KeyUpdate."""
        self.tx = self.tx.updated()
        self._open = RecordProtection(receiving(self.tx))

    # --- the end with kTLS -------------------------------------------------------------------------------------------

    def recv(self, size: int = 65536, flags: int = 0) -> bytes:
        """A plain read that does not wait."""
        return self.end.recv(size, flags | socket.MSG_DONTWAIT)

    def record(self, size: int = 65536) -> tuple[int | None, bytes]:
        """Read whatever is at the head: its type and content."""
        record = kernel.read_record(self.end, size)
        return record.content_type, record.data


def bytes_received(sock: socket.socket) -> int:
    """tcpi_bytes_received: what has arrived in order. Asking takes the socket's lock, so it was looked at as well."""
    count: int = struct.unpack_from("=Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), 128)[0]
    return count


def poll(sock: socket.socket, timeout: int = 0) -> int:
    """Poll's events, all but OUT."""
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLRDHUP | select.POLLPRI)
    return dict(poller.poll(timeout)).get(sock.fileno(), 0)


def queued_in(sock: socket.socket) -> int:
    """FIONREAD."""
    return _count(sock, termios.FIONREAD)


def queued_out(sock: socket.socket) -> int:
    """SIOCOUTQ: what the peer has not acknowledged."""
    return _count(sock, termios.TIOCOUTQ)


def _count(sock: socket.socket, request: int) -> int:
    answer = array.array("i", [0])
    fcntl.ioctl(sock, request, answer)
    return answer[0]


def counter(name: str) -> int:
    """One of /proc/net/tls_stat."""
    rows = dict(line.split() for line in Path("/proc/net/tls_stat").read_text().splitlines())
    return int(rows[name])


def zerocopy_receive(sock: socket.socket, size: int = 4096) -> bytes:
    """Read with getsockopt(TCP_ZEROCOPY_RECEIVE): struct tcp_zerocopy_receive, with copybuf alone."""
    buffer = ctypes.create_string_buffer(size)
    request = ctypes.create_string_buffer(
        struct.pack("=QIIIiQiI16x", 0, 0, 0, 0, 0, ctypes.addressof(buffer), size, 0), 56
    )
    length = ctypes.c_uint32(40)
    libc_result(libc.getsockopt(sock.fileno(), socket.IPPROTO_TCP, 35, request, ctypes.byref(length)))
    return buffer.raw[: struct.unpack_from("=i", request, 32)[0]]


def error_of(call: Callable[..., object], *arguments: object) -> int:
    """The errno that a call fails with; 0 if it does not."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def libc_result(result: int) -> int:
    """What a C function returned, or its OSError."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def until(condition: Callable[[], object], what: str) -> None:
    """Poll until `condition` gives something true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        os.sched_yield()


class Blocked:
    """Runs a call in a thread, and returns when that thread sleeps inside the kernel function `where`."""

    def __init__(self, call: Callable[[], object], where: str) -> None:
        self._call = call
        self.result: object = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._stack = Path(f"/proc/self/task/{self._thread.native_id}/stack")
        until(lambda: self._is_in(where) or not self._thread.is_alive(), f"a thread in {where}")

    def _is_in(self, where: str) -> bool:
        try:
            return where in self._stack.read_text()
        except OSError:  # it has ended meanwhile
            return False

    def _run(self) -> None:
        try:
            self.result = self._call()
        except OSError as error:
            self.result = error.errno

    def join(self) -> object:
        """What it returned, or its errno."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "still blocked"
        return self.result

    @property
    def blocked(self) -> bool:
        return self._thread.is_alive()


def drop_privileges_and(call: Callable[[], object]) -> int:
    """Run a call as nobody in a child: 0, its errno, or 255 for anything else."""
    child = os.fork()
    if child == 0:
        status = 255
        with suppress(BaseException):
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            status = error_of(call)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

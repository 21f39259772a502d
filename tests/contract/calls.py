"""The C library's calls that Python has no function for, found where a program would find them: the shim included."""

import ctypes
import errno
import fcntl
import select
import socket
import struct
import subprocess
import termios
from pathlib import Path

from tests.e2e.harness import PATIENCE

libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("iov", ctypes.POINTER(Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", Msghdr), ("length", ctypes.c_uint))


INT = (
    "getsockopt",
    "accept",
    "recvmmsg",
    "sendmmsg",
    "poll",
    "__poll_chk",
    "close",
    "shutdown",
    "dprintf",
    "__dprintf_chk",
)
"""Functions that return an int; others a ssize_t."""


def call(name: str, *arguments: object) -> int | str:
    """What a function of the C library gives, or the name of its errno."""
    function = libc[name]  # an object of its own each time: the result type is nobody else's
    function.restype = ctypes.c_int if name in INT else ctypes.c_ssize_t
    ctypes.set_errno(0)
    value = function(*arguments)
    return errno.errorcode[ctypes.get_errno()] if value == -1 else value


def buffers(*sizes: int) -> tuple[list[ctypes.Array], ctypes.Array]:
    """Buffers of these sizes, and the iovec array over them."""
    parts = [ctypes.create_string_buffer(max(size, 1)) for size in sizes]
    vector = (Iovec * len(sizes))()
    for entry, part, size in zip(vector, parts, sizes, strict=True):
        entry.base, entry.length = ctypes.addressof(part), size
    return parts, vector


def messages(vector: ctypes.Array) -> ctypes.Array:
    """An array for recvmmsg() or sendmmsg(): one message for each of the buffers."""
    array = (Mmsghdr * len(vector))()
    for index, message in enumerate(array):
        message.header.iov = ctypes.pointer(vector[index])
        message.header.iov_length = 1
    return array


def text(array: ctypes.Array, length: int | str) -> str:
    """The first `length` bytes of a buffer."""
    return array.raw[:length].decode() if isinstance(length, int) else length


def unread(sock: socket.socket) -> int:
    """FIONREAD."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))[0]


def unsent(sock: socket.socket) -> int:
    """SIOCOUTQ."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]


def mask(sock: socket.socket, events: int = select.POLLIN | select.POLLOUT | select.POLLRDHUP, wait: float = 0) -> str:
    """What poll() says about a socket: "IN|RDHUP"."""
    poll = select.poll()
    poll.register(sock, events)
    return names(next((got for _, got in poll.poll(wait)), 0), "POLL")


def names(value: int, prefix: str) -> str:
    """The names of event bits, without their prefix."""
    known = ("IN", "PRI", "OUT", "ERR", "HUP", "NVAL", "RDHUP")
    found = [name for name in known if value & getattr(select, prefix + name, 0)]
    return "|".join(found) or "nothing"


def wait_for_mask(sock: socket.socket, wanted: str) -> str:
    """Poll until poll() says `wanted`, which may take the peer's segments a moment; what it says in the end."""
    import time

    deadline = time.monotonic() + PATIENCE
    while (seen := mask(sock)) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return seen


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or what there was before the end."""
    data = bytearray()
    while len(data) < size and (part := sock.recv(min(size - len(data), 1 << 16))):
        data += part
    return bytes(data)


def drain(sock: socket.socket) -> int:
    """How many bytes come before the end."""
    count = 0
    while part := sock.recv(1 << 16):
        count += len(part)
    return count


class Handler:
    """A signal handler in C (handler.c), from here to the end of the row.

    Args:
        folder: where it is built.
        number: of the signal.
        restart: SA_RESTART.
        writes: a descriptor, and what the handler writes to it; None: it only counts.
    """

    def __init__(
        self, folder: Path, number: int, *, restart: bool = True, writes: tuple[int, bytes] | None = None
    ) -> None:
        library, source = folder / "handler.so", Path(__file__).with_name("handler.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        self._library = ctypes.CDLL(str(library))
        if writes:
            self._what = ctypes.create_string_buffer(writes[1], len(writes[1]))
            self._variable("to").value = writes[0]
            ctypes.c_void_p.in_dll(self._library, "what").value = ctypes.addressof(self._what)
            ctypes.c_size_t.in_dll(self._library, "length").value = len(writes[1])
        assert self._library.install(number, restart) == 0

    def _variable(self, name: str) -> ctypes.c_int:
        return ctypes.c_int.in_dll(self._library, name)

    @property
    def hits(self) -> int:
        """How often it ran; less than 0 when it could not write."""
        return self._variable("hits").value

    def __enter__(self) -> None:
        """It does nothing in this block."""
        self._variable("busy").value = 1

    def __exit__(self, *_: object) -> None:
        self._variable("busy").value = 0

"""The C library's calls that Python has no function for, found where a program would find them: the shim included."""

import contextlib
import ctypes
import errno
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterator

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


@contextlib.contextmanager
def on_signal(number: int, handler: Callable[[], object], *, restart: bool = True) -> Iterator[None]:
    """A handler that the kernel itself runs, at once and in the middle of a call, not when Python comes to it."""

    class Sigaction(ctypes.Structure):
        _fields_ = (
            ("handler", ctypes.c_void_p),
            ("mask", ctypes.c_ulong * 16),
            ("flags", ctypes.c_int),
            ("restorer", ctypes.c_void_p),
        )

    keep = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: handler() and None)
    action, before = Sigaction(flags=0x10000000 if restart else 0), Sigaction()
    action.handler = ctypes.cast(keep, ctypes.c_void_p)
    assert libc.sigaction(number, ctypes.byref(action), ctypes.byref(before)) == 0
    try:
        yield
    finally:
        libc.sigaction(number, ctypes.byref(before), None)

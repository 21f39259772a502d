"""How TCP connections are ended by a process that is not the only one to hold them."""

from collections.abc import Callable
from fcntl import ioctl
from select import poll
from socket import SO_LINGER, SOL_SOCKET, socket
from struct import Struct
from sys import byteorder
from termios import TIOCOUTQ

RESET_PAUSE = 0.01
"""Seconds between looks whether the peer has all that was sent."""

_LINGER = Struct("=ii")  # struct linger: on, seconds


def shut(sock: socket, how: int) -> None:
    """Shut a socket down that may be down already."""
    try:
        sock.shutdown(how)
    except OSError:  # ENOTCONN
        return


def aborts(sock: socket) -> bool:
    """Tell whether the program wants close() to be a RST: SO_LINGER on, with no seconds."""
    return _linger(sock) == (1, 0)


def hung_up(sock: socket) -> bool:
    """Tell whether nobody holds the other end of a Unix socket any more, or it has been shut down both ways."""
    asked = poll()
    asked.register(sock, 0)
    return bool(asked.poll(0))


def abort_at_close(sock: socket) -> None:
    """Make close() a RST."""
    sock.setsockopt(SOL_SOCKET, SO_LINGER, _LINGER.pack(1, 0))


def unacknowledged(sock: socket) -> int:
    """Count the bytes that the peer's kernel does not have yet."""
    return int.from_bytes(ioctl(sock, TIOCOUTQ, bytes(4)), byteorder)


def reset_when_out(
    sock: socket, call_later: Callable[[float, Callable[[], None]], object], reset: Callable[[], None]
) -> None:
    """Make close() a RST and call `reset`, as soon as the peer's kernel has all that was sent."""
    if sock.fileno() < 0:
        return
    if unacknowledged(sock):
        call_later(RESET_PAUSE, lambda: reset_when_out(sock, call_later, reset))
        return
    abort_at_close(sock)
    reset()


def stands(sock: socket) -> bool:
    """Tell whether TCP has connected it, and nobody has reset it since."""
    try:
        sock.getpeername()
    except OSError:  # ENOTCONN
        return False
    return True


def close_tcp(sock: socket) -> None:
    """Close R without ever waiting: a program's SO_LINGER would hold up everybody else in this process."""
    if sock.fileno() < 0:
        return
    on, seconds = _linger(sock)
    if on and seconds:
        sock.setsockopt(SOL_SOCKET, SO_LINGER, _LINGER.pack(0, 0))
    sock.close()


def _linger(sock: socket) -> tuple[int, int]:
    on, seconds = _LINGER.unpack(sock.getsockopt(SOL_SOCKET, SO_LINGER, _LINGER.size))
    return int(bool(on)), seconds

"""What the kernel says of every TCP socket that ends: the destroy notifications of SOCK_DIAG.

Anybody may listen to those of their own network namespace. Sources: sock_diag(7), include/uapi/linux/inet_diag.h,
include/uapi/linux/tcp.h, net/core/sock_diag.c (sock_diag_broadcast_destroy).
"""

import socket
import struct
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOBUFS

MESSAGE_MAX = 8192
"""Bytes of one datagram: one socket's end takes about 400."""
QUEUE = 1 << 20
"""Bytes of notifications that may wait for us; beyond that the kernel drops some and says so."""

_NETLINK_SOCK_DIAG = 4
_SO_COOKIE, _SO_NETNS_COOKIE = 57, 71  # include/uapi/asm-generic/socket.h
_GROUPS = 1 << 0 | 1 << 2  # SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_KINDS = (20, 21)  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY: kernels differ in which they say
_COOKIE = struct.Struct("=44xQ20x")  # struct inet_diag_msg, 72 bytes, of which we want idiag_cookie
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_INFO = 2  # INET_DIAG_INFO
_TCP_INFO = struct.Struct("=120xQQ64xQQ")  # tcpi_bytes_acked, _received, _sent, _retrans


@dataclass(frozen=True, slots=True)
class TcpEnd:
    """How a TCP socket ended.

    Args:
        cookie: what SO_COOKIE gave for it.
        acknowledged: what the peer has acknowledged: bytes, and the SYN of whoever connected, and a FIN, as one each.
        received: bytes that came in order; a peer's FIN may count for one.
        sent: bytes that were sent, each counted once.
    """

    cookie: int
    acknowledged: int
    received: int
    sent: int

    def delivered(self, *, connected: bool) -> int:
        """Count the bytes that the peer's kernel has; `connected`: the socket was the one that called connect()."""
        return max(0, min(self.acknowledged - connected, self.sent))

    def in_order(self, *, connected: bool) -> bool:
        """Tell whether the peer has acknowledged our FIN. Otherwise it was a reset, or nobody answered any more."""
        return self.acknowledged - connected > self.sent


def listen_for_ends() -> socket.socket:
    """Open a socket, non-blocking, that is told of the ends of TCP sockets.

    Raises:
        OSError: this kernel does not tell them.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE)
        sock.bind((0, _GROUPS))
    except OSError:
        sock.close()
        raise
    return sock


def take_end_messages(sock: socket.socket, most: int) -> list[bytes]:
    """Take what lies in the socket, at most so many datagrams; some are missing where the kernel had to drop them."""
    taken: list[bytes] = []
    while len(taken) < most:
        try:
            taken.append(sock.recv(MESSAGE_MAX))
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != ENOBUFS:
                raise
    return taken


def cookie_of(sock: socket.socket, listening: socket.socket) -> int | None:
    """Return the name under which the end of `sock` will be told; None if it is in another network namespace."""
    with suppress(OSError):  # before Linux 5.14 they cannot be compared
        if sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) != listening.getsockopt(
            socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8
        ):
            return None
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0])


def parse_ends(datagram: bytes, known: Container[int]) -> list[TcpEnd]:
    """Read the ends of sockets out of netlink messages.

    Args:
        datagram: whole messages. What is malformed, or of another kind, is passed over.
        known: the cookies that are asked for: most sockets of a host are others.
    """
    return [end for kind, body in _messages(datagram) if kind in _KINDS and (end := _end(body, known)) is not None]


def _messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and content of each netlink message."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            return
        yield kind, datagram[offset + _HEADER.size : offset + length]
        offset += length + 3 & ~3


def _end(body: bytes, known: Container[int]) -> TcpEnd | None:
    if len(body) < _COOKIE.size:
        return None
    (cookie,) = _COOKIE.unpack_from(body)
    if cookie not in known:
        return None
    offset = _COOKIE.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        info = body[offset + _ATTRIBUTE.size : offset + length]
        if kind == _INFO and len(info) >= _TCP_INFO.size:
            acknowledged, received, sent, again = _TCP_INFO.unpack_from(info)
            return TcpEnd(cookie, acknowledged, received, sent - again)
        offset += length + 3 & ~3
    return None

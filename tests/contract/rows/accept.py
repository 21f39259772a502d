"""accept()."""

import ctypes
import errno
import os
import select
import socket
import struct

from tests.contract.row import row
from tests.contract.world import HOST, World, outcome

LIBC = ctypes.CDLL(None, use_errno=True)


def rst(sock: socket.socket) -> None:
    """Close it with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def raw_accept(listener: socket.socket, room: int | None = 128, flags: int | None = None) -> tuple[int, bytes, int]:
    """accept() or accept4() as C has it: (descriptor or -errno, what is in the buffer, the length it says)."""
    buffer, length = ctypes.create_string_buffer(b"\xee" * 128, 128), ctypes.c_int(room or 0)
    address = (None, None) if room is None else (buffer, ctypes.byref(length))
    more = () if flags is None else (flags,)
    fd = (LIBC.accept if flags is None else LIBC.accept4)(listener.fileno(), *address, *more)
    return (fd if fd >= 0 else -ctypes.get_errno()), buffer.raw, length.value


@row("accept(), blocking, before the client comes", "it waits, then gives the connection; bytes go both ways")
def blocking(world: World) -> list:
    with world.listen() as listener:
        accepting = world.thread(listener.accept)
        with socket.create_connection((HOST, world.both)) as client:
            server, address = accepting.result()
            client.sendall(b"there")
            server.sendall(server.recv(10) + b" and back")
            return [client.recv(50).decode(), address == client.getsockname(), server.getblocking()]


@row(
    "accept() on a non-blocking listener: at once; after poll(); after epoll",
    "EAGAIN; the connection, blocking; the next one",
)
def nonblocking(world: World) -> list:
    with world.listen() as listener, select.epoll() as epoll:
        listener.setblocking(False)
        early, none_yet, _ = raw_accept(listener)
        seen = [errno.errorcode[-early], none_yet == b"\xee" * 128]
        epoll.register(listener, select.EPOLLIN)
        poll = select.poll()
        poll.register(listener)
        for wait in (lambda: poll.poll(30000), lambda: epoll.poll(30)):
            connecting = world.thread(socket.create_connection, (HOST, world.both))
            seen.append([event for _, event in wait()])
            fd, _, _ = raw_accept(listener)
            seen.append(os.get_blocking(fd))
            os.write(fd, b"x")
            seen.append(connecting.result().recv(5).decode())
        return seen


@row(
    "accept4() with SOCK_NONBLOCK, SOCK_CLOEXEC, both, neither: the flags of the descriptor, before and after the "
    "handshake, and a read at once",
    "just what was asked for; EAGAIN on the non-blocking ones",
)
def flags(world: World) -> list:
    seen = []
    for wanted in (0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC):
        with world.listen() as listener:
            connecting = world.thread(socket.create_connection, (HOST, world.both))
            fd, _, _ = raw_accept(listener, flags=wanted)
            before = [os.get_blocking(fd), os.get_inheritable(fd)]
            read = outcome(os.read, fd, 1) if wanted & socket.SOCK_NONBLOCK else "waits"
            client = connecting.result()
            client.sendall(b"x")
            select.select([fd], [], [], 30)
            seen.append([before, read, os.read(fd, 9).decode(), os.get_blocking(fd), os.get_inheritable(fd)])
            client.close()
    return seen


@row("accept4() with a flag that does not exist", "EINVAL, and the connection is still in the queue")
def unknown_flag(world: World) -> list:
    with world.listen() as listener:
        connecting = world.thread(socket.create_connection, (HOST, world.both))
        fd, _, _ = raw_accept(listener, flags=0x40000000)
        server, _ = listener.accept()
        server.sendall(b"x")
        return [errno.errorcode[-fd], connecting.result().recv(5).decode()]


@row("accept() with room for 16, 8, 0 bytes of the address, and with none", "cut to the room; the real length is told")
def short_address(world: World) -> list:
    seen = []
    for room in (128, 16, 8, 0, None):
        with world.listen() as listener:
            connecting = world.thread(socket.create_connection, (HOST, world.both))
            fd, got, length = raw_accept(listener, room)
            client = connecting.result()
            expected = struct.pack("<H", socket.AF_INET) + struct.pack(">H", client.getsockname()[1])
            expected += socket.inet_aton(HOST) + bytes(8)
            size = min(room or 0, 16)
            seen.append([got[:size] == expected[:size], got[size:] == b"\xee" * (128 - size), length, fd >= 0])
            client.close()
    return seen


@row("accept() with a negative length, and with no length", "EINVAL; EFAULT")
def bad_length(world: World) -> list:
    seen = []
    with world.listen() as listener:
        for length in (ctypes.byref(ctypes.c_int(-1)), None):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((HOST, world.both))
            select.select([listener], [], [], 30)
            assert LIBC.accept(listener.fileno(), ctypes.create_string_buffer(128), length) == -1
            seen.append(errno.errorcode[ctypes.get_errno()])
    return seen


@row("accept() on an IPv6 listener: a client over IPv6, a client over IPv4", "::1; the IPv4 address, mapped")
def ipv6(world: World) -> list:
    seen = []
    address = ("::", world.inbound)
    with socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        for host in ("::1", HOST):
            raw = socket.create_connection((host, world.inbound))
            server, peer_address = listener.accept()
            peer = world.peer(raw)
            if peer.tls:
                peer.tls.handshake()
            peer.send(b"x")
            seen.append([peer_address[0], peer_address[1] == raw.getsockname()[1], server.recv(9).decode()])
            seen.append([server.getpeername()[0], server.getsockname()[0], server.family.name])
    return seen


@row(
    "accept() of a connection that the client has reset, having sent something",
    "the connection; its address; the bytes; ECONNRESET; end of file",
    kernel="the same, but ECONNRESET every time: the bytes were clear text",
    relay="the same, but EPROTO every time",
)
def reset_in_the_queue(world: World) -> list:
    with world.listen(world.inbound) as listener:
        client = socket.create_connection((HOST, world.inbound))
        name = client.getsockname()
        client.sendall(b"clear text")
        rst(client)
        server, address = listener.accept()
        seen = [address == name, outcome(server.getpeername)]
        calls = [outcome(server.recv, 50) for _ in range(3)]
        ours = {"relay": ["EPROTO"] * 3, "kernel": ["ECONNRESET"] * 3}  # the kernel takes no keys for what is closed
        assert calls == ours.get(world.engine, [b"clear text", "ECONNRESET", b""]), calls
        return seen


@row("accept() of a connection that the client has closed without a word", "the connection; end of file")
def closed_in_the_queue(world: World) -> list:
    with world.listen() as listener:
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((HOST, world.both))
        client.close()
        server, _ = listener.accept()
        return [len(server.recv(50)), outcome(server.recv, 50) == b""]

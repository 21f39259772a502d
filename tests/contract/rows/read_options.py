"""Reading: options, counts, control messages."""

import ctypes
import os
import socket
import struct

from tests.contract.calls import Msghdr, buffers, call, mask, unread, wait_for_mask
from tests.contract.row import row
from tests.contract.world import World, outcome

RECORD = 16384
SO_TIMESTAMP = 29
PEEK, NOW, ALL = socket.MSG_PEEK, socket.MSG_DONTWAIT, socket.MSG_WAITALL


def shown(parts: list) -> list:
    return [part.decode() if isinstance(part, bytes) else part for part in parts]


def arrived(world: World, sock: socket.socket, count: int) -> None:
    world.until(lambda: unread(sock) >= count, f"{count} bytes")


@row("SO_RCVTIMEO: read(), recv(), recvmsg() and readv() when nothing comes", "EAGAIN after the time")
def times_out(world: World) -> list:
    _, server = world.ready_pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    calls: list[tuple] = [
        (os.read, server.fileno(), 1),
        (server.recv, 1),
        (server.recvmsg, 1),
        (os.readv, server.fileno(), [bytearray(1)]),
    ]
    return [[outcome(*each) for each in calls], server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16).hex()]


@row("SO_RCVTIMEO set while the handshake goes on, for reads before and after it", "EAGAIN after the time")
def times_out_early(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    early = outcome(server.recv, 1)
    if peer.tls:
        peer.tls.handshake()
    peer.send(b"x")
    arrived(world, server, 1)
    return [early, server.recv(1).decode(), outcome(server.recv, 1)]


@row("SO_RCVLOWAT: a blocking read with less than that there", "waits until there is as much, or the end")
def low_water_mark(world: World) -> list:
    client, server = world.ready_pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 8)
    reading = world.thread(server.recv, 100)
    client.sendall(b"1234")
    reading.join(0.1)
    seen: list = [reading.is_alive()]
    client.sendall(b"56789abc")  # where the read has taken the first four, it wants eight more
    seen += [reading.result(), server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)]
    client.sendall(b"abc")
    arrived(world, server, 3)
    return shown([*seen, server.recv(100, NOW)])


@row(
    "SO_RCVLOWAT: poll() with less than that there, then with as much",
    "not readable; readable",
    kernel="readable as soon as anything is there",
    relay="readable as soon as anything is there",
)
def low_water_mark_and_poll(world: World) -> list:
    client, server = world.ready_pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 8)
    client.sendall(b"1234")
    arrived(world, server, 4)
    less = mask(server)
    assert less == ("IN|OUT" if world.covered else "OUT")
    client.sendall(b"5678")
    return [wait_for_mask(server, "IN|OUT"), len(server.recv(100))]


@row("SO_RCVLOWAT with less than that there, when the stream ends", "readable; the rest; 0")
def low_water_mark_at_the_end(world: World) -> list:
    client, server = world.ready_pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 8)
    client.sendall(b"x")
    client.close()
    seen = wait_for_mask(server, "IN|OUT|RDHUP")
    return shown([seen, server.recv(100), server.recv(100)])


@row("FIONREAD, SIOCINQ: before, between and after partial reads of several records", "the bytes not read yet")
def counts_unread(world: World) -> list:
    client, server = world.ready_pair()
    seen = [unread(server)]
    for _ in range(3):
        client.sendall(bytes(1000))
    arrived(world, server, 3000)
    for size in (1, 998, 1, 1500, 10000):
        seen += [unread(server), len(server.recv(size))]
    return [*seen, unread(server)]


@row("FIONREAD at the end of the stream", "0")
def counts_at_the_end(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"ab")
    client.close()
    arrived(world, server, 2)
    return [unread(server), server.recv(2).decode(), unread(server), server.recv(1).decode(), unread(server)]


@row(
    "SO_TIMESTAMP, then recvmsg() with room for control messages",
    "no kernel may add a stamp; no other control message comes",
)
def control_messages(world: World) -> list:
    client, server = world.ready_pair()
    server.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    client.sendall(b"hello")
    arrived(world, server, 5)
    data, control, flags, _ = server.recvmsg(3, 500)
    rest, more, again, _ = server.recvmsg(100, 500)
    foreign = [(level, kind) for level, kind, _ in control + more if (level, kind) != (socket.SOL_SOCKET, SO_TIMESTAMP)]
    return [data.decode(), rest.decode(), flags, again, foreign]


@row("recvmsg() with a control buffer too small for any message, of every size to 32", "the data, no flags, length 0")
def small_control_buffers(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(bytes(33))
    arrived(world, server, 33)
    seen = set()
    for size in range(33):
        control = ctypes.create_string_buffer(b"\x55" * 64, 64)
        _, vector = buffers(1)
        header = Msghdr(None, 0, vector, 1, ctypes.addressof(control), size, 0)
        got = call("recvmsg", server.fileno(), ctypes.byref(header), 0)
        seen.add((got, header.flags, header.control_length, control.raw == b"\x55" * 64))
    return sorted(seen)


@row("a TLS peer's tickets, key updates and end around data, under every reading call", "nothing of them is seen")
def records_of_other_types(world: World) -> list:
    server, peer = world.client_with_peer()
    peer.send(b"one")
    arrived(world, server, 3)
    seen: list = [server.recv(100, PEEK), server.recvmsg(100, 100)]
    peer.send(b"two")
    peer.end()
    arrived(world, server, 3)
    parts, vector = buffers(10, 10)
    header = Msghdr(None, 0, vector, 2, None, 0, 0)
    seen += [call("recvmsg", server.fileno(), ctypes.byref(header), PEEK), header.flags]
    seen += [os.readv(server.fileno(), [bytearray(2), bytearray(100)])]
    for _ in range(2):
        header = Msghdr(None, 0, vector, 2, ctypes.addressof(parts[0]), 10, 0)
        seen += [call("recvmsg", server.fileno(), ctypes.byref(header), 0), header.flags, header.control_length]
    return [list(map(repr, part)) if isinstance(part, tuple) else part for part in shown(seen)]


@row("TCP_ZEROCOPY_RECEIVE of less than a page", "nothing is mapped, all is to be read; the data is there for recv()")
def zero_copy_receive(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"hello")
    arrived(world, server, 5)
    argument, length = ctypes.create_string_buffer(struct.pack("QII", 4096, 4096, 0) + bytes(48), 64), ctypes.c_uint(64)
    asked = (server.fileno(), socket.IPPROTO_TCP, 35, argument, ctypes.byref(length))
    seen: list = [call("getsockopt", *asked), *struct.unpack_from("II", argument, 8)]
    return [*seen, server.recv(10).decode()]

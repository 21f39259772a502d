"""Reading: select(), poll() and epoll between partial reads."""

import ctypes
import os
import select
import socket
import struct

from tests.contract.calls import call, mask, names, unread
from tests.contract.row import row
from tests.contract.world import World, outcome, stream
from tests.e2e.harness import PATIENCE

RECORD = 16384
EDGE, ONCE = select.EPOLLET, select.EPOLLONESHOT


def epoll_with(sock: socket.socket, events: int) -> select.epoll:
    epoll = select.epoll()
    epoll.register(sock, events)
    return epoll


def told(epoll: select.epoll, wait: float = PATIENCE) -> str:
    """What epoll says about the one socket in it, "nothing" if it stays silent."""
    return names(next((events for _, events in epoll.poll(wait)), 0), "EPOLL")


def silent(epoll: select.epoll) -> str:
    return told(epoll, 0.05)


def arrived(world: World, sock: socket.socket, count: int) -> None:
    world.until(lambda: unread(sock) >= count, f"{count} bytes")


@row("select(), poll(), epoll before, between and after partial reads of one record", "readable until the last byte")
def level_triggered(world: World) -> list:
    client, server = world.ready_pair()
    epoll = epoll_with(server, select.EPOLLIN)
    seen: list = [mask(server, select.POLLIN), told(epoll, 0)]
    client.sendall(bytes(10))
    arrived(world, server, 10)
    for size in (1, 8, 1):
        seen += [len(select.select([server], [], [], 0)[0]), mask(server, select.POLLIN), told(epoll, 0)]
        server.recv(size)
    return [*seen, len(select.select([server], [], [], 0)[0]), mask(server, select.POLLIN), told(epoll, 0)]


@row("poll() on a record peeked at, and on one peeked at after part of it was read", "readable")
def after_a_peek(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(bytes(1000))
    arrived(world, server, 1000)
    server.recv(100, socket.MSG_PEEK)
    seen: list = [mask(server, select.POLLIN)]
    server.recv(900)
    server.recv(5000, socket.MSG_PEEK)
    seen += [mask(server, select.POLLIN), told(epoll_with(server, select.EPOLLIN | EDGE), 0)]
    server.recv(100)
    return [*seen, mask(server, select.POLLIN)]


@row("a record of 16 kB read in pieces of 1 kB, with poll() between", "every byte; then silence")
def a_record_in_pieces_by_poll(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(RECORD)
    client.sendall(data)
    got, rounds = b"", 0
    while len(got) < len(data):
        assert mask(server, select.POLLIN, 1000 * PATIENCE) == "IN"
        got += server.recv(1024, socket.MSG_DONTWAIT)
        rounds += 1
    return [got == data, rounds, mask(server, select.POLLIN, 20)]


@row("edge-triggered epoll, read to EAGAIN in pieces of 1 kB, records of 16 kB", "every byte; nothing hangs")
def edge_triggered_to_the_end(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(20 * RECORD + 5)
    epoll = epoll_with(server, select.EPOLLIN | EDGE)
    sending = world.thread(client.sendall, data)
    got = bytearray()
    while len(got) < len(data):
        assert told(epoll) == "IN", len(got)
        while isinstance(part := outcome(server.recv, 1024, socket.MSG_DONTWAIT), bytes):
            got += part
    sending.result()
    return [bytes(got) == data, silent(epoll)]


@row("edge-triggered epoll, one read of part of a record, then waiting", "silence until more comes; then the event")
def edge_triggered_and_left(world: World) -> list:
    client, server = world.ready_pair()
    epoll = epoll_with(server, select.EPOLLIN | EDGE)
    client.sendall(bytes(1000))
    seen: list = [told(epoll)]
    arrived(world, server, 1000)
    seen += [silent(epoll), server.recv(10), silent(epoll)]
    client.sendall(bytes(10))
    seen += [told(epoll)]
    arrived(world, server, 1000)
    return [part.hex() if isinstance(part, bytes) else part for part in [*seen, len(server.recv(2000))]]


@row("EPOLL_CTL_MOD and EPOLL_CTL_ADD, edge-triggered, with part of a record left", "the event again")
def edge_triggered_anew(world: World) -> list:
    client, server = world.ready_pair()
    epoll = epoll_with(server, select.EPOLLIN | EDGE)
    client.sendall(bytes(1000))
    seen: list = [told(epoll)]
    arrived(world, server, 1000)
    server.recv(10)
    epoll.modify(server, select.EPOLLIN | EDGE)
    seen += [told(epoll, 0.5), silent(epoll)]
    epoll.unregister(server)
    epoll.register(server, select.EPOLLIN | EDGE)
    seen += [told(epoll, 0.5), silent(epoll)]
    return [*seen, told(epoll_with(server, select.EPOLLIN | EDGE), 0.5), len(server.recv(2000))]


@row("EPOLLONESHOT: an event, a partial read, armed again, the rest", "one event for each time it is armed")
def one_shot(world: World) -> list:
    client, server = world.ready_pair()
    epoll = epoll_with(server, select.EPOLLIN | ONCE)
    client.sendall(bytes(1000))
    arrived(world, server, 1000)
    seen: list = [told(epoll), silent(epoll), len(server.recv(10)), silent(epoll)]
    epoll.modify(server, select.EPOLLIN | ONCE)
    seen += [told(epoll), len(server.recv(2000))]
    epoll.modify(server, select.EPOLLIN | ONCE)
    return [*seen, silent(epoll)]


@row("edge-triggered for reading and writing: a write and a read later", "no event for what did not change")
def edge_triggered_both_ways(world: World) -> list:
    client, server = world.ready_pair()
    epoll = epoll_with(server, select.EPOLLIN | select.EPOLLOUT | EDGE)
    seen: list = [told(epoll), silent(epoll)]
    client.sendall(b"x")
    seen += [told(epoll), server.recv(10).decode(), silent(epoll)]
    return seen


@row("edge-triggered, the peer ends while part of a record is unread", "IN and RDHUP; the rest; 0")
def edge_triggered_at_the_end(world: World) -> list:
    client, server = world.ready_pair()
    epoll = epoll_with(server, select.EPOLLIN | select.EPOLLRDHUP | EDGE)
    client.sendall(bytes(1000))
    seen: list = [told(epoll)]
    arrived(world, server, 1000)
    server.recv(10)
    client.close()
    seen += [
        world.until(lambda: "RDHUP" in (event := told(epoll)) and event, "the end"),
        len(server.recv(2000)),
        server.recv(10).decode(),
    ]
    return seen


@row("select() with a time, poll() with a time, when part of a record is left", "at once")
def timeouts_with_data(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(bytes(1000))
    arrived(world, server, 1000)
    server.recv(999)
    ready = select.select([server], [server], [server], PATIENCE)
    return [[len(each) for each in ready], mask(server, select.POLLIN, 1000 * PATIENCE), len(server.recv(10))]


@row("__poll_chk, ppoll, pselect with a signal mask", "as poll() and select()")
def other_names(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"x")
    arrived(world, server, 1)
    fds = ctypes.create_string_buffer(struct.pack("ihh", server.fileno(), select.POLLIN | select.POLLOUT, 0), 8)
    room, mask_all = ctypes.c_size_t(8), ctypes.create_string_buffer(b"\xff" * 128, 128)
    limit = ctypes.create_string_buffer(struct.pack("ll", int(PATIENCE), 0), 16)
    seen: list = [call("__poll_chk", fds, ctypes.c_ulong(1), 1000, room), fds.raw[6]]
    seen += [call("ppoll", fds, ctypes.c_ulong(1), limit, mask_all), fds.raw[6]]
    seen += [call("__ppoll_chk", fds, ctypes.c_ulong(1), limit, mask_all, room), fds.raw[6]]
    bits = bytearray(128)
    bits[server.fileno() // 8] |= 1 << server.fileno() % 8
    readable = ctypes.create_string_buffer(bytes(bits), 128)
    return [
        *seen,
        call("pselect", server.fileno() + 1, readable, None, None, limit, mask_all),
        readable.raw == bytes(bits),
    ]


@row("one poll() over a ready connection, a silent one, a pipe, a closed number and -1", "each as it is")
def mixed(world: World) -> list:
    client, server = world.ready_pair()
    reading, writing = os.pipe()
    os.write(writing, b"x")
    closed = os.dup(reading)
    os.close(closed)
    client.sendall(b"x")
    arrived(world, server, 1)
    numbers = (server.fileno(), client.fileno(), reading, writing, closed, -1)
    fds = ctypes.create_string_buffer(b"".join(struct.pack("ihh", number, 1, 0) for number in numbers), 48)
    count = call("poll", fds, ctypes.c_ulong(6), 0)
    return [count, [struct.unpack_from("ihh", fds, 8 * index)[2] for index in range(6)]]

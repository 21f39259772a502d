"""Reading: flags."""

import ctypes
import fcntl
import os
import select
import socket
import struct

from tests.contract.calls import buffers, call, mask, messages, receive, text, unread
from tests.contract.row import row
from tests.contract.world import World, outcome, stream

RECORD = 16384
SO_TIMESTAMP = 29
PEEK, NOW, ALL = socket.MSG_PEEK, socket.MSG_DONTWAIT, socket.MSG_WAITALL


def shown(parts: list) -> list:
    return [part.decode() if isinstance(part, bytes) else part for part in parts]


def arrived(world: World, sock: socket.socket, count: int) -> None:
    world.until(lambda: unread(sock) >= count, f"{count} bytes")


@row("MSG_PEEK again and again, with more and less room, then a read", "the same bytes; the read takes them")
def peeks(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"abcdef")
    arrived(world, server, 6)
    seen = [server.recv(size, PEEK) for size in (3, 3, 100, 1)] + [server.recv(2), server.recv(100, PEEK)]
    return shown([*seen, server.recv(100), outcome(server.recv, 100, PEEK | NOW)])


@row("MSG_PEEK with room for more than the longest record", "everything there is, over several records")
def peeks_over_records(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(2 * RECORD + 10)
    for start in range(0, len(data), RECORD):
        client.sendall(data[start : start + RECORD])
    arrived(world, server, len(data))
    peeked = server.recv(100000, PEEK)
    return [len(peeked), peeked == data, receive(server, len(data)) == data]


@row("MSG_PEEK in the middle of a record, by recvmsg() over several buffers", "from where the last read stopped")
def peeks_within(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"abcdefghij")
    arrived(world, server, 10)
    seen: list = [server.recv(4)]
    parts = [bytearray(2), bytearray(0), bytearray(20)]
    got, control, flags, _ = server.recvmsg_into(parts, 100, PEEK)
    seen += [got, bytes(parts[0]), bytes(parts[2]).rstrip(b"\0"), control, flags]
    return shown([*seen, server.recv(100)])


@row("blocking MSG_PEEK on a connection without data", "waits for the data and leaves it")
def peek_waits(world: World) -> list:
    client, server = world.ready_pair()
    peeking = world.thread(server.recv, 10, PEEK)
    client.sendall(b"x")
    return shown([peeking.result(), server.recv(10)])


@row("MSG_PEEK, and reads, at the end of the stream", "0, again and again")
def peeks_at_the_end(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"last")
    client.close()
    arrived(world, server, 4)
    flags = (PEEK, ALL | PEEK, 0, PEEK, 0, ALL, NOW, PEEK | NOW)
    return shown([server.recv(4, how) for how in flags])


@row("recvmmsg() at the end of the stream", "every message, each with 0 bytes")
def recvmmsg_at_the_end(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"last")
    client.close()
    arrived(world, server, 4)
    parts, vector = buffers(4, 4, 4)
    array = messages(vector)
    got = call("recvmmsg", server.fileno(), array, 3, 0, None)
    return [got, [message.length for message in array], text(parts[0], 4)]


@row("MSG_WAITALL across many records, sent piece by piece", "all of it by one call")
def waits_for_all(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(3 * RECORD + 1000)
    reading = world.thread(server.recv, len(data), ALL)
    for start in range(0, len(data), 10000):
        client.sendall(data[start : start + 10000])
    return [reading.result() == data, outcome(server.recv, 1, NOW)]


@row("MSG_WAITALL cut by the end of the stream", "what there was, then 0")
def waitall_and_the_end(world: World) -> list:
    client, server = world.ready_pair()
    reading = world.thread(server.recv, 100, ALL)
    client.sendall(b"short")
    client.close()
    return shown([reading.result(), server.recv(100, ALL)])


@row("MSG_WAITALL cut by SO_RCVTIMEO", "what there was; EAGAIN when there was nothing")
def waitall_and_a_timeout(world: World) -> list:
    client, server = world.ready_pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200000))
    client.sendall(b"short")
    return shown([server.recv(100, ALL), outcome(server.recv, 100, ALL)])


@row("MSG_WAITALL with MSG_DONTWAIT, and MSG_WAITALL on a non-blocking socket", "what there is")
def waitall_without_waiting(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"abcdef")
    arrived(world, server, 6)
    seen = [server.recv(3, ALL), server.recv(2, ALL | NOW)]
    os.set_blocking(server.fileno(), False)
    return shown([*seen, server.recv(100, ALL), outcome(server.recv, 100, ALL)])


@row("MSG_WAITALL by recvmsg() and readv-like buffers of uneven sizes", "each filled in order")
def waitall_vectors(world: World) -> list:
    client, server = world.ready_pair()
    parts = [bytearray(size) for size in (1, 0, 20000, 3, 9999)]
    reading = world.thread(server.recvmsg_into, parts, 0, ALL)
    data = stream(30003)
    client.sendall(data[:10])
    client.sendall(data[10:])
    return [*reading.result()[:3], b"".join(bytes(part) for part in parts) == data]


@row("MSG_DONTWAIT when there is nothing, something, nothing again", "EAGAIN; the data; EAGAIN")
def does_not_wait(world: World) -> list:
    client, server = world.ready_pair()
    seen = [outcome(server.recv, 10, NOW)]
    client.sendall(b"x")
    arrived(world, server, 1)
    return shown([*seen, server.recv(10, NOW), outcome(server.recv, 10, NOW)])


@row("MSG_TRUNC: throw away without looking", "the count; the bytes are gone, memory is untouched")
def discards(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"abcdefghij")
    arrived(world, server, 10)
    buffer = ctypes.create_string_buffer(b"untouched.", 11)
    seen: list = [call("recv", server.fileno(), buffer, 4, socket.MSG_TRUNC), buffer.value]
    seen += [call("recv", server.fileno(), None, 3, socket.MSG_TRUNC)]
    return shown([*seen, server.recv(100)])


@row("MSG_OOB, SIOCATMARK and POLLPRI where there is no urgent data", "EINVAL; no mark; silence")
def out_of_band(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"x")
    arrived(world, server, 1)
    mark = struct.unpack("i", fcntl.ioctl(server, 0x8905, b"\0" * 4))[0]
    return [outcome(server.recv, 1, socket.MSG_OOB), mark, mask(server, select.POLLPRI), server.recv(1).decode()]


@row("MSG_ERRQUEUE when nothing is queued, with data waiting", "EAGAIN; the data stays")
def error_queue(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"x")
    arrived(world, server, 1)
    seen = [outcome(server.recvmsg, 10, 100, 0x2000), outcome(server.recv, 10, 0x2000)]
    return shown([*seen, server.recv(10)])


@row("recv() of 0 bytes, blocking, with and without data", "waits for data; takes none")
def waits_for_data_only(world: World) -> list:
    client, server = world.ready_pair()
    waiting = world.thread(call, "recv", server.fileno(), None, 0, 0)
    waiting.join(0.1)
    seen: list = [waiting.is_alive()]
    client.sendall(b"x")
    return shown([*seen, waiting.result(), call("recv", server.fileno(), None, 0, 0), server.recv(10)])

"""Writing from files and pipes, reading into them: sendfile(), splice(), tee(), vmsplice(), copy_file_range()."""

import ctypes
import os
import socket
import struct
from pathlib import Path

from tests.contract.calls import buffers, call, receive, unread
from tests.contract.row import row
from tests.contract.rows.write import fill
from tests.contract.world import World, outcome, stream

MOVE, NONBLOCK, MORE = 1, 2, 4
RECORD = 16384


def a_file(world: World, size: int) -> Path:
    file = world.folder / f"file-{size}"
    file.write_bytes(stream(size))
    return file


@row("sendfile() from the file's own position, piece by piece", "the pieces; the position moves; 0 at the end")
def sendfile_by_position(world: World) -> list:
    client, server = world.ready_pair()
    with a_file(world, 50000).open("rb", buffering=0) as file:
        sent = [call("sendfile", client.fileno(), file.fileno(), None, ctypes.c_size_t(20000)) for _ in range(4)]
        position = file.tell()
    return [sent, position, receive(server, 50000) == stream(50000)]


@row("sendfile() and sendfile64() with an offset", "from there; the offset moves, the position stays")
def sendfile_by_offset(world: World) -> list:
    client, server = world.ready_pair()
    offset = ctypes.c_int64(100)
    with a_file(world, 1000).open("rb", buffering=0) as file:
        seen: list = []
        for name in ("sendfile", "sendfile64"):
            seen += [
                call(name, client.fileno(), file.fileno(), ctypes.byref(offset), ctypes.c_size_t(200)),
                offset.value,
            ]
        seen += [file.tell()]
    return [*seen, receive(server, 400) == stream(1000)[100:500]]


@row("sendfile() with a count larger than the file, an offset behind its end, a count of 0", "what there is; 0; 0")
def sendfile_beyond(world: World) -> list:
    client, server = world.ready_pair()
    with a_file(world, 1000).open("rb", buffering=0) as file:
        fd = file.fileno()
        seen = [outcome(os.sendfile, client.fileno(), fd, *where) for where in ((900, 5000), (2000, 10), (0, 0))]
    return [seen, receive(server, 100) == stream(1000)[900:]]


@row("sendfile() of 2 MB, blocking, the peer reading", "its full count; every byte")
def sendfile_large(world: World) -> list:
    client, server = world.ready_pair()
    size = 2 << 20
    reading = world.thread(receive, server, size)
    with a_file(world, size).open("rb") as file:
        sent = os.sendfile(client.fileno(), file.fileno(), 0, size)
    return [sent, reading.result() == stream(size)]


@row("sendfile() on a non-blocking socket until it is full, then on from there", "partial counts, EAGAIN; every byte")
def sendfile_nonblocking(world: World) -> list:
    client, server = world.ready_pair()
    client.setblocking(False)
    size, sent = 12 << 20, 0
    seen = set()
    with a_file(world, size).open("rb") as file:
        while sent < size and isinstance(
            got := outcome(os.sendfile, client.fileno(), file.fileno(), sent, size - sent), int
        ):
            sent += got
        seen = {got, 0 < sent < size}
        reading = world.thread(receive, server, size)
        client.setblocking(True)
        while sent < size:
            sent += os.sendfile(client.fileno(), file.fileno(), sent, size - sent)
    return [sorted(map(str, seen)), reading.result() == stream(size)]


@row("write() of a head, sendfile() of a body, MSG_MORE before, close() after", "head and body, then the end")
def head_and_body(world: World) -> list:
    server, peer = world.server_with_peer()
    server.send(b"head:", socket.MSG_MORE)
    with a_file(world, 30000).open("rb") as file:
        sent = os.sendfile(server.fileno(), file.fileno(), 0, 30000)
    server.close()
    return [sent, peer.receive(5).decode(), peer.receive(30000) == stream(30000), peer.read_to_end()]


@row("sendfile() from a pipe, from a socket, to a socket whose handshake goes on", "EINVAL or the data, as TCP; waits")
def sendfile_odd(world: World) -> list:
    client, server = world.ready_pair()
    client.send(b"from a socket")
    world.until(lambda: unread(server) == 13, "the data")
    null = os.open(os.devnull, os.O_WRONLY)
    seen = [outcome(os.sendfile, null, server.fileno(), None, 10)]
    other, peer = world.server_with_peer(handshake=False)
    with a_file(world, 100).open("rb") as file:
        sending = world.thread(os.sendfile, other.fileno(), file.fileno(), 0, 100)
        if peer.tls:
            peer.tls.handshake()
        return [*seen, sending.result(), peer.receive(100) == stream(100)]


@row(
    "splice() from a pipe to the socket, in pieces, then from an empty pipe", "the pieces; EAGAIN; 0 when it is closed"
)
def splice_out(world: World) -> list:
    client, server = world.ready_pair()
    reading, writing = os.pipe()
    os.write(writing, b"through the pipe")
    seen = [call("splice", reading, None, client.fileno(), None, count, MOVE) for count in (7, 100)]
    seen += [call("splice", reading, None, client.fileno(), None, 100, NONBLOCK)]
    os.close(writing)
    seen += [call("splice", reading, None, client.fileno(), None, 100, 0)]
    return [*seen, receive(server, 16).decode()]


@row("splice() with SPLICE_F_MORE, then close()", "all of it, then the end")
def splice_more_then_close(world: World) -> list:
    server, peer = world.server_with_peer()
    reading, writing = os.pipe()
    os.write(writing, b"more to come")
    sent = call("splice", reading, None, server.fileno(), None, 12, MORE)
    server.close()
    return [sent, peer.receive(12).decode(), peer.read_to_end()]


@row("splice() from the socket to a pipe, in pieces smaller than a record", "every byte, in order")
def splice_in(world: World) -> list:
    client, server = world.ready_pair()
    reading, writing = os.pipe()
    data = stream(3 * RECORD)
    sending = world.thread(client.sendall, data)
    got = b""
    while len(got) < len(data):
        count = call("splice", server.fileno(), None, writing, None, 5000, 0)
        assert isinstance(count, int), count
        got += os.read(reading, count)
    sending.result()
    server.setblocking(False)
    return [got == data, call("splice", server.fileno(), None, writing, None, 5000, 0)]


@row("splice() from the socket at the end of the stream, again and again", "0")
def splice_at_the_end(world: World) -> list:
    server, peer = world.server_with_peer()
    reading, writing = os.pipe()
    peer.send(b"last")
    peer.end()
    seen = [call("splice", server.fileno(), None, writing, None, 100, 0), os.read(reading, 100).decode()]
    return [
        *seen,
        *(call("splice", server.fileno(), None, writing, None, 100, 0) for _ in range(3)),
        server.recv(1).decode(),
    ]


@row("splice() from a socket with O_NONBLOCK, from one with SO_RCVTIMEO, without data", "EAGAIN")
def splice_without_data(world: World) -> list:
    client, server = world.ready_pair()
    _, writing = os.pipe()
    server.setblocking(False)
    seen = [call("splice", server.fileno(), None, writing, None, 100, flags) for flags in (0, NONBLOCK)]
    server.setblocking(True)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    seen += [call("splice", server.fileno(), None, writing, None, 100, flags) for flags in (0, NONBLOCK)]
    return [*seen, client.send(b"x"), server.recv(1).decode()]


@row("splice() with SPLICE_F_NONBLOCK from a blocking socket", "waits for data; EAGAIN when the pipe is full")
def splice_waits_for_data(world: World) -> list:
    client, server = world.ready_pair()
    reading, writing = os.pipe()
    moving = world.thread(call, "splice", server.fileno(), None, writing, None, 100, NONBLOCK)
    moving.join(0.1)
    seen: list = [moving.is_alive(), client.send(b"late"), moving.result(), os.read(reading, 10).decode()]
    os.write(writing, b"f" * 65536)
    client.send(b"no room")
    world.until(lambda: unread(server) == 7, "the data")
    return [*seen, call("splice", server.fileno(), None, writing, None, 100, NONBLOCK), server.recv(10).decode()]


@row("splice() to a socket whose buffers are full, non-blocking", "EAGAIN; the pipe keeps its data")
def splice_when_full(world: World) -> list:
    client, server = world.ready_pair()
    taken = fill(client)
    reading, writing = os.pipe()
    os.write(writing, b"x" * 60000)
    client.setblocking(False)
    seen = [call("splice", reading, None, client.fileno(), None, 60000, NONBLOCK)]
    assert len(receive(server, taken)) == taken
    client.setblocking(True)
    moved = 0
    while moved < 60000:
        got = call("splice", reading, None, client.fileno(), None, 60000 - moved, 0)
        assert isinstance(got, int), got
        moved += got
    return [*seen, receive(server, 60000) == b"x" * 60000]


@row("a proxy: splice() from one connection to another through a pipe, then the end", "every byte, then the end")
def splice_proxy(world: World) -> list:
    client, incoming = world.ready_pair()
    outgoing, server = world.ready_pair()
    data = stream(400000)

    def carry() -> int:
        reading, writing = os.pipe()
        total = 0
        while count := call("splice", incoming.fileno(), None, writing, None, 1 << 16, MOVE | MORE):
            assert isinstance(count, int), count
            while count:
                moved = call("splice", reading, None, outgoing.fileno(), None, count, MOVE | MORE)
                assert isinstance(moved, int), moved
                count, total = count - moved, total + moved
        outgoing.close()
        return total

    carrying, reading = world.thread(carry), world.thread(receive, server, len(data) + 1)
    client.sendall(data)
    client.close()
    return [carrying.result(), reading.result() == data]


@row("splice() with an offset for the socket, between two sockets, from itself", "ESPIPE, EINVAL")
def splice_odd(world: World) -> list:
    client, server = world.ready_pair()
    reading, writing = os.pipe()
    offset, fd = ctypes.c_int64(0), client.fileno()
    seen = [call("splice", reading, None, fd, ctypes.byref(offset), 1, 0)]
    seen += [
        call("splice", fd, ctypes.byref(offset), writing, None, 1, 0),
        call("splice", fd, None, server.fileno(), None, 1, 0),
    ]
    return seen


@row("vmsplice() and tee() into pipes, then splice() of both to the socket", "the bytes, twice")
def tee_and_vmsplice(world: World) -> list:
    client, server = world.ready_pair()
    (first, second), (third, fourth) = os.pipe(), os.pipe()
    (part,), vector = buffers(6)
    part.raw = b"twice."
    seen = [call("vmsplice", second, vector, 1, 0), call("tee", first, fourth, 100, 0)]
    seen += [call("splice", pipe, None, client.fileno(), None, 100, 0) for pipe in (first, third)]
    seen += [call("tee", client.fileno(), second, 10, 0), call("vmsplice", client.fileno(), vector, 1, 0)]
    return [*seen, receive(server, 12).decode()]


@row("copy_file_range() to and from a socket", "EINVAL")
def copy_file_range(world: World) -> list:
    client, _ = world.ready_pair()
    with a_file(world, 100).open("r+b") as file:
        calls = ((file.fileno(), client.fileno()), (client.fileno(), file.fileno()))
        return [outcome(os.copy_file_range, source, to, 10) for source, to in calls]


@row("lseek(), fsync(), ftruncate() of the socket", "as of any socket")
def not_a_file(world: World) -> list:
    client, _ = world.ready_pair()
    fd = client.fileno()
    seen = [outcome(os.lseek, fd, 0, os.SEEK_CUR), outcome(os.fsync, fd), outcome(os.ftruncate, fd, 0)]
    return [*seen, outcome(os.posix_fadvise, fd, 0, 0, 0)]

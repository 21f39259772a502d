"""Reading: the calls."""

import ctypes
import os
import socket

from tests.contract.calls import Msghdr, buffers, call, libc, messages, text, unread
from tests.contract.row import row
from tests.contract.world import World, outcome, stream

RWF_NOWAIT = 8
MSG_WAITFORONE = 0x10000
RECORD = 16384


def with_data(world: World, data: bytes) -> socket.socket:
    """A socket at which `data` waits to be read."""
    client, server = world.ready_pair()
    client.sendall(data)
    world.until(lambda: unread(server) == len(data), "the data")
    world.keep = client  # type: ignore[attr-defined]  # or its end would come behind the data
    return server


@row("read(), recv(), with room for less than there is", "what fits; the rest stays for the next read")
def less_than_there_is(world: World) -> list:
    server = with_data(world, b"abcdefghij")
    seen = [os.read(server.fileno(), 3), server.recv(3), unread(server), os.read(server.fileno(), 100)]
    return [part.decode() if isinstance(part, bytes) else part for part in seen]


@row("recvfrom() with room for an address", "the data; the address's length is set to 0, the address untouched")
def recvfrom_address(world: World) -> list:
    server = with_data(world, b"hello")
    buffer, address, length = (
        ctypes.create_string_buffer(10),
        ctypes.create_string_buffer(b"\x55" * 28),
        ctypes.c_uint(28),
    )
    got = call("recvfrom", server.fileno(), buffer, 10, 0, address, ctypes.byref(length))
    return [text(buffer, got), length.value, address.raw[:28] == b"\x55" * 28]


@row("recvmsg() with room for an address and control messages", "the data; both lengths 0, no flags")
def recvmsg_out_parameters(world: World) -> list:
    server = with_data(world, b"hello")
    (first, second), vector = buffers(2, 10)
    address, control = ctypes.create_string_buffer(28), ctypes.create_string_buffer(100)
    header = Msghdr(ctypes.addressof(address), 28, vector, 2, ctypes.addressof(control), 100, -1)
    got = call("recvmsg", server.fileno(), ctypes.byref(header), 0)
    return [got, text(first, 2), text(second, 3), header.name_length, header.control_length, header.flags]


@row("recvmsg() without room for anything but data", "the data; no flags")
def recvmsg_bare(world: World) -> list:
    server = with_data(world, b"hello")
    (buffer,), vector = buffers(10)
    header = Msghdr(None, 0, vector, 1, None, 0, -1)
    got = call("recvmsg", server.fileno(), ctypes.byref(header), 0)
    return [text(buffer, got), header.name_length, header.control_length, header.flags]


@row("recvmsg() with a null array of buffers; with more than IOV_MAX of them", "0; EMSGSIZE")
def recvmsg_odd_arrays(world: World) -> list:
    server = with_data(world, b"hello")
    empty = Msghdr(None, 0, None, 0, None, 0, 0)
    _, vector = buffers(1)
    many = Msghdr(None, 0, vector, 1025, None, 0, 0)
    seen = [call("recvmsg", server.fileno(), ctypes.byref(header), socket.MSG_DONTWAIT) for header in (empty, many)]
    return [*seen, unread(server)]


@row("readv() over several buffers, empty ones among them", "filled in order, to the last byte there is")
def readv_with_empty_buffers(world: World) -> list:
    server = with_data(world, b"abcdefghij")
    parts = [bytearray(size) for size in (0, 3, 0, 0, 4, 0, 50)]
    got = os.readv(server.fileno(), parts)
    return [got, [bytes(part).rstrip(b"\0").decode() for part in parts]]


@row("readv() with a count of 0, of -1, of more than IOV_MAX", "0; EINVAL; EINVAL")
def readv_odd_counts(world: World) -> list:
    server = with_data(world, b"hello")
    _, vector = buffers(1)
    return [[call("readv", server.fileno(), vector, count) for count in (0, -1, 1025)], unread(server)]


@row("reads of 0 bytes: read, recv, recvfrom, readv, with and without data, non-blocking or not", "0, nothing is taken")
def of_nothing(world: World) -> list:
    server = with_data(world, b"x")
    fd, seen = server.fileno(), []
    for _ in range(2):
        seen += [os.read(fd, 0).decode(), call("recv", fd, None, 0, socket.MSG_DONTWAIT), os.readv(fd, [bytearray()])]
        seen += [unread(server), call("recvfrom", fd, None, 0, socket.MSG_DONTWAIT, None, None)]
        server.recv(1, socket.MSG_DONTWAIT) if unread(server) else None
    return seen


def knows_nowait() -> bool:
    """Whether this kernel has RWF_NOWAIT for sockets (6.4)."""
    here, there = socket.socketpair()
    with here, there:
        return call("preadv2", here.fileno(), buffers(1)[1], 1, ctypes.c_long(-1), RWF_NOWAIT) == "EAGAIN"


@row("preadv2() at offset -1, with RWF_NOWAIT and without", "as readv(); EAGAIN when there is nothing")
def preadv2(world: World) -> list:
    server = with_data(world, b"abcdef")
    (first, second), vector = buffers(2, 3)
    offset = ctypes.c_long(-1)
    seen = [call("preadv2", server.fileno(), vector, 2, offset, 0), text(first, 2), text(second, 3)]
    flag = RWF_NOWAIT if knows_nowait() else 0
    server.setblocking(flag != 0)
    seen += [call("preadv2", server.fileno(), vector, 2, offset, flag)]
    return [*seen, call("preadv2", server.fileno(), vector, 2, offset, flag), text(first, 1)]


@row("pread(), preadv(), preadv2() at an offset", "ESPIPE, nothing is taken")
def at_an_offset(world: World) -> list:
    server = with_data(world, b"abcdef")
    (buffer,), vector = buffers(10)
    offset = ctypes.c_long(0)
    seen = [call("pread", server.fileno(), buffer, 10, offset), call("preadv", server.fileno(), vector, 1, offset)]
    return [*seen, call("preadv2", server.fileno(), vector, 1, offset, 0), unread(server)]


@row("glibc's __read_chk, __recv_chk, __recvfrom_chk (programs built with _FORTIFY_SOURCE)", "as read, recv, recvfrom")
def fortified(world: World) -> list:
    server = with_data(world, b"onetwothree")
    buffer, length = ctypes.create_string_buffer(20), ctypes.c_uint(20)
    address, room, fd = ctypes.create_string_buffer(20), ctypes.c_size_t(20), server.fileno()
    seen = [text(buffer, call("__read_chk", fd, buffer, ctypes.c_size_t(3), room))]
    seen += [text(buffer, call("__recv_chk", fd, buffer, ctypes.c_size_t(3), room, 0))]
    got = call("__recvfrom_chk", fd, buffer, ctypes.c_size_t(20), room, 0, address, ctypes.byref(length))
    return [*seen, text(buffer, got), length.value]


@row("recvmmsg() with data for the first of three buffers, MSG_WAITFORONE and MSG_DONTWAIT", "1, its length; EAGAIN")
def recvmmsg(world: World) -> list:
    server = with_data(world, b"hello")
    parts, vector = buffers(10, 10, 10)
    array = messages(vector)
    got = call("recvmmsg", server.fileno(), array, 3, MSG_WAITFORONE, None)
    seen = [got, array[0].length, text(parts[0], array[0].length), array[0].header.flags]
    return [*seen, call("recvmmsg", server.fileno(), array, 3, socket.MSG_DONTWAIT, None)]


@row("recvmmsg() with more data than the first buffers hold", "each buffer is a read of its own")
def recvmmsg_several(world: World) -> list:
    server = with_data(world, b"abcdefg")
    parts, vector = buffers(3, 3, 3, 3)
    array = messages(vector)
    got = call("recvmmsg", server.fileno(), array, 4, MSG_WAITFORONE, None)
    return [got, [text(part, message.length) for part, message in zip(parts, array, strict=True)][: int(got)]]


@row(
    "read into memory that is not there",
    "EFAULT; the data is there for the next read",
)
def into_nowhere(world: World) -> list:
    server = with_data(world, b"hello")
    nowhere = ctypes.c_void_p(16)
    seen = [call("recv", server.fileno(), nowhere, 10, 0), call("read", server.fileno(), nowhere, 10)]
    return [*seen, text(buffer := ctypes.create_string_buffer(10), call("recv", server.fileno(), buffer, 10, 0))]


@row("reads of 1 byte of a stream of many records, by turns with large ones", "every byte, in order")
def bytewise(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(5 * RECORD + 77)
    sending = world.thread(client.sendall, data)
    got = bytearray()
    while len(got) < len(data):
        got += server.recv(1)
        got += server.recv(min(5000, len(data) - len(got))) if len(got) < len(data) else b""
    sending.result()
    return [bytes(got) == data, outcome(server.recv, 1, socket.MSG_DONTWAIT)]


@row("every reading call on an accepted socket whose handshake goes on, MSG_DONTWAIT or O_NONBLOCK", "EAGAIN")
def before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    server.setblocking(False)
    fd = server.fileno()
    (buffer,), vector = buffers(10)
    header, array = Msghdr(None, 0, vector, 1, None, 0, 0), messages(vector)
    calls: list[tuple] = [("read", buffer, 10), ("recv", buffer, 10, 0), ("recvfrom", buffer, 10, 0, None, None)]
    calls += [("readv", vector, 1), ("recvmsg", ctypes.byref(header), 0), ("recvmmsg", array, 1, 0, None)]
    calls += [
        ("preadv2", vector, 1, ctypes.c_long(-1), 0),
        ("__read_chk", buffer, ctypes.c_size_t(10), ctypes.c_size_t(10)),
    ]
    seen = [call(name, fd, *arguments) for name, *arguments in calls]
    if peer.tls:
        peer.tls.handshake()
    peer.send(b"then")
    world.until(lambda: unread(server) == 4, "the data")
    return [*seen, text(buffer, call("recv", fd, buffer, 10, 0))]


@row("read() from a pipe and a file, by the same calls, while connections are covered", "as ever")
def other_files(world: World) -> list:
    client, server = world.ready_pair()
    reading, writing = os.pipe()
    os.write(writing, b"pipe")
    file = world.folder / "file"
    file.write_text("file")
    with file.open() as source:
        seen = [
            os.read(reading, 10).decode(),
            os.pread(source.fileno(), 2, 1).decode(),
            outcome(os.preadv, reading, [bytearray(1)], 0),
        ]
    assert libc.close(client.fileno()) == 0
    client.detach()
    return [*seen, server.recv(1).decode()]

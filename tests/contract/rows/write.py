"""Writing: the calls."""

import ctypes
import errno
import os
import signal
import socket
import time

from tests.contract.calls import Handler, Msghdr, buffers, call, messages, receive, unread
from tests.contract.row import row
from tests.contract.rows.read import RWF_NOWAIT, knows_nowait
from tests.contract.world import World, outcome, stream

RECORD = 16384
NOW = socket.MSG_DONTWAIT


@row("write(), send(), sendto(), writev(), sendmsg(), one after the other", "each its count; the bytes in order")
def one_after_the_other(world: World) -> list:
    client, server = world.ready_pair()
    fd = client.fileno()
    seen: list = [os.write(fd, b"write "), client.send(b"send "), call("sendto", fd, b"sendto ", 7, 0, None, 0)]
    seen += [os.writev(fd, [b"wri", b"", b"tev "]), client.sendmsg([b"send", b"", b"msg"])]
    return [*seen, receive(server, sum(seen)).decode()]


@row("sendto() with an address on a connected socket", "the address is ignored")
def sendto_address(world: World) -> list:
    client, server = world.ready_pair()
    seen = [outcome(client.sendto, b"a", ("127.0.0.1", 9)), outcome(client.sendto, b"b", client.getpeername())]
    seen += [outcome(client.sendmsg, [b"c"], [], 0, ("127.0.0.1", 9))]
    return [*seen, receive(server, 3).decode()]


@row("sendto() with an address, before the socket is connected", "EPIPE, as without; nothing is connected")
def sendto_unconnected(world: World) -> list:
    with world.listen(), socket.socket() as client:
        seen = [outcome(client.sendto, b"a", socket.MSG_NOSIGNAL, ("127.0.0.1", world.both))]
        return [*seen, outcome(client.send, b"a", socket.MSG_NOSIGNAL), outcome(client.getpeername)]


@row("writes of 0 bytes by every call, then data", "0; the peer sees nothing of them")
def of_nothing(world: World) -> list:
    client, server = world.ready_pair()
    fd = client.fileno()
    seen: list = [
        os.write(fd, b""),
        client.send(b""),
        os.writev(fd, [b"", b""]),
        client.sendmsg([]),
        client.sendmsg([b""]),
    ]
    seen += [call("write", fd, None, 0), call("send", fd, None, 0, socket.MSG_MORE), call("writev", fd, None, 0)]
    seen += [outcome(server.recv, 10, NOW), unread(server), client.send(b"x"), server.recv(10).decode()]
    return seen


@row("writev() with many buffers, empty ones among them, over several records", "in order")
def writev_many(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(100000)
    parts = [data[start : start + 777] for start in range(0, len(data), 777)]
    reading = world.thread(receive, server, len(data))
    sent = os.writev(client.fileno(), [part for each in parts for part in (each, b"")])
    client.sendall(data[sent:])
    return [sent, reading.result() == data]


@row("writev() with a count of -1, of more than IOV_MAX; sendmsg() with more", "EINVAL, EINVAL, EMSGSIZE; nothing goes")
def odd_counts(world: World) -> list:
    client, server = world.ready_pair()
    _, vector = buffers(1)
    many = Msghdr(None, 0, vector, 1025, None, 0, 0)
    seen = [call("writev", client.fileno(), vector, count) for count in (-1, 1025)]
    seen += [call("sendmsg", client.fileno(), ctypes.byref(many), 0)]
    return [*seen, client.send(b"x"), server.recv(10).decode()]


def nowait() -> int:
    return RWF_NOWAIT if knows_nowait() else 0


@row("pwritev2() at offset -1, with flags; pwrite() and pwritev() at an offset", "as writev(); ESPIPE")
def pwritev2(world: World) -> list:
    client, server = world.ready_pair()
    (first, second), vector = buffers(2, 3)
    first.raw, second.raw = b"ab", b"cde"
    current, start, fd = ctypes.c_long(-1), ctypes.c_long(0), client.fileno()
    seen = [call("pwritev2", fd, vector, 2, current, 0), call("pwritev2", fd, vector, 2, current, nowait())]
    seen += [call("pwritev2", fd, vector, 2, start, 0), call("pwritev", fd, vector, 2, start)]
    return [*seen, call("pwrite", fd, first, 2, start), receive(server, 10).decode(), outcome(server.recv, 1, NOW)]


@row("sendmmsg() of three messages, one of them empty", "3, the lengths; the bytes in order")
def sendmmsg(world: World) -> list:
    client, server = world.ready_pair()
    parts, vector = buffers(3, 0, 4)
    parts[0].raw, parts[2].raw = b"one", b"four"
    array = messages(vector)
    sent = call("sendmmsg", client.fileno(), array, 3, 0)
    return [sent, [message.length for message in array], receive(server, 7).decode()]


@row("sendmmsg() after shutdown(SHUT_WR)", "EPIPE")
def sendmmsg_after_the_end(world: World) -> list:
    client, server = world.ready_pair()
    client.shutdown(socket.SHUT_WR)
    _, vector = buffers(3)
    return [call("sendmmsg", client.fileno(), messages(vector), 1, socket.MSG_NOSIGNAL), server.recv(1).decode()]


@row("a write from memory that is not there", "EFAULT; the stream goes on as if it had not been")
def from_nowhere(world: World) -> list:
    client, server = world.ready_pair()
    nowhere = ctypes.c_void_p(16)
    seen = [call("write", client.fileno(), nowhere, 10), call("send", client.fileno(), nowhere, 10, 0)]
    return [*seen, client.send(b"fine"), server.recv(10).decode()]


@row("one write of 3 MB, blocking", "its full count; every byte, in order")
def large(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(3 << 20)
    reading = world.thread(receive, server, len(data))
    return [os.write(client.fileno(), data) == len(data), reading.result() == data]


@row("ten thousand writes of one byte", "every byte, in order")
def small(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(10000)
    reading = world.thread(receive, server, len(data))
    return [sum(client.send(data[at : at + 1]) for at in range(len(data))), reading.result() == data]


@row("both ends write 1 MB at once, then read", "each gets the other's")
def at_once(world: World) -> list:
    client, server = world.ready_pair()
    data = stream(1 << 20)
    work = [world.thread(end.sendall, data) for end in (client, server)]
    got = [world.thread(receive, end, len(data)) for end in (client, server)]
    return [[each.result() == data for each in got], [each.result() for each in work]]


@row("a non-blocking write until the buffers are full, then drained by the peer", "EAGAIN; what was taken arrives")
def until_full(world: World) -> list:
    client, server = world.ready_pair()
    client.setblocking(False)
    data, taken, calls = stream(1 << 24), 0, 0
    while isinstance(sent := outcome(client.send, data[taken : taken + 100003]), int):
        taken, calls = taken + sent, calls + 1
    reading = world.thread(receive, server, taken + 1)
    client.shutdown(socket.SHUT_WR)
    return [sent, calls > 1, reading.result() == data[:taken]]


@row("MSG_DONTWAIT on a blocking socket whose buffers are full, by every call", "EAGAIN; then, when drained, all of it")
def full_by_every_call(world: World) -> list:
    client, server = world.ready_pair()
    taken = fill(client)
    (part,), vector = buffers(50000)
    header = Msghdr(None, 0, vector, 1, None, 0, 0)
    fd = client.fileno()
    seen = [call("send", fd, part, 50000, NOW), call("sendmsg", fd, ctypes.byref(header), NOW)]
    seen += [call("sendto", fd, part, 50000, NOW, None, 0), call("sendmmsg", fd, messages(vector), 1, NOW)]
    seen += [call("pwritev2", fd, vector, 1, ctypes.c_long(-1), nowait()) if nowait() else "EAGAIN"]
    client.setblocking(False)
    seen += [call("write", fd, part, 50000), call("writev", fd, vector, 1)]
    client.setblocking(True)
    reading = world.thread(receive, server, taken + 3)
    client.sendall(b"end")
    return [*seen, reading.result()[-3:].decode(), len(reading.result()) == taken + 3]


def fill(sock: socket.socket) -> int:
    """Write until nothing more goes, for good; how much it took."""
    taken, quiet = 0, 0
    while quiet < 10:
        sent = outcome(sock.send, bytes(100000), NOW)
        assert isinstance(sent, int) or sent == errno.errorcode[errno.EAGAIN]
        taken, quiet = (taken + sent, 0) if isinstance(sent, int) else (taken, quiet + 1)
        time.sleep(0.03 if quiet else 0)
    return taken


@row("a handler of a signal while a write waits for room", "a partial count, or with nothing written EINTR")
def interrupted(world: World) -> list:
    client, server = world.ready_pair()
    taken = fill(client)
    handler = Handler(world.folder, signal.SIGALRM, restart=False)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    result = call("write", client.fileno(), bytes(100), 100)
    rest = world.thread(receive, server, taken)
    return [result, handler.hits, len(rest.result()) == taken, outcome(server.recv, 1, NOW)]

"""Ending: one direction after the other."""

import ctypes
import os
import select
import signal
import socket
import struct

from tests.contract.calls import Handler, Msghdr, buffers, call, drain, mask, messages, receive, unread, wait_for_mask
from tests.contract.row import row
from tests.contract.world import World, outcome, stream

QUIET, NOW, PEEK = socket.MSG_NOSIGNAL, socket.MSG_DONTWAIT, socket.MSG_PEEK


def writes(sock: socket.socket) -> list:
    """What every writing call gives; Python ignores SIGPIPE."""
    (part,), vector = buffers(3)
    fd, header = sock.fileno(), Msghdr(None, 0, vector, 1, None, 0, 0)
    seen = [call("write", fd, part, 3), call("send", fd, part, 3, QUIET), call("sendto", fd, part, 3, 0, None, 0)]
    seen += [call("writev", fd, vector, 1), call("sendmsg", fd, ctypes.byref(header), 0)]
    return [
        *seen,
        call("sendmmsg", fd, messages(vector), 1, NOW),
        call("pwritev2", fd, vector, 1, ctypes.c_long(-1), 0),
    ]


def reads(sock: socket.socket) -> list:
    """What every reading call gives."""
    (part,), vector = buffers(3)
    fd, header = sock.fileno(), Msghdr(None, 0, vector, 1, None, 0, 0)
    seen = [call("read", fd, part, 3), call("recv", fd, part, 3, PEEK), call("recvfrom", fd, part, 3, NOW, None, None)]
    seen += [call("readv", fd, vector, 1), call("recvmsg", fd, ctypes.byref(header), 0)]
    return [*seen, call("recv", fd, part, 3, socket.MSG_WAITALL), call("preadv2", fd, vector, 1, ctypes.c_long(-1), 0)]


@row("every writing call after shutdown(SHUT_WR), SIGPIPE ignored", "EPIPE")
def writes_after_shutdown(world: World) -> list:
    client, server = world.ready_pair()
    client.shutdown(socket.SHUT_WR)
    return [writes(client), server.recv(1).decode(), writes(client)]


@row("writes of 0 bytes after shutdown(SHUT_WR)", "EPIPE by write() and send()")
def empty_writes_after_shutdown(world: World) -> list:
    client, _ = world.ready_pair()
    client.shutdown(socket.SHUT_WR)
    return [call("write", client.fileno(), b"", 0), call("send", client.fileno(), b"", 0, QUIET)]


@row("sendfile() and splice() after shutdown(SHUT_WR)", "EPIPE")
def files_after_shutdown(world: World) -> list:
    client, _ = world.ready_pair()
    file = world.folder / "file"
    file.write_bytes(b"x" * 100)
    reading, writing = os.pipe()
    os.write(writing, b"x")
    client.shutdown(socket.SHUT_WR)
    with file.open("rb") as source:
        sent = outcome(os.sendfile, client.fileno(), source.fileno(), 0, 100)
    return [sent, call("splice", reading, None, client.fileno(), None, 1, 0)]


def signals_of(world: World, sock: socket.socket, flags: tuple[int, ...]) -> list:
    """What sends with these flags give, and how many SIGPIPE there are after each."""
    handler = Handler(world.folder, signal.SIGPIPE)
    return [[call("send", sock.fileno(), b"x", 1, each), handler.hits] for each in flags]


@row("SIGPIPE by a write after shutdown(SHUT_WR): handled, and with MSG_NOSIGNAL", "one each; none")
def sigpipe_after_shutdown(world: World) -> list:
    client, _ = world.ready_pair()
    client.shutdown(socket.SHUT_WR)
    return signals_of(world, client, (0, QUIET, 0))


@row("a write after shutdown(SHUT_WR) with SIGPIPE at its default", "the process is killed by SIGPIPE")
def sigpipe_kills(world: World) -> list:
    client, _ = world.ready_pair()
    client.shutdown(socket.SHUT_WR)
    seen = []
    for flags in (0, QUIET):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            outcome(client.send, b"x", flags)
            os._exit(7)
        seen.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return seen


@row("SIGPIPE by the writes after the peer's reset", "ECONNRESET without a signal; then EPIPE, one each")
def sigpipe_after_a_reset(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.reset()
    wait_for_mask(server, "IN|OUT|ERR|HUP|RDHUP")
    return signals_of(world, server, (0, 0, QUIET))


@row("every reading call at the peer's end, again and again", "0")
def reads_at_the_end(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.end()
    return [reads(server), reads(server), unread(server), mask(server)]


@row("reading what came before the peer's end, in pieces", "all of it, then 0")
def the_rest(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.send(stream(50000))
    peer.end()
    seen = [wait_for_mask(server, "IN|OUT|RDHUP"), receive(server, 49999) == stream(49999), mask(server)]
    return [*seen, server.recv(10) == stream(50000)[-1:], server.recv(10).decode(), mask(server)]


@row("half-close by the program, then data from the peer", "arrives, to the peer's end")
def half_close(world: World) -> list:
    server, peer = world.server_with_peer()
    server.sendall(b"request")
    server.shutdown(socket.SHUT_WR)
    seen: list = [peer.receive(7).decode(), peer.read_to_end(), mask(server)]
    peer.send(stream(100000))
    peer.end()
    return [*seen, receive(server, 100000) == stream(100000), server.recv(1).decode()]


@row("half-close by the peer, then data from the program", "arrives, to the program's end")
def half_close_by_the_peer(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.send(b"request")
    peer.end()
    seen: list = [receive(server, 7).decode(), server.recv(1).decode(), mask(server)]
    writing = world.thread(server.sendall, stream(300000))
    seen += [peer.receive(300000) == stream(300000), writing.result()]
    server.close()
    return [*seen, peer.read_to_end()]


@row("half-close on a connection where both ends are covered, each way, with data after", "as between any two")
def half_close_between_us(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    seen: list = [receive(server, 100).decode(), mask(server), mask(client)]
    server.sendall(stream(100000))
    server.close()
    return [*seen, drain(client), wait_for_mask(client, "IN|OUT|HUP|RDHUP"), outcome(client.shutdown, socket.SHUT_RD)]


@row("shutdown(SHUT_RD) without data", "reads give 0; the other direction goes on")
def shut_reading(world: World) -> list:
    client, server = world.ready_pair()
    client.shutdown(socket.SHUT_RD)
    seen: list = [reads(client), mask(client), client.send(b"still"), receive(server, 5).decode()]
    return [*seen, mask(server)]


@row("shutdown(SHUT_RD) with data waiting", "it is still read, then 0")
def shut_reading_with_data(world: World) -> list:
    client, server = world.ready_pair()
    server.sendall(b"waiting")
    world.until(lambda: unread(client) == 7, "the data")
    client.shutdown(socket.SHUT_RD)
    return [client.recv(3).decode(), client.recv(10).decode(), client.recv(10).decode(), mask(client)]


@row(
    "shutdown(SHUT_RD), then data from the peer",
    "the peer's writes succeed",
)
def shut_reading_and_more_comes(world: World) -> list:
    client, server = world.ready_pair()
    client.shutdown(socket.SHUT_RD)
    seen = [server.send(b"one"), server.send(b"two")]
    client.send(b"x")
    return [*seen, server.recv(1).decode(), server.send(b"three"), mask(server)]


@row("shutdown(SHUT_RDWR)", "reads give 0, writes EPIPE; the peer sees the end")
def shut_both(world: World) -> list:
    server, peer = world.server_with_peer()
    server.sendall(b"last")
    server.shutdown(socket.SHUT_RDWR)
    seen: list = [reads(server), writes(server), peer.receive(4).decode(), peer.read_to_end()]
    peer.sock.close()  # a FIN alone: it would get a RST for data after SHUT_RD, close_notify being data
    return [*seen, wait_for_mask(server, "IN|OUT|HUP|RDHUP")]


@row("shutdown() twice, one way after the other, after the peer's end", "0 each; ENOTCONN when all is over")
def shut_again(world: World) -> list:
    server, peer = world.server_with_peer()
    seen = [outcome(server.shutdown, how) for how in (socket.SHUT_WR, socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR)]
    seen += [outcome(server.shutdown, 3)]
    peer.read_to_end()
    peer.sock.close()
    wait_for_mask(server, "IN|OUT|HUP|RDHUP")
    return [*seen, world.until(lambda: outcome(server.shutdown, socket.SHUT_WR) == "ENOTCONN", "the connection's end")]


@row("shutdown() on a socket that is not connected, and on a listener", "ENOTCONN; 0")
def shut_unconnected(world: World) -> list:
    with socket.socket() as fresh, world.listen() as listener:
        return [outcome(fresh.shutdown, how) for how in range(4)] + [outcome(listener.shutdown, socket.SHUT_WR)]


@row("poll() masks: open, half-closed by us, by the peer, both, with data left", "OUT, OUT, IN|OUT|RDHUP, ...|HUP")
def masks(world: World) -> list:
    server, peer = world.server_with_peer()
    other, far = world.server_with_peer()
    seen = [mask(server)]
    server.shutdown(socket.SHUT_WR)
    seen += [mask(server)]
    peer.read_to_end()
    peer.send(b"left")
    peer.end()
    seen += [wait_for_mask(server, "IN|OUT|HUP|RDHUP"), mask(server, 0), mask(server, select.POLLIN)]
    server.recv(10)
    server.recv(10)
    seen += [mask(server), mask(server, 0)]
    far.end()
    seen += [wait_for_mask(other, "IN|OUT|RDHUP"), mask(other, 0), mask(other, select.POLLRDHUP)]
    return seen


@row("epoll, edge-triggered, told of the peer's end, then of our own shutdown()", "IN|RDHUP; then HUP as well")
def edges_of_the_end(world: World) -> list:
    server, peer = world.server_with_peer()
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
    peer.end()
    first = epoll.poll(5)[0][1]
    seen: list = [first == select.EPOLLIN | select.EPOLLRDHUP, server.recv(1).decode()]
    server.shutdown(socket.SHUT_WR)
    hup = world.until(lambda: [events for _, events in epoll.poll(1) if events & select.EPOLLHUP], "HUP")
    return [*seen, hup[0] == select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP]


@row("getsockname(), getpeername(), TCP_INFO's state through half-closes to the end", "as TCP's states go")
def names_and_states(world: World) -> list:
    server, peer = world.server_with_peer()
    address = server.getpeername()

    def told() -> list:
        state = struct.unpack_from("B", server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))[0]
        return [outcome(server.getpeername) == address, server.getsockname()[1] == world.inbound, state]

    seen = [told()]
    peer.end()
    wait_for_mask(server, "IN|OUT|RDHUP")
    seen += [told()]
    server.recv(1)
    server.shutdown(socket.SHUT_WR)
    peer.read_to_end()
    world.until(lambda: told()[2] == 7, "TCP_CLOSE")
    return [*seen, [outcome(server.getpeername), outcome(server.getsockname)[1] == world.inbound]]


@row(
    "a peer that ends without close_notify (over TLS)",
    "data, then 0",
    kernel="data, then ECONNRESET: it may have been cut",
    relay="data, then ECONNRESET: it may have been cut",
)
def cut(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.send(b"data")
    peer.sock.shutdown(socket.SHUT_WR)
    seen = [receive(server, 4).decode()]
    wait_for_mask(server, "IN|OUT|RDHUP")
    for _ in range(2):
        assert outcome(server.recv, 1) == ("ECONNRESET" if world.covered else b"")
    return seen

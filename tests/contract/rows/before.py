"""Before the handshake is done: reads, writes, ends, options."""

import os
import select
import socket
import ssl
import struct
import subprocess

from tests.contract.row import row
from tests.contract.world import Peer, World, child, outcome


def go(peer: Peer) -> None:
    """Let the handshake happen."""
    if peer.tls:
        peer.tls.handshake()


@row("two write() in a row", "both arrive, in order", kernel="the same: they wait", relay="as with kernel")
def writes(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    writing = world.thread(lambda: [server.send(b"one "), server.send(b"two")])
    go(peer)
    return [writing.result(), peer.receive(7).decode()]


@row(
    "send() on a non-blocking descriptor, and with MSG_DONTWAIT",
    "the bytes arrive",
    kernel="EAGAIN, and not writable, until the handshake is done; then the bytes arrive",
    relay="as with kernel",
)
def writes_nonblocking(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    if world.covered:
        assert outcome(server.send, b"lost", socket.MSG_DONTWAIT) == "EAGAIN"
        server.setblocking(False)
        assert outcome(server.send, b"lost") == "EAGAIN"
        assert select.select([], [server], [], 0) == ([], [], [])
    server.setblocking(False)
    go(peer)
    select.select([], [server], [], 30)
    return [server.send(b"bytes"), peer.receive(5).decode()]


@row(
    "recv() on a blocking descriptor; on a non-blocking one; MSG_DONTWAIT; MSG_PEEK; after all of it, data",
    "it waits; EAGAIN each",
)
def reads(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    seen = [outcome(server.recv, 5, socket.MSG_DONTWAIT), outcome(server.recv, 5, socket.MSG_DONTWAIT | 2)]
    server.setblocking(False)
    seen += [outcome(server.recv, 5), outcome(os.read, server.fileno(), 5)]
    server.setblocking(True)
    reading = world.thread(server.recv, 5)
    go(peer)
    peer.send(b"bytes")
    return [*seen, reading.result().decode()]


@row("SO_RCVTIMEO set now, then recv(), before the handshake and after it", "EAGAIN; EAGAIN")
def receive_timeout(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    seen = [outcome(server.recv, 5)]
    go(peer)
    select.select([server], [server], [], 30)
    seen.append(outcome(server.recv, 5))
    peer.send(b"bytes")
    select.select([server], [], [], 30)
    return [*seen, server.recv(5).decode()]


@row(
    "shutdown(SHUT_WR) on a non-blocking descriptor; the peer writes",
    "0 at once; EPIPE for the next send(); the peer sees the end; its bytes still come",
)
def shutdown_nonblocking(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    server.setblocking(False)
    server.shutdown(socket.SHUT_WR)
    seen = [outcome(server.send, b"x")]
    go(peer)
    peer.send(b"bytes")
    select.select([server], [], [], 30)
    return [*seen, server.recv(9).decode(), peer.read_to_end(), outcome(server.send, b"x")]


@row(
    "shutdown(SHUT_WR) on a blocking descriptor",
    "the peer sees the end",
    kernel="the same: it waits",
    relay="the same: it waits",
)
def shutdown_blocking(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    shutting = world.thread(server.shutdown, socket.SHUT_WR)
    go(peer)
    shutting.result()
    peer.send(b"bytes")
    return [server.recv(9).decode(), peer.read_to_end()]


@row("close()", "the peer sees the end")
def close(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    server.close()
    go(peer)
    return [peer.read_to_end()]


@row("close() with SO_LINGER on and no seconds", "the peer has a RST")
def close_aborts(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    try:
        go(peer)
        return [peer.read_to_end()[1]]
    except ConnectionResetError:
        return ["reset"]
    except ssl.SSLError:
        return ["cut"]


@row("SIGKILL for the program", "the peer sees the end")
def killed(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    pid = os.fork()
    if pid == 0:
        os.read(server.fileno(), 1)
        os._exit(1)
    server.close()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    go(peer)
    return [peer.read_to_end()]


@row("dup(), close() of the original", "the copy works")
def dup(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    copy = server.dup()
    server.close()
    go(peer)
    copy.sendall(b"one")
    peer.send(b"two")
    return [peer.receive(3).decode(), copy.recv(3).decode()]


@row(
    "dup2() over another connection that waits too",
    "the other one's peer sees the end; this one works under its number",
)
def dup_over(world: World) -> list:
    first, first_peer = world.server_with_peer(handshake=False)
    second, second_peer = world.server_with_peer(handshake=False)
    os.dup2(first.fileno(), second.fileno())
    go(first_peer)
    go(second_peer)
    second.sendall(b"first")
    return [first_peer.receive(5).decode(), second_peer.read_to_end()]


@row("close() of one copy while a thread waits in recv() on the other", "the thread goes on waiting, and has the bytes")
def close_copy_while_reading(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    copy = server.dup()
    reading = world.thread(server.recv, 9)
    copy.close()
    go(peer)
    peer.send(b"bytes")
    return [reading.result().decode()]


@row("fork(); parent and child both write", "both writes arrive; the end when both have closed")
def fork(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with child(lambda: server.sendall(b"x")):
        go(peer)
        server.sendall(b"x")
    server.close()
    return [peer.read_to_end()]


@row("exec of a program with the connection as its standard streams", "it reads and writes there")
def execute(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with subprocess.Popen(["cat"], stdin=server.fileno(), stdout=server.fileno()) as program:
        server.close()
        go(peer)
        peer.send(b"cat")
        got = peer.receive(3)
        peer.end()
        return [got.decode(), program.wait(), peer.read_to_end()]


@row(
    "getsockname(), getpeername(), fstat(), SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN, SO_ERROR", "a TCP socket's"
)
def names(world: World) -> list:
    import stat

    server, peer = world.server_with_peer(handshake=False)

    def look() -> list:
        options = (socket.SO_TYPE, socket.SO_DOMAIN, socket.SO_PROTOCOL, socket.SO_ACCEPTCONN, socket.SO_ERROR)
        found: list = [server.getsockopt(socket.SOL_SOCKET, name) for name in options]
        found += [server.getsockname() == peer.sock.getpeername(), server.getpeername() == peer.sock.getsockname()]
        return [*found, stat.S_ISSOCK(os.fstat(server.fileno()).st_mode), os.get_blocking(server.fileno())]

    before = look()
    go(peer)
    select.select([], [server], [], 30)
    return [before, look()]


OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, struct.pack("i", 77)),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, struct.pack("i", 54321)),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, struct.pack("i", 1)),
    (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7)),
    (socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 11, 0)),
    (socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 12, 0)),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, struct.pack("i", 32768)),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, struct.pack("i", 32768)),
    (socket.SOL_SOCKET, socket.SO_RCVLOWAT, struct.pack("i", 3)),
    (socket.SOL_SOCKET, socket.SO_PRIORITY, struct.pack("i", 3)),
    (socket.IPPROTO_IP, socket.IP_TOS, struct.pack("i", 0x10)),
    (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 33)),
]


@row(
    "setsockopt() of TCP_NODELAY, TCP_KEEPIDLE, TCP_USER_TIMEOUT, SO_KEEPALIVE, SO_LINGER, SO_SNDTIMEO, SO_RCVTIMEO, "
    "SO_RCVBUF, SO_SNDBUF, SO_RCVLOWAT, SO_PRIORITY, IP_TOS, IP_TTL",
    "getsockopt() gives them, at once and later",
)
def options(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)

    def look() -> list:
        return [server.getsockopt(level, name, 16).hex() for level, name, _ in OPTIONS]

    defaults = look()
    for level, name, value in OPTIONS:
        server.setsockopt(level, name, value)
    during = look()
    go(peer)
    select.select([], [server], [], 30)
    server.sendall(b"x")
    return [defaults[3:7], during, look(), peer.receive(1).decode()]


@row("TCP_NODELAY, not set, and set and taken back", "off, at once and later")
def nodelay_off(world: World) -> list:
    seen = []
    for change in (False, True):
        server, peer = world.server_with_peer(handshake=False)
        if change:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        seen.append(server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        go(peer)
        select.select([], [server], [], 30)
        seen.append(server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return seen

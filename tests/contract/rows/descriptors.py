"""Copies of descriptors: dup, close_range, passing them on."""

import ctypes
import fcntl
import os
import resource
import socket
import subprocess
import sys

from tests.contract.row import held_by, row
from tests.contract.world import Peer, World, child, outcome

libc = ctypes.CDLL(None, use_errno=True)
CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC = 2, 4


def duplicates(server: socket.socket) -> list[socket.socket]:
    """One copy by each call that makes one."""
    free = os.open(os.devnull, os.O_RDWR)
    other = os.open(os.devnull, os.O_RDWR)
    numbers = [
        os.dup(server.fileno()),
        os.dup2(server.fileno(), free),
        os.dup2(server.fileno(), other, inheritable=False),  # dup3
        fcntl.fcntl(server.fileno(), fcntl.F_DUPFD, 100),
        fcntl.fcntl(server.fileno(), fcntl.F_DUPFD_CLOEXEC, 100),
    ]
    return [socket.socket(fileno=number) for number in numbers]


@row(
    "dup(), dup2(), dup3(), fcntl(F_DUPFD, F_DUPFD_CLOEXEC): one copy after another writes and is closed",
    "all write to the one connection; the peer sees the end with the last",
)
def copies(world: World) -> list:
    server, peer = world.server_with_peer()
    made = [*duplicates(server), server]
    flags = [bool(fcntl.fcntl(copy.fileno(), fcntl.F_GETFD)) for copy in made]
    for copy in made:
        copy.sendall(b"x")
        copy.close()
    return [flags, made[3].fileno(), peer.receive(6).decode(), peer.read_to_end()]


@row("the same copies made before the handshake is done", "the same")
def copies_before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    made = [*duplicates(server), server]
    if peer.tls:
        peer.tls.handshake()
    for copy in made:
        copy.sendall(b"x")
        copy.close()
    return [peer.receive(6).decode(), peer.read_to_end()]


@row("dup2() of another descriptor onto a connection", "that connection ends; the number is the other thing")
def dup2_over(world: World) -> list:
    server, peer = world.server_with_peer()
    reading, writing = os.pipe()
    os.dup2(writing, server.fileno())
    os.write(server.fileno(), b"into the pipe")
    return [peer.read_to_end(), os.read(reading, 100).decode()]


@row("dup2() of one connection onto another", "the other ends; the number is a copy of the one")
def dup2_between(world: World) -> list:
    first, first_peer = world.server_with_peer()
    second, second_peer = world.server_with_peer()
    os.dup2(first.fileno(), second.fileno())
    seen = [second_peer.read_to_end()]
    first.close()
    second.sendall(b"first")
    second.close()
    return [*seen, first_peer.receive(5).decode(), first_peer.read_to_end()]


@row(
    "dup2() of a connection onto itself; dup() of what is closed; F_DUPFD of a negative number",
    "nothing happens; EBADF; EINVAL",
)
def impossible_copies(world: World) -> list:
    server, peer = world.server_with_peer()
    same = os.dup2(server.fileno(), server.fileno()) == server.fileno()
    closed = os.dup(server.fileno())
    os.close(closed)
    seen = [same, outcome(os.dup, closed), outcome(fcntl.fcntl, server.fileno(), fcntl.F_DUPFD, -1)]
    server.sendall(b"alive")
    server.close()
    return [*seen, peer.receive(5).decode(), peer.read_to_end()]


@row("close() twice, then read() and write() on the number", "0, EBADF, EBADF, EBADF")
def closed_twice(world: World) -> list:
    server, peer = world.server_with_peer()
    number = server.detach()
    seen = [outcome(os.close, number), outcome(os.close, number)]
    seen += [outcome(os.read, number, 1), outcome(os.write, number, b"x")]
    return [*seen, peer.read_to_end()]


def close_range(first: int, last: int, flags: int) -> int:
    return libc.close_range(ctypes.c_uint(first), ctypes.c_uint(last), flags)


@row("close_range() over two of three connections", "those two end, the third goes on")
def range_closed(world: World) -> list:
    pairs = sorted((world.server_with_peer() for _ in range(3)), key=lambda pair: pair[0].fileno())
    (low, low_peer), (middle, middle_peer), (high, high_peer) = pairs
    for keep in (low_peer, middle_peer, high_peer):  # out of the range's way
        keep.sock = moved(keep)
    seen = [close_range(low.fileno(), middle.fileno(), 0)]
    high.sendall(b"third")
    high.close()
    return [*seen, low_peer.read_to_end(), middle_peer.read_to_end(), high_peer.receive(5).decode()]


def moved(peer: Peer) -> socket.socket:
    """The peer's own socket with a number far above."""
    copy = socket.socket(fileno=fcntl.fcntl(peer.sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 500))
    copy.settimeout(peer.sock.gettimeout())
    peer.sock.close()
    if peer.tls:
        peer.tls.sock = copy
    return copy


@row(
    "closefrom(3), and close_range(3, ~0), and a loop of close() up to the limit",
    "every connection ends; new ones can be made",
)
def everything_closed(world: World) -> list:
    seen: list = []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    ways = (
        lambda: libc.closefrom(3),
        lambda: close_range(3, 0xFFFFFFFF, 0),
        lambda: [outcome(os.close, number) for number in range(3, min(limit, 70000))],
    )
    for way in ways:
        server, peer = world.server_with_peer()

        def work(way=way, server=server, peer=peer) -> None:
            server.detach(), peer.sock.detach()  # or Python closes these numbers once more, when others have them
            way()
            client, server = world.ready_pair()  # the channel to the agent has survived, or was made anew
            client.close()
            assert server.recv(1) == b""

        with child(work):
            server.close()
            seen.append(peer.read_to_end())
    return seen


@row(
    "close_range(CLOSE_RANGE_CLOEXEC), then exec; close_range(CLOSE_RANGE_UNSHARE)",
    "the new program does not hold the connection; it ends with this one",
)
def range_flags(world: World) -> list:
    server, peer = world.server_with_peer()
    os.set_inheritable(server.fileno(), True)
    seen: list = [close_range(server.fileno(), server.fileno(), CLOSE_RANGE_CLOEXEC)]
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as other:
        server.sendall(b"still ours")
        server.close()
        seen += [peer.receive(10).decode(), peer.read_to_end(), other.poll()]
        assert other.stdin
        other.stdin.close()
    server, peer = world.server_with_peer()
    reading, writing = os.pipe()

    def work() -> None:  # in a process of one thread, or the table stays with the other
        assert close_range(server.fileno(), server.fileno(), CLOSE_RANGE_UNSHARE) == 0
        assert outcome(os.write, server.fileno(), b"x") == "EBADF"
        os.read(reading, 1)

    with child(work):
        server.close()
        seen.append(peer.read_to_end())
        os.write(writing, b"x")
    return seen


@row("fcntl(F_SETFD) to and fro, then exec", "FD_CLOEXEC as it was set last")
def close_on_exec_set_and_cleared(world: World) -> list:
    seen: list = []
    for keep in (False, True):
        server, peer = world.server_with_peer()
        os.set_inheritable(server.fileno(), not keep)
        os.set_inheritable(server.fileno(), keep)
        words = [sys.executable, "-c", f"import os; os.write({server.fileno()}, b'kept')"]
        status = subprocess.run(words, close_fds=False, stderr=subprocess.DEVNULL, check=False).returncode
        server.close()
        seen += [status, peer.receive(4).decode() if keep else "", peer.read_to_end()]
    return seen


held_by(
    "tests/shim/test_descriptors.py::test_threads_that_open_and_close_at_once_never_meet_each_others_connections",
    "threads that open and close connections at once",
    "each has its own, whatever numbers come again",
)

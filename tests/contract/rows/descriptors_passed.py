"""Connections passed to other processes: SCM_RIGHTS, pidfd_getfd."""

import ctypes
import os
import socket

from tests.contract.row import held_by, row
from tests.contract.world import Peer, World, child
from tests.e2e.harness import PATIENCE

libc = ctypes.CDLL(None, use_errno=True)


@row(
    "SCM_RIGHTS: a connection passed to another covered process, the sender's copy closed when it has arrived",
    "the receiver reads and writes; the end when it is done",
)
def passed(world: World) -> list:
    server, peer = world.server_with_peer()
    ours, theirs = socket.socketpair()

    def work() -> None:
        server.close()
        ours.close()
        _, numbers, _, _ = socket.recv_fds(theirs, 10, 1)
        with socket.socket(fileno=numbers[0]) as connection:
            theirs.send(b"taken")
            assert connection.recv(2) == b"go"
            connection.sendall(b"passed")
            assert connection.recv(1) == b""  # the peer's end

    with child(work):
        socket.send_fds(ours, [b"here"], [server.fileno()])
        ours.recv(5)
        server.close()
        peer.send(b"go")
        seen = [peer.receive(6).decode()]
        peer.end()
        return [*seen, peer.read_to_end()]


@row(
    "SCM_RIGHTS before the handshake is done",
    "the same: sendmsg() waits for it",
)
def passed_early(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    ours, theirs = socket.socketpair()
    sending = world.thread(socket.send_fds, ours, [b"here"], [server.fileno()])
    if peer.tls:
        peer.tls.handshake()
    sending.result()
    _, numbers, _, _ = socket.recv_fds(theirs, 10, 1)
    server.close()
    with socket.socket(fileno=numbers[0]) as connection:
        connection.sendall(b"passed")
    return [peer.receive(6).decode(), peer.read_to_end()]


@row("SCM_RIGHTS, the sender's copy closed before the message is taken", "no end until the receiver is done")
def passed_and_closed(world: World) -> list:
    server, peer = world.server_with_peer()
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"here"], [server.fileno()])
    server.close()
    seen: list = [no_end_yet(peer)]
    _, numbers, _, _ = socket.recv_fds(theirs, 10, 1)
    with socket.socket(fileno=numbers[0]) as connection:
        connection.sendall(b"passed")
        seen.append(peer.receive(6).decode())
    return [*seen, peer.read_to_end()]


def no_end_yet(peer: Peer) -> bool:
    peer.sock.settimeout(0.3)
    try:
        peer.read_to_end()
    except TimeoutError:
        return True
    finally:
        peer.sock.settimeout(PATIENCE)
    return False


@row("SCM_RIGHTS of a listener; the receiver accepts", "its connections work")
def passed_listener(world: World) -> list:
    ours, theirs = socket.socketpair()
    with world.listen(world.inbound) as listener:
        socket.send_fds(ours, [b"here"], [listener.fileno()])
    _, numbers, _, _ = socket.recv_fds(theirs, 10, 1)
    with socket.socket(fileno=numbers[0]) as listener:
        peer = world.peer(socket.create_connection(("127.0.0.1", world.inbound)))
        server, _ = listener.accept()
    if peer.tls:
        peer.tls.handshake()
    server.sendall(b"accepted")
    server.close()
    return [peer.receive(8).decode(), peer.read_to_end()]


@row("pidfd_getfd() of a child's connection, the child's copy closed", "a copy like any other")
def taken_by_pidfd(world: World) -> list:
    server, peer = world.server_with_peer()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reading, 1)
        os._exit(0)
    number = server.fileno()
    server.close()
    copy = libc.syscall(438, os.pidfd_open(pid), number, 0)
    os.write(writing, b"x")
    os.waitpid(pid, 0)
    with socket.socket(fileno=copy) as connection:
        peer.send(b"go")
        word = connection.recv(2).decode()
        connection.sendall(b"taken")
        peer.end()
        rest = connection.recv(1).decode()
    return [word, peer.receive(5).decode(), rest, peer.read_to_end()]


@row(
    "the family and getpeername() of a connection that came by SCM_RIGHTS, pidfd_getfd() or posix_spawn's closefrom",
    "AF_INET; the peer's address",
    relay="AF_UNIX, no address, and a cut-off stream ends like a good one: the relay's end alone is passed",
)
def questions_to_a_passed_one(world: World) -> list:
    server, peer = world.server_with_peer()
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"here"], [server.fileno()])
    _, numbers, _, _ = socket.recv_fds(theirs, 10, 1)
    server.close()
    with socket.socket(fileno=numbers[0]) as connection:
        seen = [connection.family.name, connection.getpeername() == peer.sock.getsockname()]
    if world.engine == "relay":
        assert seen == ["AF_UNIX", False]
        seen = ["AF_INET", True]
    return [*seen, peer.read_to_end()]


held_by(
    "tests/e2e/test_limits.py::test_a_connection_passed_to_a_process_without_the_shim_stays_encrypted",
    "SCM_RIGHTS to a process that is not covered",
    "it reads and writes; the end when it is done",
    kernel="the same until the peer sends a control record (close_notify), which it reads as EIO",
)
held_by(
    "tests/e2e/test_limits.py::test_a_connection_from_a_process_without_the_shim_stays_as_it_was",
    "SCM_RIGHTS of a clear connection from a process that is not covered",
    "it goes on, in clear",
)

"""accept(): many processes, threads, listeners and clients."""

import contextlib
import errno
import os
import select
import socket
import struct
import subprocess
import sys
import threading

from tests.contract.row import row
from tests.contract.world import HOST, World, child, outcome

ONE_OF_TEN = 10  # clients that never say a word


def ask(port: int) -> str:
    """Be a client: connect, take the server's word."""
    with socket.create_connection((HOST, port)) as client:
        client.sendall(b"?")
        return client.recv(20).decode()


def answer(listener: socket.socket, word: bytes) -> bool:
    """Serve one client."""
    server, _ = listener.accept()
    with server:
        assert server.recv(1) == b"?"
        server.sendall(word)
    return True


@row("accept() of four threads on one listener, eight clients", "each client is served, once")
def threads(world: World) -> list:
    with world.listen() as listener:
        serving = [world.thread(lambda: [answer(listener, b"word") for _ in range(2)]) for _ in range(4)]
        asking = [world.thread(ask, world.both) for _ in range(8)]
        words = [task.result() for task in asking]
        return [words, [len(task.result()) for task in serving]]


@row("accept() of three forked processes on one listener, six clients", "each client is served, once")
def processes(world: World) -> list:
    with world.listen() as listener, contextlib.ExitStack() as children:
        for _ in range(3):
            children.enter_context(child(lambda: [answer(listener, b"word") for _ in range(2)]))
        return [ask(world.both) for _ in range(6)]


@row("accept() on three listeners with SO_REUSEPORT", "each client is with one of them, and served")
def reuseport(world: World) -> list:
    listeners = []
    for _ in range(3):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((HOST, world.both))
        listener.listen()
        listeners.append(listener)
    asking = [world.thread(ask, world.both) for _ in range(9)]
    for _ in asking:
        answer(select.select(listeners, [], [], 30)[0][0], b"word")
    return [task.result() for task in asking]


@row("accept() on a listener with SO_RCVTIMEO; the same in a connection that it gave", "EAGAIN; EAGAIN")
def receive_timeout(world: World) -> list:
    with world.listen() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
        early = outcome(listener.accept)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 300000))
        connecting = world.thread(socket.create_connection, (HOST, world.both))
        select.select([listener], [], [], 30)
        server, _ = listener.accept()
        client = connecting.result()
        server.sendall(b"x")
        late = outcome(server.recv, 1)
        left = server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
        return [early, client.recv(9).decode(), late, struct.unpack("ll", left)]


SERVE = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
server, _ = listener.accept()
server.sendall(server.recv(10) + b" from another program")
"""


@row("accept() in a program that was started with the listener", "the connection works there")
def listener_over_exec(world: World) -> list:
    with world.listen() as listener:
        words = [sys.executable, "-c", SERVE, str(listener.fileno())]
        with subprocess.Popen(words, pass_fds=[listener.fileno()]) as program:
            with socket.create_connection((HOST, world.both)) as client:
                client.sendall(b"word")
                got = b"".join(iter(lambda: client.recv(50), b""))
            return [got.decode(), program.wait()]


@row(
    "EPOLLEXCLUSIVE: one listener in the sets of three threads, nine clients; EPOLL_CTL_MOD of it",
    "each client is served, once; EINVAL",
)
def exclusive(world: World) -> list:
    done, count, lock = threading.Event(), [0], threading.Lock()

    def serve() -> None:
        with select.epoll() as epoll:
            epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            while not done.is_set():
                for _ in epoll.poll(0.05):
                    with contextlib.suppress(BlockingIOError):
                        server, _ = listener.accept()
                        server.setblocking(True)
                        server.sendall(str(len(server.recv(1))).encode())
                        server.close()
                        with lock:
                            count[0] += 1

    with world.listen() as listener:
        listener.setblocking(False)
        serving = [world.thread(serve) for _ in range(3)]
        asking = [world.thread(ask, world.both) for _ in range(9)]
        words = [task.result() for task in asking]
        done.set()
        for task in serving:
            task.result()
        with select.epoll() as epoll:
            epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            return [words, count[0], outcome(epoll.modify, listener, select.EPOLLIN)]


@row("EPOLLEXCLUSIVE with a connection, while its handshake runs", "as without it: EPOLLOUT, then EPOLLIN")
def exclusive_connection(world: World) -> list:
    with world.listen(world.inbound) as listener, select.epoll() as epoll:
        raw = socket.create_connection((HOST, world.inbound))
        server, _ = listener.accept()
        epoll.register(server, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET | select.EPOLLEXCLUSIVE)
        peer = world.peer(raw)
        if peer.tls:
            peer.tls.handshake()
        first = [event for _, event in epoll.poll(30)]
        peer.send(b"x")
        return [first, [event for _, event in epoll.poll(30)], server.recv(9).decode()]


@row(
    "a listener in epoll; one client of ten connects and says nothing (1,000 clients, 40 in a small kernel)",
    "the others are all served, while those are still open",
)
def silent_clients(world: World) -> list:
    total = 40 if world.engine == "kernel" else 1000
    silent, served, asked = total // ONE_OF_TEN, 0, [0]
    with world.listen(world.inbound, backlog=total) as listener, select.epoll() as epoll:
        listener.setblocking(False)
        epoll.register(listener, select.EPOLLIN)
        mute = [socket.create_connection((HOST, world.inbound)) for _ in range(silent)]

        def ask_all() -> None:
            for _ in range(total - silent):
                peer = world.peer(socket.create_connection((HOST, world.inbound)))
                with peer:
                    if peer.tls:
                        peer.tls.handshake()
                    peer.send(b"?")
                    asked[0] += peer.receive(4) == b"word"

        asking, servers = world.thread(ask_all), {}
        while served < total - silent:
            for fd, _ in epoll.poll(30):
                if fd == listener.fileno():
                    server, _ = listener.accept()
                    server.setblocking(False)
                    servers[server.fileno()] = server
                    epoll.register(server, select.EPOLLIN)
                elif servers[fd].recv(1) == b"?":
                    servers[fd].sendall(b"word")
                    epoll.unregister(fd)
                    served += 1
                    servers.pop(fd)
        asking.result()
        still = [outcome(client.recv, 1, socket.MSG_DONTWAIT) for client in mute]
        waiting = [outcome(server.recv, 1) for server in servers.values()]
        return [served == asked[0] == total - silent, sorted(set(still)), sorted(set(waiting)), len(waiting) == silent]


@row(
    "accept() of a client that never says a word; poll(), recv(), send(), SO_ERROR after the rule's deadline",
    "it stays open for ever",
    kernel="POLLERR and POLLHUP at the deadline; ETIMEDOUT each; the client has a RST",
    relay="as with kernel",
)
def deadline(world: World) -> list:
    with world.listen(world.impatient) as listener, socket.create_connection((HOST, world.impatient)) as client:
        server, _ = listener.accept()
        poll = select.poll()
        poll.register(server, select.POLLIN)
        events = [event for _, event in poll.poll(30000 if world.covered else 0)]
        if world.covered:
            assert events == [select.POLLIN | select.POLLERR | select.POLLHUP], events
            seen = [outcome(server.recv, 1), outcome(server.send, b"x")]
            error = server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert [*seen, errno.errorcode[error]] == ["ETIMEDOUT"] * 3, (seen, error)
            client.settimeout(30)
            assert outcome(client.recv, 1) in ("ECONNRESET", b""), "a RST, maybe behind an alert"
        else:
            assert events == []
        return [os.get_blocking(server.fileno())]

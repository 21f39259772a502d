"""Limits on descriptors."""

import contextlib
import fcntl
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.contract.row import held_by, row
from tests.contract.rows.processes_exec import ended
from tests.contract.world import HOST, World, child, outcome

FILES = resource.RLIMIT_NOFILE
NUL = os.devnull


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[list[int]]:
    """Open files until there is no more; what they are, to be given back."""
    taken: list[int] = []
    while isinstance(number := outcome(os.open, NUL, os.O_RDONLY), int):
        taken.append(number)
    assert number == "EMFILE"
    yield taken
    for number in taken:
        os.close(number)


def few(limit: int = 100) -> None:
    resource.setrlimit(FILES, (limit, resource.getrlimit(FILES)[1]))


def in_use(below: int) -> list[int]:
    """Which numbers are open, asked without opening one."""
    return [number for number in range(below) if outcome(fcntl.fcntl, number, fcntl.F_GETFD) != "EBADF"]


@row("accept() with no descriptor left, then with one", "EMFILE, the connection stays in the queue; then it works")
def accept_at_the_limit(world: World) -> list:
    few()
    with world.listen(world.inbound) as listener:
        peer = world.peer(socket.create_connection((HOST, world.inbound)))
        before = in_use(300)
        with no_descriptor_left() as taken:
            seen = [outcome(listener.accept), outcome(listener.accept)]
            os.close(taken.pop())
            server, _ = listener.accept()
            seen.append(outcome(os.dup, server.fileno()))
            if peer.tls:
                handshake = world.thread(peer.tls.handshake)
                handshake.result()
            server.sendall(b"the last descriptor")
            server.close()
            seen += [peer.receive(19).decode(), peer.read_to_end()]
        return [*seen, in_use(300) == before]


@row("connect() with no descriptor left", "works: it needs none")
def connect_at_the_limit(world: World) -> list:
    few()
    with world.listen(world.outbound) as listener, socket.socket() as client:
        client.setblocking(False)
        copy = os.dup(0)
        with no_descriptor_left() as taken:
            seen = [outcome(socket.socket), outcome(client.connect, (HOST, world.outbound))]
            os.close(copy)
            raw, _ = listener.accept()
            os.close(taken.pop())  # for the certificate
            peer = world.peer(raw, server_side=True)
            taken.append(os.open(NUL, os.O_RDONLY))
            if peer.tls:
                peer.tls.handshake()
            client.setblocking(True)
            client.sendall(b"hello")
            seen.append(peer.receive(5).decode())
            peer.send(b"there")
            seen.append(client.recv(5).decode())
        client.close()
        return [*seen, peer.read_to_end()]


@row("dup(), dup2(), fcntl(F_DUPFD), pipe(), open(), socket() at the limit", "EMFILE; EBADF and EINVAL above it")
def copies_at_the_limit(world: World) -> list:
    few()
    server, peer = world.server_with_peer()
    number = server.fileno()
    with no_descriptor_left() as taken:
        seen = [outcome(os.dup, number), outcome(os.dup2, number, 100), outcome(os.dup2, number, 5000)]
        seen += [outcome(fcntl.fcntl, number, fcntl.F_DUPFD, low) for low in (0, 100, 5000)]
        seen += [outcome(os.pipe), outcome(socket.socket), outcome(socket.socketpair), max(taken)]
    copy = socket.socket(fileno=os.dup(number))
    server.close()
    copy.sendall(b"works again")
    copy.close()
    return [*seen, peer.receive(11).decode(), peer.read_to_end()]


@row(
    "getrlimit(RLIMIT_NOFILE), sysconf(_SC_OPEN_MAX), ulimit -n, /proc/self/limits",
    "the limit",
    kernel="the same; a hard limit above 16384 shows as 16384 (as the soft one, where that is more)",
    relay="as with kernel",
)
def limit_as_seen(world: World) -> list:
    seen: list = []
    if world.covered:
        assert resource.getrlimit(FILES)[1] == int(os.environ["KTLS_FD_BASE"])
    for limit in (200, 256):
        few(limit)
        own = [line for line in Path("/proc/self/limits").read_text().splitlines() if "open files" in line]
        seen += [resource.getrlimit(FILES)[0], resource.prlimit(0, FILES)[0], os.sysconf("SC_OPEN_MAX")]
        seen += [own[0].split()[3], subprocess.check_output(["sh", "-c", "ulimit -n"], text=True)]
    return seen


@row(
    "setrlimit(): soft above hard; a lower hard limit; lower and higher again; prlimit() of oneself",
    "EINVAL; kept, and inherited by fork; as told; the old one, and the new one set",
)
def limit_set(world: World) -> list:
    hard = resource.getrlimit(FILES)[1]
    seen: list = []
    with contextlib.suppress(ValueError):
        resource.setrlimit(FILES, (hard, hard - 1))
        seen.append("taken")
    few(50)
    few(300)
    seen += [resource.getrlimit(FILES)[0], resource.prlimit(os.getpid(), FILES, (60, hard - 10))[0]]
    seen += [resource.getrlimit(FILES)[0], resource.getrlimit(FILES)[1] == hard - 10]

    def inherit() -> None:
        assert resource.getrlimit(FILES)[0] == 60
        few(40)

    with child(inherit):
        pass
    return [*seen, resource.getrlimit(FILES)[0]]


@row("setrlimit() below a connection's number, before and after its handshake", "the connection goes on")
def limit_below_a_connection(world: World) -> list:
    seen: list = []
    for early in (True, False):
        server, peer = world.server_with_peer(handshake=not early)
        limit = resource.getrlimit(FILES)[0]
        few(server.fileno())
        if early and peer.tls:
            peer.tls.handshake()
        peer.send(b"go")
        seen.append(server.recv(2).decode())
        few(limit)
        server.sendall(b"on")
        server.close()
        seen += [peer.receive(2).decode(), peer.read_to_end()]
    return seen


@row("RLIMIT_NOFILE of 256, 100 connections one after another, 100 ends at once", "all work")
def two_hundred_and_fifty_six(world: World) -> list:
    few(256)
    with world.listen() as listener:
        for _ in range(100):
            connecting = world.thread(socket.create_connection, (HOST, world.both))
            server, _ = listener.accept()
            client = connecting.result()
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            client.close()
            server.close()
        many = []
        for _ in range(50):
            connecting = world.thread(socket.create_connection, (HOST, world.both))
            many.append((listener.accept()[0], connecting.result()))
        for number, (server, client) in enumerate(many):
            client.sendall(bytes([number]))
            assert server.recv(1) == bytes([number])
        return [len(many)]


@row("exec with no descriptor left (all close on exec)", "the program starts, and has its connection")
def exec_at_the_limit(world: World) -> list:
    few()
    server, peer = world.server_with_peer()
    pid = os.fork()
    if pid == 0:
        os.dup2(server.fileno(), 0)
        os.dup2(server.fileno(), 1)
        with no_descriptor_left():
            os.execvp("cat", ["cat"])
    server.close()
    peer.send(b"word")
    seen = [peer.receive(4).decode()]
    peer.end()
    return [*seen, peer.read_to_end(), ended(pid)]


for test, does, gives in (
    ("test_limits.py::test_a_limit_set_before_is_the_programs_limit", "RLIMIT_NOFILE set before the start", "holds"),
    (
        "test_limits.py::test_an_agent_that_can_serve_no_more_refuses_and_serves_again_later",
        "connect() when the agent is at its own limit",
        "EMFILE; works again later",
    ),
    (
        "test_agent_restart.py::test_new_connections_fail_closed_until_the_agent_is_back_and_then_work",
        "connect(), accept() while the agent is gone; when it is back",
        "ECONNREFUSED, ECONNABORTED, nothing in clear; they work",
    ),
    (
        "test_agent_restart.py::test_a_handshake_ends_with_the_agent",
        "connect() whose agent is killed in the handshake",
        "ECONNREFUSED",
    ),
    (
        "test_agent_restart.py::test_a_stopped_agent_is_not_waited_for_for_ever",
        "connect() while the agent is stopped (SIGSTOP)",
        "waits; ECONNREFUSED after 15 s",
    ),
):
    held_by(f"tests/e2e/{test}", does, gives)
held_by(
    "tests/e2e/test_agent_restart.py::test_keys_in_the_kernel_outlive_the_agent",
    "read(), write() on an open connection whose agent was killed",
    "nothing happens to it",
    relay="read(): ECONNRESET, write(): EPIPE",
)
held_by(
    "tests/e2e/test_agent_restart.py::test_without_its_agent_a_closed_connection_is_cut_and_not_ended",
    "close() of a connection whose agent was killed",
    "the end at the peer",
    kernel="FIN without close_notify: the peer takes it for cut; shutdown(SHUT_WR) before it says close_notify",
    relay="FIN without close_notify, or RST: the peer takes it for cut",
)

"""connect(), non-blocking: how a program learns that it is done."""

import errno
import select
import socket

from tests.contract.row import row
from tests.contract.world import HOST, World, outcome

MILLISECONDS = 30000  # longer than any handshake here


def start(world: World, port: int | None = None) -> tuple[socket.socket, str]:
    """A client whose connect() has just begun, and what connect() said."""
    client = socket.socket()
    client.setblocking(False)
    return client, errno.errorcode[client.connect_ex((HOST, port or world.both))]


TICKET = "the same; a TLS 1.3 session ticket may wake it once more for EPOLLOUT, which it may use"


def later_events(world: World, epoll: select.epoll) -> list[int]:
    """What comes within 0.2 s. A ticket makes the socket readable; of that edge EPOLLOUT is left."""
    events = events_of(epoll, 0.2)
    while world.engine == "kernel" and events == [select.EPOLLOUT]:
        events = events_of(epoll, 0.2)
    return events


def events_of(poll: "select.poll | select.epoll", timeout: float) -> list[int]:
    return [event for _, event in poll.poll(timeout)]


@row(
    "connect() on a non-blocking socket: poll() for reading and writing while the peer's server says nothing",
    "nothing to read, ever; writable when connected",
)
def poll_asks_for_both(world: World) -> list:
    with world.listen() as listener:
        client, _ = start(world)
        server, _ = listener.accept()
        poll = select.poll()
        poll.register(client, select.POLLIN | select.POLLOUT)
        events = events_of(poll, MILLISECONDS)
        server.sendall(b"x")
        poll.modify(client, select.POLLIN)
        return [events, events_of(poll, MILLISECONDS), client.recv(10).decode(), events_of(poll, 0)]


@row("the same with select()", "writable, not readable, no exception")
def select_all_three(world: World) -> list:
    with world.listen() as listener:
        client, _ = start(world)
        server, _ = listener.accept()
        ready = [len(part) for part in select.select([client], [client], [client], 30)]
        server.close()
        return [ready, [len(part) for part in select.select([client], [], [client], 30)], client.recv(1) == b""]


@row("the same with epoll, level-triggered: wait twice", "EPOLLOUT both times")
def epoll_level(world: World) -> list:
    with world.listen() as listener, select.epoll() as epoll:
        client, _ = start(world)
        epoll.register(client, select.EPOLLIN | select.EPOLLOUT)
        server, _ = listener.accept()
        first = events_of(epoll, 30)
        return [first, events_of(epoll, 30), client.send(b"x"), server.recv(1).decode()]


@row(
    "the same with epoll, edge-triggered: wait twice, then the peer writes",
    "EPOLLOUT once, then nothing; then EPOLLIN with EPOLLOUT",
    kernel=TICKET,
)
def epoll_edge(world: World) -> list:
    with world.listen() as listener, select.epoll() as epoll:
        client, _ = start(world)
        epoll.register(client, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        server, _ = listener.accept()
        first = events_of(epoll, 30)
        second = later_events(world, epoll)
        server.sendall(b"x")
        third = world.until(lambda: [event for event in events_of(epoll, 1) if event & select.EPOLLIN], "EPOLLIN")
        return [first, second, third, client.recv(5).decode(), later_events(world, epoll)]


@row("the same with EPOLLONESHOT: wait twice, then EPOLL_CTL_MOD", "EPOLLOUT once, nothing, EPOLLOUT again")
def epoll_oneshot(world: World) -> list:
    with world.listen() as listener, select.epoll() as epoll:
        client, _ = start(world)
        epoll.register(client, select.EPOLLIN | select.EPOLLOUT | select.EPOLLONESHOT)
        server, _ = listener.accept()
        seen = [events_of(epoll, 30), events_of(epoll, 0.2)]
        epoll.modify(client, select.EPOLLIN | select.EPOLLOUT | select.EPOLLONESHOT)
        seen.append(events_of(epoll, 30))
        server.close()
        return seen


@row(
    "a socket added to epoll before connect(), edge-triggered",
    "EPOLLOUT and EPOLLHUP before, EPOLLOUT alone when connected",
    kernel=TICKET,
)
def epoll_before_connect(world: World) -> list:
    with world.listen() as listener, select.epoll() as epoll, socket.socket() as client:
        client.setblocking(False)
        epoll.register(client, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        before = events_of(epoll, 0)
        said = errno.errorcode[client.connect_ex((HOST, world.both))]
        server, _ = listener.accept()
        seen = [before, said, events_of(epoll, 30), later_events(world, epoll)]
        server.close()
        return seen


@row("connect() to a port where nobody listens, then poll()", "POLLERR and POLLHUP; SO_ERROR is ECONNREFUSED, then 0")
def refused_later(world: World) -> list:
    client, said = start(world)
    poll = select.poll()
    poll.register(client, select.POLLIN | select.POLLOUT)
    events = events_of(poll, MILLISECONDS)
    errors = [client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for _ in range(2)]
    return [said, events, errors, outcome(client.getpeername)]


@row("the same, seen by epoll and by the first write", "EPOLLERR and EPOLLHUP; ECONNREFUSED once, EPIPE after it")
def refused_write(world: World) -> list:
    client, _ = start(world)
    with select.epoll() as epoll:
        epoll.register(client, select.EPOLLIN | select.EPOLLOUT)
        events = events_of(epoll, 30)
    return [events, outcome(client.send, b"x"), outcome(client.send, b"x"), len(client.recv(1))]


@row("connect() again after one that was refused", "ECONNREFUSED, as the first one's result; a third one connects")
def refused_then_again(world: World) -> list:
    client, _ = start(world)
    select.select([], [client], [], 30)
    second = errno.errorcode[client.connect_ex((HOST, world.both))]
    with world.listen() as listener:
        third = errno.errorcode[client.connect_ex((HOST, world.both))]
        server, _ = listener.accept()
        select.select([], [client], [], 30)
        client.sendall(b"x")
        return [second, third, server.recv(5).decode()]


@row("connect() again when a non-blocking one is done, and once more", "0; EISCONN")
def again_when_done(world: World) -> list:
    with world.listen() as listener:
        client, _ = start(world)
        server, _ = listener.accept()
        select.select([], [client], [], 30)
        seen = [outcome(client.connect, (HOST, world.both)) for _ in range(2)]
        server.close()
        return seen


def full(world: World, listener: socket.socket) -> list[socket.socket]:
    """Fill the queue of a listener with a backlog of 0: the kernel ignores the next SYN and the client waits."""
    fillers = [socket.socket() for _ in range(2)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    return fillers


@row(
    "connect() to a server that does not answer: again, getpeername(), SO_ERROR, poll(), send(), recv()",
    "EALREADY; ENOTCONN; 0; no event; EAGAIN; EAGAIN",
)
def again_too_early(world: World) -> list:
    with world.listen(backlog=0) as listener:
        fillers = full(world, listener)
        client, said = start(world)
        seen = [said, outcome(client.connect, (HOST, world.both)), outcome(client.connect, (HOST, world.both))]
        poll = select.poll()
        poll.register(client, select.POLLIN | select.POLLOUT)
        seen += [outcome(client.getpeername), client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), events_of(poll, 0)]
        seen += [outcome(client.send, b"x"), outcome(client.recv, 1), len(fillers)]
        return seen


@row("getpeername() as the test for being connected", "the address, when it is writable")
def getpeername_tells(world: World) -> list:
    with world.listen() as listener:
        client, _ = start(world)
        server, _ = listener.accept()
        select.select([], [client], [], 30)
        server.close()
        return [client.getpeername() == (HOST, world.both)]

"""Before the handshake is done: poll(), select() and epoll."""

import ctypes
import os
import select
import socket
import time

from tests.contract.row import row
from tests.contract.rows.before import go
from tests.contract.world import World, outcome

LIBC = ctypes.CDLL(None, use_errno=True)
IN, OUT, EDGE, ONCE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLET, select.EPOLLONESHOT
ADD, DELETE = 1, 2  # EPOLL_CTL_ADD, EPOLL_CTL_DEL
DATA = 0x1122334455667788


class Event(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


def events_of(epoll: "select.epoll | select.poll", timeout: float = 30) -> list[int]:
    return [event for _, event in epoll.poll(timeout)]


@row("poll() and select() for reading, with time limits of 0 and 50 ms", "nothing; nothing")
def limits(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    poll = select.poll()
    poll.register(server, select.POLLIN)
    seen = [poll.poll(0), poll.poll(50), select.select([server], [], [], 0), select.select([server], [], [], 0.05)]
    go(peer)
    return [seen, poll.poll(50)]


@row("select() with the descriptor in all three sets, until data has come", "readable and writable, no exception")
def select_three(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    go(peer)
    peer.send(b"x")
    select.select([server], [], [], 30)
    return [len(part) for part in select.select([server], [server], [server], 30)]


class Timeval(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("microseconds", ctypes.c_long))


@row(
    "select() for reading with a limit of 100 s, data after 100 ms: the time that it leaves",
    "less than 100 s, more than 0",
)
def select_leaves_time(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    limit, bits = Timeval(100, 0), (ctypes.c_ulong * 16)()
    bits[server.fileno() // 64] = 1 << server.fileno() % 64

    def talk() -> None:
        time.sleep(0.1)
        go(peer)
        peer.send(b"x")

    talking = world.thread(talk)
    ready = LIBC.select(server.fileno() + 1, bits, None, None, ctypes.byref(limit))
    talking.result()
    return [ready, 0 < limit.seconds < 100]


@row("EPOLL_CTL_ADD with a pointer as its data", "the event has it, to the last bit")
def epoll_data(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with select.epoll() as epoll:
        asked, got = Event(IN, DATA), (Event * 4)()
        LIBC.epoll_ctl(epoll.fileno(), ADD, server.fileno(), ctypes.byref(asked))
        go(peer)
        peer.send(b"x")
        count = LIBC.epoll_wait(epoll.fileno(), got, 4, 30000)
        again = LIBC.epoll_wait(epoll.fileno(), got, 4, 30000)
        return [count, again, got[0].events, f"{got[0].data:x}"]


@row("epoll, edge-triggered, for reading and writing; the handshake; data", "each once")
def epoll_edge(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with select.epoll() as epoll:
        epoll.register(server, IN | OUT | EDGE)
        go(peer)
        seen = [events_of(epoll), events_of(epoll, 0.1)]
        peer.send(b"x")
        return [*seen, events_of(epoll), events_of(epoll, 0.1), server.recv(5).decode()]


@row("EPOLL_CTL_MOD from writing to reading; data", "EPOLLIN alone, when there is data")
def epoll_modify(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with select.epoll() as epoll:
        epoll.register(server, OUT)
        epoll.modify(server, IN)
        go(peer)
        seen = [events_of(epoll, 0.1)]
        peer.send(b"x")
        return [*seen, events_of(epoll), outcome(epoll.register, server, IN)]


@row("EPOLL_CTL_DEL; the handshake; data; EPOLL_CTL_DEL; EPOLL_CTL_ADD", "no event; an error; EPOLLIN")
def epoll_delete(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with select.epoll() as epoll:
        epoll.register(server, IN | OUT)
        epoll.unregister(server)
        go(peer)
        peer.send(b"x")
        select.select([server], [], [], 30)
        seen = [events_of(epoll, 0), LIBC.epoll_ctl(epoll.fileno(), DELETE, server.fileno(), None)]
        epoll.register(server, IN)
        return [*seen, events_of(epoll)]


@row("EPOLLONESHOT; the handshake; EPOLL_CTL_MOD", "one event; another one")
def epoll_oneshot(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with select.epoll() as epoll:
        epoll.register(server, IN | OUT | ONCE)
        go(peer)
        seen = [events_of(epoll), events_of(epoll, 0.1)]
        epoll.modify(server, IN | OUT | ONCE)
        return [*seen, events_of(epoll), events_of(epoll, 0.1)]


@row("a descriptor in five epoll sets, with different events", "each set has its own, before data and after it")
def epoll_sets(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    sets = [select.epoll() for _ in range(5)]
    for epoll, events in zip(sets, (IN, OUT, IN | OUT, OUT | EDGE, IN | EDGE), strict=True):
        epoll.register(server, events)
    go(peer)
    seen = [events_of(epoll, 30 if index in (1, 2, 3) else 0) for index, epoll in enumerate(sets)]
    peer.send(b"x")
    select.select([server], [], [], 30)
    return [*seen, *(events_of(epoll, 0) for epoll in sets)]


@row("thirty epoll sets, one after the other, each closed with the descriptor in it; then one more", "its event comes")
def epoll_stale(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    for _ in range(30):
        kept = [select.epoll() for _ in range(3)]
        for epoll in kept:
            epoll.register(server, OUT)
        for epoll in kept:
            epoll.close()
    with select.epoll() as epoll:
        epoll.register(server, OUT | EDGE)
        go(peer)
        return [events_of(epoll), events_of(epoll, 0.1)]


@row(
    "two copies of a descriptor in two epoll sets, and both in a third",
    "each set has its own: the third has two events",
)
def epoll_copies(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    copy = server.dup()
    with select.epoll() as one, select.epoll() as two, select.epoll() as both:
        one.register(server, OUT)
        two.register(copy, IN)
        both.register(server, IN | EDGE)
        both.register(copy, IN | EDGE)
        go(peer)
        seen = [events_of(one), events_of(two, 0)]
        peer.send(b"x")
        select.select([server], [], [], 30)
        names: dict[int, str] = {server.fileno(): "server", copy.fileno(): "copy"}
        found: list[str] = []
        while len(found) < 2:
            found += [names[fd] for fd, _ in both.poll(30)]
        return [*seen, events_of(one), events_of(two), sorted(found)]


@row("close() of one copy while a thread waits in epoll_wait() for the other", "the thread has the other's event")
def epoll_copy_closed(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    copy = server.dup()
    with select.epoll() as epoll:
        epoll.register(server, IN)
        waiting = world.thread(events_of, epoll)
        copy.close()
        go(peer)
        peer.send(b"x")
        return [waiting.result(), server.recv(5).decode()]


@row(
    "close() of a descriptor in an epoll set that is waited for; another connection takes its number",
    "no event of the old one",
)
def epoll_closed(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with select.epoll() as epoll:
        epoll.register(server, IN)
        number = server.fileno()
        waiting = world.thread(events_of, epoll, 0.3)
        server.close()
        other, other_peer = world.server_with_peer(handshake=False)
        go(peer)
        go(other_peer)
        other_peer.send(b"x")
        return [waiting.result(), number >= 0, other.recv(5).decode()]


@row("poll() on the epoll set itself", "readable when the descriptor is")
def epoll_nested(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with select.epoll() as inner, select.epoll() as outer:
        inner.register(server, IN)
        outer.register(inner.fileno(), IN)
        early = [events_of(outer, 0), select.select([inner.fileno()], [], [], 0)[0]]
        go(peer)
        peer.send(b"x")
        world.until(lambda: events_of(outer, 0.1) and events_of(inner, 0), "an event through two sets")
        return [*early, events_of(outer), events_of(inner), os.get_blocking(server.fileno())]


@row("epoll_pwait2() with a limit of 100 ms", "no event, when the time is up")
def epoll_pwait2(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with select.epoll() as epoll:
        epoll.register(server, IN)
        limit, got = (ctypes.c_long * 2)(0, 100_000_000), (Event * 4)()
        wait = LIBC.epoll_pwait2
        seen = [wait(epoll.fileno(), got, 4, limit, None)]
        opening = world.thread(go, peer)
        seen.append(wait(epoll.fileno(), got, 4, limit, None))
        opening.result()
        peer.send(b"x")
        return [*seen, wait(epoll.fileno(), got, 4, (ctypes.c_long * 2)(30, 0), None), server.recv(5).decode()]


@row(
    "EPOLL_CTL_ADD of a socket before connect(), EPOLLONESHOT, its event taken; connect(); no EPOLL_CTL_MOD",
    "no further event",
    kernel="one more, when connected: the kernel does not tell us that the event was taken",
    relay="as with kernel",
)
def epoll_oneshot_taken(world: World) -> list:
    with world.listen() as listener, select.epoll() as epoll, socket.socket() as client:
        client.setblocking(False)
        epoll.register(client, OUT | ONCE)
        first = events_of(epoll)
        client.connect_ex(listener.getsockname())
        server, _ = listener.accept()
        select.select([], [client], [], 30)
        server.close()
        assert events_of(epoll, 0.1) == ([OUT] if world.covered else [])
        return [first, events_of(epoll, 0.1)]

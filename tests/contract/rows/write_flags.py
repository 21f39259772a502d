"""Writing: flags, options, queues."""

import select
import socket
import struct

from tests.contract.calls import mask, receive, unsent, wait_for_mask
from tests.contract.row import row
from tests.contract.rows.write import fill
from tests.contract.world import HOST, World, outcome, stream

NOW, MORE, QUIET = socket.MSG_DONTWAIT, socket.MSG_MORE, socket.MSG_NOSIGNAL
SO_ZEROCOPY = 60
ZEROCOPY, EOR, CONFIRM, DONTROUTE = 0x4000000, 0x80, 0x800, 0x4


@row("MSG_MORE, then a write without", "all of it, in order")
def more_then_data(world: World) -> list:
    client, server = world.ready_pair()
    seen = [client.send(b"one", MORE), client.send(b"two", MORE), client.send(b"three")]
    return [seen, receive(server, 11).decode()]


@row("MSG_MORE by send, sendmsg, then close()", "all of it, then the end")
def more_then_close(world: World) -> list:
    server, peer = world.server_with_peer()
    seen = [server.send(b"first", MORE), server.sendmsg([b"sec", b"ond"], [], MORE)]
    server.close()
    return [seen, peer.receive(11).decode(), peer.read_to_end()]


@row("MSG_MORE, then shutdown(SHUT_WR)", "all of it, then the end")
def more_then_shutdown(world: World) -> list:
    server, peer = world.server_with_peer()
    server.send(b"first", MORE)
    server.shutdown(socket.SHUT_WR)
    return [peer.receive(5).decode(), peer.read_to_end()]


@row("MSG_MORE and nothing after it", "it goes, after 200 ms at the latest")
def more_alone(world: World) -> list:
    client, server = world.ready_pair()
    client.send(b"alone", MORE)
    return [receive(server, 5).decode()]


@row("TCP_CORK: writes, uncorked; writes, closed while corked", "all of it, both times")
def corked(world: World) -> list:
    server, peer = world.server_with_peer()
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    seen: list = [server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK), server.send(b"header"), server.send(b"body")]
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    seen += [peer.receive(10).decode(), server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)]
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    server.send(b"last")
    server.close()
    return [*seen, peer.receive(4).decode(), peer.read_to_end()]


@row("MSG_EOR, MSG_CONFIRM, MSG_DONTROUTE, MSG_NOSIGNAL, together and alone", "the data, nothing else")
def harmless_flags(world: World) -> list:
    client, server = world.ready_pair()
    flags = (EOR, CONFIRM, DONTROUTE, QUIET, EOR | CONFIRM | DONTROUTE | QUIET | NOW, EOR | MORE)
    seen = [outcome(client.send, b"x", flag) for flag in flags]
    client.send(b".")
    return [*seen, receive(server, 7).decode()]


@row(
    "MSG_OOB",
    "one byte out of band: POLLPRI at the peer",
    kernel="EOPNOTSUPP: TLS has no urgent data",
    relay="EOPNOTSUPP: TLS has no urgent data",
)
def out_of_band(world: World) -> list:
    client, server = world.ready_pair()
    sent = outcome(client.send, b"!", socket.MSG_OOB)
    if world.covered:
        assert sent == "ENOTSUP"  # Python's name for it
        assert mask(server, select.POLLPRI | select.POLLIN, 20) == "nothing"
    else:
        assert mask(server, select.POLLPRI, 1000) == "PRI"
    client.send(b"x")
    return [server.recv(1).decode()]


@row(
    "SO_ZEROCOPY, then MSG_ZEROCOPY",
    "0; the data, and a notification on the error queue",
    kernel="SO_ZEROCOPY: EOPNOTSUPP, so programs copy; MSG_ZEROCOPY without it is a plain send, as on TCP",
    relay="as with kernel",
)
def zero_copy(world: World) -> list:
    client, server = world.ready_pair()
    without = outcome(client.send, b"copied", ZEROCOPY)
    allowed = outcome(client.setsockopt, socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    assert allowed == ("ENOTSUP" if world.covered else None)
    return [without, receive(server, 6).decode()]


@row("SIOCOUTQ, TIOCOUTQ: before, while the peer does not read, after it has read", "0; more than 0; 0 at last")
def queue_length(world: World) -> list:
    client, server = world.ready_pair()
    world.until(lambda: unsent(client) == 0, "an empty queue")
    taken = fill(client)
    seen = [unsent(client) > 0]
    receive(server, taken)
    return [*seen, world.until(lambda: unsent(client) == 0, "an empty queue")]


@row("SO_SNDBUF, SO_RCVBUF: set and asked for, then 1 MB", "twice what was set; all of it arrives")
def buffer_sizes(world: World) -> list:
    client, server = world.ready_pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    data = stream(1 << 20)
    reading = world.thread(receive, server, len(data))
    client.sendall(data)
    sizes = [
        client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
    ]
    return [*sizes, reading.result() == data]


@row("SO_SNDTIMEO, with the buffers full", "EAGAIN after the time; a partial count when some of it went")
def times_out(world: World) -> list:
    client, server = world.ready_pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100000))
    partial = client.send(bytes(1 << 24))
    taken = partial + fill(client)
    seen = [0 < partial < 1 << 24, outcome(client.send, bytes(50000))]
    reading = world.thread(receive, server, taken)
    return [*seen, len(reading.result()) == taken, client.send(b"x"), server.recv(10).decode()]


@row(
    "SO_SNDTIMEO, set while the handshake goes on",
    "EAGAIN where nothing could go; then as ever",
    kernel="EAGAIN after the time",
    relay="EAGAIN after the time",
)
def times_out_early(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50000))
    early = outcome(server.send, b"x")
    assert early == ("EAGAIN" if world.covered else 1)
    if not world.covered:
        peer.receive(1)
    if peer.tls:
        peer.tls.handshake()
    sent = world.until(lambda: (got := outcome(server.send, b"y")) != "EAGAIN" and got, "the handshake")
    return [sent, peer.receive(1).decode()]


@row("poll(POLLOUT), epoll and select() when the buffers are full, then drained", "not writable; writable")
def writable_again(world: World) -> list:
    client, server = world.ready_pair()
    level, edge = select.epoll(), select.epoll()
    level.register(client, select.EPOLLOUT)
    edge.register(client, select.EPOLLOUT | select.EPOLLET)
    seen: list = [mask(client), len(edge.poll(1))]
    taken = fill(client)
    edge.poll(0)  # a full buffer may have had room in between
    seen += [mask(client), len(level.poll(0)), len(edge.poll(0)), len(select.select([], [client], [], 0)[1])]
    reading = world.thread(receive, server, taken)
    seen += [wait_for_mask(client, "OUT"), len(edge.poll(5)), len(level.poll(5)), len(reading.result()) == taken]
    return [*seen, len(select.select([], [client], [], 5)[1]), client.send(b"x")]


@row("a blocking write that waits for room, while the peer reads", "returns its full count when all of it is in")
def waits_for_room(world: World) -> list:
    client, server = world.ready_pair()
    taken = fill(client)
    writing = world.thread(client.send, bytes(200000))
    writing.join(0.05)
    seen = [writing.is_alive()]
    return [*seen, len(receive(server, taken + 200000)) == taken + 200000, writing.result()]


@row(
    "sendmsg() with the program's own control messages: SO_TIMESTAMPING, IP_TOS",
    "0 or more is sent as TCP does: taken for hints",
)
def own_control_messages(world: World) -> list:
    client, server = world.ready_pair()
    stamping = (socket.SOL_SOCKET, 37, struct.pack("I", 0))
    seen = [outcome(client.sendmsg, [b"stamped"], [stamping]), receive(server, 7).decode()]
    return [
        *seen,
        outcome(client.sendmsg, [b"marked"], [(socket.IPPROTO_IP, 1, struct.pack("i", 0))]),
        receive(server, 6).decode(),
    ]


@row(
    "SO_ZEROCOPY before connect(), then MSG_ZEROCOPY",
    "the data, and a notification on the error queue",
    kernel="ENOBUFS, which programs fall back from; without the flag it goes",
    relay="as with kernel",
)
def zero_copy_before_connect(world: World) -> list:
    with world.listen() as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        connecting = world.thread(client.connect, (HOST, world.both))
        server, _ = listener.accept()
        connecting.result()
        assert outcome(client.send, b"data", ZEROCOPY) == ("ENOBUFS" if world.covered else 4)
        if world.covered:
            client.send(b"data")
        return [receive(server, 4).decode()]


@row(
    "sendmsg() with a control message that TCP does not know",
    "EINVAL; nothing goes",
    kernel="it is sent: control messages are not looked at",
    relay="as with kernel",
)
def bad_control_messages(world: World) -> list:
    client, server = world.ready_pair()
    sent = outcome(client.sendmsg, [b"a"], [(socket.SOL_SOCKET, 12345, b"1234")])
    assert sent == (1 if world.covered else "EINVAL")
    if not world.covered:
        client.send(b"a")
    return [server.recv(10).decode()]


@row("TCP_NODELAY, TCP_QUICKACK, TCP_NOTSENT_LOWAT, SO_KEEPALIVE set and asked for", "as set; the data goes")
def options(world: World) -> list:
    client, server = world.ready_pair()
    tcp = socket.IPPROTO_TCP
    wanted = [
        (tcp, socket.TCP_NODELAY, 1),
        (tcp, socket.TCP_NOTSENT_LOWAT, 16384),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    for level, name, value in wanted:
        client.setsockopt(level, name, value)
    client.send(b"x")
    return [[client.getsockopt(level, name) for level, name, _ in wanted], server.recv(1).decode()]

"""connect(): kinds of sockets, addresses and options."""

import ctypes
import errno
import os
import select
import signal
import socket
import struct
import time

from tests.contract.row import held_by, row
from tests.contract.world import HOST, World, outcome

LIBC = ctypes.CDLL(None, use_errno=True)
FASTOPEN_CONNECT = 30  # TCP_FASTOPEN_CONNECT
UNSPEC = struct.pack("=H", socket.AF_UNSPEC) + bytes(14)


def raw_connect(sock: socket.socket, address: bytes) -> str:
    result = LIBC.connect(sock.fileno(), address, len(address))
    return "0" if result == 0 else errno.errorcode[ctypes.get_errno()]


def inet(port: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(HOST) + bytes(8)


def full_listener(world: World) -> tuple[socket.socket, socket.socket]:
    """A listener whose queue is full: the kernel ignores the next SYN, and its client waits. And what fills it."""
    listener, filler = world.listen(backlog=0), socket.socket()
    filler.setblocking(False)
    filler.connect_ex(listener.getsockname())
    return listener, filler


@row("bind() to a port, then connect()", "that port, for both ends")
def bind_first(world: World) -> list:
    with world.listen() as listener, socket.socket() as client:
        client.bind((HOST, 0))
        name = client.getsockname()
        connecting = world.thread(client.connect, (HOST, world.both))
        server, address = listener.accept()
        connecting.result()
        return [address == name, client.getsockname() == name, server.getpeername() == name]


@row("connect() of an IPv6 socket to an IPv4 address, mapped", "it connects; both ends' names are mapped addresses")
def mapped(world: World) -> list:
    with world.listen() as listener, socket.socket(socket.AF_INET6) as client:
        connecting = world.thread(client.connect, (f"::ffff:{HOST}", world.both))
        server, address = listener.accept()
        connecting.result()
        client.sendall(b"x")
        names = [client.getpeername()[0], client.getsockname()[0], address[0]]
        return [*names, server.recv(9).decode()]


@row("connect() over IPv6", "it connects")
def ipv6(world: World) -> list:
    with world.listen(host="::1") as listener, socket.socket(socket.AF_INET6) as client:
        connecting = world.thread(client.connect, ("::1", world.both))
        server, address = listener.accept()
        connecting.result()
        client.sendall(b"x")
        return [client.getpeername()[0], address[0], server.recv(9).decode()]


@row(
    "Happy Eyeballs: two connect() at once, over IPv6 and IPv4; the slower one is closed",
    "the faster one works; the other server sees a connection that ends without a byte",
)
def happy_eyeballs(world: World) -> list:
    with world.listen(host="::1") as six, world.listen() as four:
        clients = {family: socket.socket(family) for family in (socket.AF_INET6, socket.AF_INET)}
        for client, host in zip(clients.values(), ("::1", HOST), strict=True):
            client.setblocking(False)
            client.connect_ex((host, world.both))
        servers = {socket.AF_INET6: six.accept()[0], socket.AF_INET: four.accept()[0]}
        winner = select.select([], clients.values(), [], 30)[1][0]
        clients.pop(winner.family)
        next(iter(clients.values())).close()
        winner.sendall(b"x")
        got = servers.pop(winner.family).recv(9)
        return [got.decode(), [len(server.recv(9)) for server in servers.values()]]


@row("connect() of UDP and Unix sockets, also to the number of a covered port", "what they always did")
def others(world: World) -> list:
    path = str(world.folder / "socket")
    with (
        socket.socket(type=socket.SOCK_DGRAM) as receiver,
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        receiver.bind((HOST, world.both))
        receiver.settimeout(30)
        sender.connect((HOST, world.both))
        sender.send(b"datagram")
        listener.bind(path)
        listener.listen()
        client.connect(path)
        server, _ = listener.accept()
        client.send(b"unix")
        seen = [receiver.recv(20).decode(), server.recv(20).decode(), sender.getpeername()[0], client.getpeername()]
        seen[-1] = seen[-1] == path
        return [*seen, raw_connect(sender, UNSPEC), outcome(sender.getpeername)]


@row("connect() with AF_UNSPEC on a TCP socket that never connected, and on one that was refused", "0; 0; it connects")
def unspec_before(world: World) -> list:
    with socket.socket() as client:
        seen = [raw_connect(client, UNSPEC), outcome(client.connect, (HOST, world.both))]
        client.setblocking(False)
        client.connect_ex((HOST, world.both))
        select.select([], [client], [], 30)
        seen.append(raw_connect(client, UNSPEC))
        client.setblocking(True)
        with world.listen() as listener:
            accepting = world.thread(listener.accept)
            return [*seen, outcome(client.connect, (HOST, world.both)), len(accepting.result())]


@row(
    "connect() with AF_UNSPEC on a connected TCP socket",
    "0, the peer has a RST",
    kernel="EOPNOTSUPP, as kTLS has it; the connection goes on",
    relay="as with kernel",
)
def unspec_connected(world: World) -> list:
    client, server = world.ready_pair()
    said = raw_connect(client, UNSPEC)
    if world.covered:
        client.sendall(b"x")
        assert said == "ENOTSUP", said  # which is EOPNOTSUPP
        assert server.recv(9) == b"x"
    else:
        assert (said, outcome(server.recv, 9)) == ("0", "ECONNRESET")
    return ["dissolve"]


@row("sendto() with MSG_FASTOPEN and an address", "the number of bytes; they arrive")
def fastopen(world: World) -> list:
    with world.listen() as listener, socket.socket() as client:
        sending = world.thread(client.sendto, b"early", socket.MSG_FASTOPEN, (HOST, world.both))
        server, _ = listener.accept()
        return [sending.result(), server.recv(9).decode(), client.getpeername()[0]]


@row("the same on a non-blocking socket, without a cookie", "EINPROGRESS; the bytes are to be sent when it is writable")
def fastopen_nonblocking(world: World) -> list:
    with world.listen() as listener, socket.socket() as client:
        client.setblocking(False)
        said = outcome(client.sendto, b"early", socket.MSG_FASTOPEN, (HOST, world.both))
        server, _ = listener.accept()
        select.select([], [client], [], 30)
        return [said, client.send(b"late"), server.recv(9).decode()]


@row("TCP_FASTOPEN_CONNECT, then connect() and send()", "0 each; the bytes arrive")
def fastopen_connect(world: World) -> list:
    with world.listen() as listener, socket.socket() as client:
        said = outcome(client.setsockopt, socket.IPPROTO_TCP, FASTOPEN_CONNECT, 1)
        now = client.getsockopt(socket.IPPROTO_TCP, FASTOPEN_CONNECT)
        accepting = world.thread(listener.accept)
        client.connect((HOST, world.both))
        client.sendall(b"x")
        return [said, now, accepting.result()[0].recv(9).decode()]


@row("a listener with TCP_DEFER_ACCEPT, and a client that writes", "accept() gives it; the bytes are there")
def defer_accept(world: World) -> list:
    with world.listen() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        accepting = world.thread(listener.accept)
        client = socket.create_connection((HOST, world.both))
        client.sendall(b"x")
        server, _ = accepting.result()
        return [server.recv(9).decode()]


@row("connect(), blocking, with SO_SNDTIMEO, to a server that does not answer", "EINPROGRESS")
def send_timeout(world: World) -> list:
    listener, filler = full_listener(world)
    with listener, filler, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100000))
        return [raw_connect(client, inet(world.both)), outcome(client.getpeername)]


@row("connect(), blocking, with TCP_USER_TIMEOUT, to a server that does not answer", "ETIMEDOUT")
def user_timeout(world: World) -> list:
    listener, filler = full_listener(world)
    with listener, filler, socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 200)
        return [raw_connect(client, inet(world.both))]


def interrupted(world: World, *, restarts: bool) -> list:
    """connect() while a signal comes every 50 ms, ten times; the server begins to answer after that."""
    listener, filler = full_listener(world)
    count = 0

    def handler(*_: object) -> None:
        nonlocal count
        count += 1

    signal.signal(signal.SIGUSR1, handler)
    signal.siginterrupt(signal.SIGUSR1, not restarts)
    with listener, filler, socket.socket() as client:

        def interrupt() -> list:
            for _ in range(5):
                time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGUSR1)
            return [listener.accept(), listener.accept()]

        task = world.thread(interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        seen = [raw_connect(client, inet(world.both))]
        if not restarts:
            while (again := raw_connect(client, inet(world.both))) == "EINTR":
                pass
            seen.append(again)
        client.sendall(b"x")
        got = [server.recv(9) for server, address in task.result() if address == client.getsockname()]
        return [*seen, count > 0, got[0].decode()]


@row("connect(), blocking, and a signal whose handler has SA_RESTART", "0, in the end")
def restarted(world: World) -> list:
    return interrupted(world, restarts=True)


@row("the same without SA_RESTART, then connect() again", "EINTR; 0, in the end")
def interrupted_once(world: World) -> list:
    return interrupted(world, restarts=False)


held_by(
    "tests/shim/test_gate.py::test_a_signal_ends_the_wait_unless_its_handler_restarts",
    "a signal while connect() waits for the handshake",
    "EINTR, unless its handler has SA_RESTART",
)

"""connect()."""

import errno
import select
import socket

from tests.contract.row import row
from tests.contract.world import HOST, World, outcome


@row(
    "connect(), blocking, then write and read",
    "0 as soon as the peer's kernel has the connection; the bytes go both ways",
    kernel="the same, when the handshake is done: its failure is connect()'s errno",
    relay="as with kernel",
)
def blocking(world: World) -> list:
    with world.listen() as listener, socket.socket() as client:
        connecting = world.thread(client.connect_ex, (HOST, world.both))
        server, address = listener.accept()
        result = connecting.result()
        client.sendall(b"there")
        got = server.recv(10)
        server.sendall(b"back")
        return [result, got.decode(), client.recv(10).decode(), address == client.getsockname()]


@row("connect() on a non-blocking socket, then poll(POLLOUT), SO_ERROR", "EINPROGRESS; writable; 0")
def nonblocking_then_poll(world: World) -> list:
    with world.listen() as listener, socket.socket() as client:
        client.setblocking(False)
        first = errno.errorcode[client.connect_ex((HOST, world.both))]
        server, _ = listener.accept()
        poll = select.poll()
        poll.register(client, select.POLLOUT)
        events = [event for _, event in poll.poll(30000)]
        error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return [first, events, error, client.send(b"x"), server.recv(1).decode()]


@row("connect() to a port where nobody listens", "ECONNREFUSED")
def refused(world: World) -> list:
    with socket.socket() as client:
        return [outcome(client.connect, (HOST, world.both))]

"""Ending: resets, linger, close with data unread."""

import select
import socket
import struct

from tests.contract.calls import mask, receive, unread, wait_for_mask
from tests.contract.row import row
from tests.contract.rows.ending import reads, writes
from tests.contract.world import World, outcome, stream

ALL = "IN|OUT|ERR|HUP|RDHUP"
QUIET = socket.MSG_NOSIGNAL


def linger(sock: socket.socket, on: int, seconds: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, seconds))


def error_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def reads_after_a_reset(world: World, sock: socket.socket) -> str:
    """All reads once the reset has been told: the one place where they differ, so that no cut looks like an end."""
    seen = reads(sock)
    wanted = "ECONNRESET" if world.covered else 0
    assert seen == [wanted] * 7, seen
    return "all alike"


@row(
    "the peer's reset, then reads",
    "ECONNRESET once, then 0",
    kernel="ECONNRESET each time: what was cut never looks like an end",
    relay="ECONNRESET each time: what was cut never looks like an end",
)
def reset_then_reads(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.reset()
    seen: list = [wait_for_mask(server, ALL), outcome(server.recv, 1)]
    return [*seen, reads_after_a_reset(world, server), mask(server), outcome(server.send, b"x", QUIET)]


@row("the peer's reset, then writes", "ECONNRESET once, then EPIPE")
def reset_then_writes(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.reset()
    wait_for_mask(server, ALL)
    return [outcome(server.send, b"x", QUIET), outcome(server.send, b"x", QUIET), writes(server), mask(server)]


@row(
    "the peer's reset, then SO_ERROR, reads and writes",
    "ECONNRESET once, then 0; reads give 0, writes EPIPE",
    kernel="reads give ECONNRESET",
    relay="reads give ECONNRESET",
)
def reset_then_so_error(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.reset()
    wait_for_mask(server, ALL)
    seen: list = [error_of(server), error_of(server), mask(server), writes(server)]
    return [*seen, reads_after_a_reset(world, server), error_of(server), writes(server)]


@row("the peer's reset with data unread", "the data is gone on TCP, or read first; then ECONNRESET")
def reset_with_data(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.send(b"data")
    world.until(lambda: unread(server) == 4, "the data")
    peer.reset()
    seen = [wait_for_mask(server, ALL)]
    return [*seen, outcome(server.recv, 10) in (b"data", "ECONNRESET"), outcome(server.recv, 10) in (b"", "ECONNRESET")]


@row(
    "the peer's reset while a read waits, a poll() waits, a write waits for room", "each is woken: ECONNRESET, the mask"
)
def reset_wakes(world: World) -> list:
    seen: list = []
    server, peer = world.server_with_peer()
    reading = world.thread(outcome, server.recv, 1)
    reading.join(0.05)
    peer.reset()
    seen += [reading.result()]
    server, peer = world.server_with_peer()
    polling = world.thread(mask, server, select.POLLIN, 20000)
    polling.join(0.05)
    peer.reset()
    seen += [polling.result()]
    server, peer = world.server_with_peer()
    writing = world.thread(outcome, server.sendall, bytes(1 << 24))
    writing.join(0.3)
    peer.reset()
    return [*seen, writing.result()]


@row("getpeername(), getsockname(), shutdown(), SO_ERROR after a reset", "ENOTCONN; the address; ENOTCONN; 0")
def questions_after_a_reset(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.reset()
    wait_for_mask(server, ALL)
    outcome(server.recv, 1)
    seen = [
        outcome(server.getpeername),
        server.getsockname()[1] == world.inbound,
        outcome(server.shutdown, socket.SHUT_WR),
    ]
    state = struct.unpack_from("B", server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))[0]
    return [*seen, state, error_of(server), unread(server)]


@row("SO_LINGER with 0 seconds, then close()", "the peer sees a reset")
def linger_zero(world: World) -> list:
    server, peer = world.server_with_peer()
    linger(server, 1, 0)
    seen = [struct.unpack("ii", server.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))]
    server.close()
    return [list(seen[0]), peer.read_to_end()]


@row("SO_LINGER with 0 seconds, both ends covered", "the peer sees a reset")
def linger_zero_between_us(world: World) -> list:
    client, server = world.ready_pair()
    linger(client, 1, 0)
    client.close()
    return [wait_for_mask(server, ALL), outcome(server.recv, 1), mask(server)]


@row("SO_LINGER with 5 seconds, then close() with much unsent", "all of it arrives, then the end")
def linger_with_time(world: World) -> list:
    server, peer = world.server_with_peer()
    linger(server, 1, 5)
    reading = world.thread(peer.receive, 400000)
    server.sendall(stream(400000))
    seen = [outcome(server.close)]
    return [*seen, reading.result() == stream(400000), peer.read_to_end()]


@row("close() with much unsent, the peer slow to read", "all of it arrives, then the end")
def close_with_unsent(world: World) -> list:
    server, peer = world.server_with_peer()
    server.setblocking(False)
    taken = 0
    while isinstance(sent := outcome(server.send, stream(100000)), int):
        taken += sent
    server.close()
    return [len(peer.receive(taken)) == taken, peer.read_to_end()]


@row(
    "close() with data unread, after a write",
    "the peer sees a reset, and maybe not what was written",
    kernel="the peer sees what was written, then a reset",
    relay="the peer sees what was written, then a reset",
)
def close_with_unread(world: World) -> list:
    server, peer = world.server_with_peer()
    peer.send(b"never read")
    world.until(lambda: unread(server) == 10, "the data")
    server.sendall(b"answer")
    server.close()
    if world.covered:  # on TCP nothing is promised
        assert peer.receive(6) == b"answer"
    return [peer.read_to_end()[1]]


@row("close() with data unread, both ends covered", "the peer sees a reset")
def close_with_unread_between_us(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"never read")
    world.until(lambda: unread(server) == 10, "the data")
    server.close()
    return [wait_for_mask(client, ALL), outcome(client.recv, 1), mask(client)]


@row("the peer closes; writes until they fail", "some succeed, then ECONNRESET or EPIPE; EPIPE for ever")
def writes_to_nobody(world: World) -> list:
    server, peer = world.server_with_peer()
    server.send(b"!")
    peer.receive(1)  # and a TLS server's tickets with it: unread, they would be a reset
    peer.end()
    peer.sock.close()
    seen: list = [outcome(server.recv, 1).decode(), outcome(server.send, b"x", QUIET)]
    failed = world.until(lambda: isinstance(got := outcome(server.send, b"x", QUIET), str) and got, "a failure")
    return [
        *seen,
        failed in ("EPIPE", "ECONNRESET"),
        outcome(server.send, b"x", QUIET),
        outcome(server.recv, 1).decode(),
    ]


@row("close() right after the write of a response, the request read to its last byte", "the response, then the end")
def response_and_close(world: World) -> list:
    seen = []
    for _ in range(5):
        server, peer = world.server_with_peer()
        peer.send(b"request")
        receive(server, 7)
        server.sendall(stream(60000))
        server.close()
        seen.append([peer.receive(60000) == stream(60000), peer.read_to_end()])
    return seen


@row("a process killed by SIGKILL", "what it wrote arrives, then the end")
def killed(world: World) -> list:
    import os
    import signal

    server, peer = world.server_with_peer()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        server.sendall(b"last words")
        os.write(writing, b"!")
        signal.pause()
    server.close()
    os.read(reading, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return [peer.receive(10).decode(), peer.read_to_end()]

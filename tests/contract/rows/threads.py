"""Threads, signal handlers and forks on one connection."""

import ctypes
import functools
import os
import select
import signal
import socket
import struct
import threading

from tests.contract.calls import Handler, call, drain, mask, receive
from tests.contract.row import row
from tests.contract.world import World, child, outcome, stream

THREADS = 32
FRAMES = 40


def frame(writer: int, number: int) -> bytes:
    """Its length, who wrote it, its number, and bytes that follow from them."""
    body = stream(200 + (writer * 977 + number * 131) % 9000)
    return struct.pack("!IHH", len(body), writer, number) + body


def read_frame(sock: socket.socket) -> tuple[int, int] | None:
    """Who wrote the next frame, and its number; None at the end of the stream."""
    head = receive(sock, 8)
    if not head:
        return None
    length, writer, number = struct.unpack("!IHH", head)
    assert head + receive(sock, length) == frame(writer, number), "a frame is torn"
    return writer, number


@row(
    "64 threads on one connection: 32 write frames under a lock, 32 read them under another, both ways at once",
    "every frame whole, once, each writer's in order",
)
def many_threads(world: World) -> list:
    ends = world.ready_pair()
    seen: list[list[tuple[int, int]]] = [[], []]
    writing, reading = [threading.Lock(), threading.Lock()], [threading.Lock(), threading.Lock()]

    def write(end: int, writer: int) -> None:
        for number in range(FRAMES):
            with writing[end]:
                ends[end].sendall(frame(writer, number))

    def read(end: int) -> None:
        while True:
            with reading[end]:
                if (got := read_frame(ends[end])) is None:
                    return
                seen[end].append(got)

    readers = [world.thread(read, end) for end in (0, 1) for _ in range(THREADS // 2)]
    writers = [world.thread(write, end, writer) for end in (0, 1) for writer in range(THREADS // 2)]
    for writer in writers:
        writer.result()
    for end in ends:
        end.shutdown(socket.SHUT_WR)
    for reader in readers:
        reader.result()
    wanted = [(writer, number) for writer in range(THREADS // 2) for number in range(FRAMES)]
    return [[sorted(got) == wanted, sorted(got, key=lambda each: each[0]) == wanted] for got in seen]


@row("two threads in recv() of one socket", "each byte to one of them; both see the end")
def two_readers(world: World) -> list:
    client, server = world.ready_pair()
    readers = [world.thread(drain, server) for _ in range(2)]
    client.sendall(stream(500000))
    client.close()
    return [sum(reader.result() for reader in readers)]


@row("eight threads that write single calls to one socket without a lock", "every call's bytes, whole in short ones")
def writers_without_a_lock(world: World) -> list:
    client, server = world.ready_pair()

    def write(letter: int) -> None:
        for _ in range(200):
            assert client.send(bytes([letter]) * 100) == 100

    reading = world.thread(receive, server, 8 * 200 * 100)
    for writer in [world.thread(write, letter) for letter in range(8)]:
        writer.result()
    got = reading.result()
    whole = all(len(set(got[at : at + 100])) == 1 for at in range(0, len(got), 100))
    return [len(got), whole, sorted(got.count(letter) for letter in range(8))]


@row("a thread that polls while another reads what there is", "no event is lost, no wait hangs")
def poll_beside_a_reader(world: World) -> list:
    client, server = world.ready_pair()
    server.setblocking(False)
    count = [0]

    def work() -> None:
        while True:
            select.select([server], [], [])
            part = outcome(server.recv, 3000)
            if part == b"":
                return
            count[0] += len(part) if isinstance(part, bytes) else 0

    workers = [world.thread(work) for _ in range(4)]
    data = stream(300000)
    for at in range(0, len(data), 5000):
        client.sendall(data[at : at + 5000])
    client.close()
    for worker in workers:
        worker.result()
    return [count[0]]


@row(
    "shutdown(SHUT_RD) by another thread while one waits in recv(), poll(), select(), epoll",
    "each is woken: 0, readable",
)
def shutdown_wakes_readers(world: World) -> list:
    seen = []
    for wait in (wait_recv, wait_poll, wait_select, wait_epoll):
        _, server = world.ready_pair()
        waiting = world.thread(wait, server)
        waiting.join(0.1)
        server.shutdown(socket.SHUT_RD)
        seen += [waiting.result(), outcome(server.recv, 1).decode()]
    return seen


def wait_recv(sock: socket.socket) -> str:
    return repr(outcome(sock.recv, 1))


def wait_poll(sock: socket.socket) -> str:
    return mask(sock, select.POLLIN, 20000)


def wait_select(sock: socket.socket) -> str:
    return str(len(select.select([sock], [], [], 20)[0]))


def wait_epoll(sock: socket.socket) -> str:
    epoll = select.epoll()
    epoll.register(sock, select.EPOLLIN)
    return str(epoll.poll(20)[0][1])


@row("shutdown(SHUT_RDWR) by another thread while one waits in recv(), one in send()", "0; EPIPE")
def shutdown_wakes_both(world: World) -> list:
    _, server = world.ready_pair()
    writing = world.thread(outcome, server.sendall, bytes(1 << 24))
    reading = world.thread(outcome, server.recv, 1)
    writing.join(0.3)
    server.shutdown(socket.SHUT_RDWR)
    return [reading.result().decode(), writing.result()]


@row("close() by another thread while one waits in recv(); then data comes", "the read goes on and gets the data")
def close_under_a_reader(world: World) -> list:
    client, server = world.ready_pair()
    buffer = ctypes.create_string_buffer(10)
    reading = world.thread(call, "recv", server.fileno(), buffer, 10, 0)
    reading.join(0.1)
    server.close()
    client.sendall(b"late")
    return [reading.result(), buffer.value.decode()]


@row(
    "close() by another thread while one waits in recv(); then the peer ends",
    "the read gives 0",
    kernel="an error: how it ended cannot be asked of a closed socket",
    relay="as with kernel",
)
def close_under_a_reader_then_the_end(world: World) -> list:
    server, peer = world.server_with_peer()
    reading = world.thread(call, "recv", server.fileno(), ctypes.create_string_buffer(10), 10, 0)
    reading.join(0.1)
    server.close()
    peer.end()
    assert reading.result() in (("ECONNRESET", "EBADF") if world.covered else (0,))
    return ["it returns"]


@row(
    "close() by another thread, and the number taken again by another connection, while poll() has a time",
    "0 at its end",
)
def close_under_a_poll(world: World) -> list:
    client, server = world.ready_pair()
    polling = world.thread(call, "poll", struct.pack("ihh", server.fileno(), 1, 0), ctypes.c_ulong(1), 400)
    polling.join(0.1)
    server.close()
    other, far = world.ready_pair()
    return [polling.result() in (0, 1), other.send(b"x"), far.recv(1).decode(), client.recv(1).decode()]


@row("a signal handler that writes to the connection the program is writing to", "every byte; the program's in order")
def handler_writes(world: World) -> list:
    client, server = world.ready_pair()
    seen: list[tuple[int, int]] = []

    def read() -> None:
        while (got := read_frame(server)) is not None:
            seen.append(got)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # the handler's thread is this one alone
    reading = world.thread(read)
    handler = Handler(world.folder, signal.SIGALRM, writes=(client.fileno(), frame(99, 0)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    for number in range(300):
        with handler:  # as a program does that must not have a message of its handler's inside another
            client.sendall(frame(1, number))
    world.until(lambda: handler.hits, "a signal")
    signal.setitimer(signal.ITIMER_REAL, 0)
    client.close()
    reading.result()
    marks = [got for got in seen if got[0] == 99]
    return [[got for got in seen if got[0] == 1] == [(1, number) for number in range(300)], len(marks) - handler.hits]


@row("a signal handler, SA_RESTART, that writes while the program waits in recv() of the same socket", "recv() goes on")
def handler_writes_under_a_read(world: World) -> list:
    client, server = world.ready_pair()
    handler = Handler(world.folder, signal.SIGALRM, writes=(client.fileno(), b"tick"))
    answering = world.thread(lambda: server.sendall(b"tock" if receive(server, 4) == b"tick" else b"????"))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    got = call("recv", client.fileno(), buffer := ctypes.create_string_buffer(10), 10, 0)
    answering.result()
    return [got, buffer.value.decode(), handler.hits]


@row("a handler without SA_RESTART while the program waits in recv(), read(), poll(), accept()", "EINTR by each")
def handler_interrupts(world: World) -> list:
    client, _server = world.ready_pair()
    fd, buffer = client.fileno(), ctypes.create_string_buffer(10)
    handler = Handler(world.folder, signal.SIGALRM, restart=False)
    seen = []
    with world.listen() as listener:
        polled = struct.pack("ihh", fd, select.POLLIN, 0)
        calls: list[tuple] = [("recv", fd, buffer, 10, 0), ("read", fd, buffer, 10)]
        calls += [("poll", polled, ctypes.c_ulong(1), 20000), ("accept", listener.fileno(), None, None)]
        for each in calls:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            seen.append(call(*each))
    return [seen, handler.hits]


@row("fork() while other threads transfer on the connection; the child writes one frame", "every frame whole, once")
def fork_among_threads(world: World) -> list:
    client, server = world.ready_pair()
    lock = threading.Lock()
    seen: list[tuple[int, int]] = []

    def write(writer: int) -> None:
        for number in range(100):
            with lock:
                client.sendall(frame(writer, number))

    def read() -> None:
        while (got := read_frame(server)) is not None:
            seen.append(got)

    reading = world.thread(read)
    writers = [world.thread(write, writer) for writer in range(4)]
    for number in range(5):
        with lock, child(functools.partial(client.sendall, frame(50, number))):
            pass
    for writer in writers:
        writer.result()
    client.close()
    reading.result()
    wanted = [(writer, number) for writer in range(4) for number in range(100)] + [(50, number) for number in range(5)]
    return [sorted(seen) == wanted]


@row("fork(): the child reads one half, the parent the other, in turns", "each byte to one of them, in order")
def fork_and_read_in_turns(world: World) -> list:
    client, server = world.ready_pair()
    client.sendall(b"for the parent;for the child;")
    parent = receive(server, 15).decode()

    def work() -> None:
        assert receive(server, 14) == b"for the child;"
        server.sendall(b"thanks")

    with child(work):
        pass
    client.sendall(b"again")
    return [parent, receive(client, 6).decode(), receive(server, 5).decode()]


@row("a thread that makes and closes connections while others transfer on theirs", "nobody is disturbed")
def connections_come_and_go(world: World) -> list:
    pairs = [world.ready_pair() for _ in range(3)]
    data = stream(300000)
    stop = threading.Event()

    def churn() -> int:
        count = 0
        while not stop.is_set() or count < 10:
            here, there = world.ready_pair()
            here.close()
            there.close()
            count += 1
        return count

    churning = world.thread(churn)
    reading = [world.thread(receive, server, len(data)) for _, server in pairs]
    for client, _ in pairs:
        client.sendall(data)
    seen = [each.result() == data for each in reading]
    stop.set()
    return [seen, churning.result() >= 10]


@row("_exit() of a process whose threads are in recv() and send()", "the peer sees what was written, then the end")
def exit_among_threads(world: World) -> list:
    server, peer = world.server_with_peer()
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=server.recv, args=(1,), daemon=True).start()
        server.sendall(b"bye")
        os._exit(0)
    server.close()
    os.waitpid(pid, 0)
    return [peer.receive(3).decode(), peer.read_to_end()]

"""Processes: forks, kills, threads of control that share a connection."""

import ctypes
import os
import signal
import socket
import subprocess
import sys

from tests.contract.row import held_by, row
from tests.contract.world import HOST, World, child

libc = ctypes.CDLL(None, use_errno=True)


def serve(server: socket.socket, words: bytes) -> None:
    """Wait for two bytes, answer, close by ending."""
    assert server.recv(2) == b"go"
    server.sendall(words)


@row("fork() for a connection, close() in the parent", "the peer sees the end when the child is done, not before")
def fork_per_connection(world: World) -> list:
    server, peer = world.server_with_peer()
    with child(lambda: serve(server, b"from the child")):
        server.close()
        peer.send(b"go")
        return [peer.receive(14).decode(), peer.read_to_end()]


@row("fork(), close() in the child; the parent goes on", "nothing, for the peer, until the parent closes too")
def the_childs_copy_ends_first(world: World) -> list:
    server, peer = world.server_with_peer()
    with child(server.close):
        pass
    peer.send(b"go")
    serve(server, b"still here")
    server.close()
    return [peer.receive(10).decode(), peer.read_to_end()]


@row("fork() while the handshake runs; parent and child both write", "both writes arrive, then the end")
def fork_before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with child(lambda: server.sendall(b"xx")):
        if peer.tls:
            peer.tls.handshake()
        server.sendall(b"xx")
        server.close()
        return [peer.receive(4).decode(), peer.read_to_end()]


@row("several forked children accept() on one listener", "each connection goes to one of them and works")
def prefork(world: World) -> list:
    listener = world.listen(world.inbound)

    def work() -> None:
        while True:
            server, _ = listener.accept()
            word = server.recv(5)
            server.sendall(word.upper() if word != b"leave" else b"LEAVE")
            server.close()
            if word == b"leave":
                os._exit(0)

    seen = []
    with child(work), child(work), child(work):
        listener.close()
        for word in [b"hello"] * 6 + [b"leave"] * 3:
            with world.peer(socket.create_connection((HOST, world.inbound))) as peer:
                if peer.tls:
                    peer.tls.handshake()
                peer.send(word)
                seen.append((peer.receive(5).decode(), peer.read_to_end()))
    return seen


@row("SIGKILL for the only process that has the connection", "what was written arrives, then the end")
def killed(world: World) -> list:
    server, peer = world.server_with_peer()
    reading, writing = os.pipe()

    def work() -> None:
        server.sendall(b"last words")
        os.write(writing, b"x")
        signal.pause()

    pid = os.fork()
    if pid == 0:
        work()
    server.close()
    os.read(reading, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return [peer.receive(10).decode(), peer.read_to_end()]


@row("SIGKILL for one of two processes that have it", "nothing for the peer: the other goes on")
def one_of_two_killed(world: World) -> list:
    server, peer = world.server_with_peer()
    pid = os.fork()
    if pid == 0:
        signal.pause()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    peer.send(b"go")
    serve(server, b"other")
    server.close()
    return [peer.receive(5).decode(), peer.read_to_end()]


@row("_exit() with the connection open and a megabyte written", "every byte arrives, then the end")
def exit_behind_much_data(world: World) -> list:
    server, peer = world.server_with_peer()
    with child(lambda: server.sendall(b"m" * (1 << 20))):
        server.close()
        return [peer.read_to_end()]


@row("a double fork and setsid() (a daemon), the first two processes gone", "the grandchild's data, then the end")
def daemonised(world: World) -> list:
    server, peer = world.server_with_peer()

    def work() -> None:
        os.setsid()
        if os.fork() == 0:
            serve(server, b"from the daemon")
            os._exit(0)

    with child(work):
        server.close()
    peer.send(b"go")
    return [peer.receive(15).decode(), peer.read_to_end()]


@row("daemon(0, 0) with a connection open: 0 to 2 are closed, the parent ends", "the connection goes on in the child")
def libc_daemon(world: World) -> list:
    server, peer = world.server_with_peer()
    pid = os.fork()
    if pid == 0:
        assert libc.daemon(0, 0) == 0
        serve(server, b"from the daemon")
        os._exit(0)
    os.waitpid(pid, 0)
    server.close()
    peer.send(b"go")
    return [peer.receive(15).decode(), peer.read_to_end()]


@row("daemon(0, 0) with the connection as descriptors 0, 1 and 2", "they become /dev/null: the peer sees the end")
def daemon_over_the_connection(world: World) -> list:
    server, peer = world.server_with_peer()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        for number in (0, 1, 2):
            os.dup2(server.fileno(), number)
        server.close()
        assert libc.daemon(0, 0) == 0
        os.read(reading, 1)  # it lives until this process ends
        os._exit(0)
    server.close()
    os.waitpid(pid, 0)
    return [peer.read_to_end()]


@row("a multiprocessing.Process with the connection as its argument", "it uses the same connection")
def multiprocessing_fork(world: World) -> list:
    import multiprocessing

    server, peer = world.server_with_peer()
    worker = multiprocessing.get_context("fork").Process(target=serve, args=(server, b"worker"))
    worker.start()
    server.close()
    peer.send(b"go")
    seen = [peer.receive(6).decode(), peer.read_to_end()]
    worker.join()
    return [*seen, worker.exitcode]


@row("system() and popen() writing to an inherited connection", "their words, in order; the end when we close")
def children_of_the_shell(world: World) -> list:
    server, peer = world.server_with_peer()
    os.set_inheritable(server.fileno(), True)
    libc.system(f"printf system >&{server.fileno()}".encode())
    libc.popen.restype = ctypes.c_void_p
    stream = libc.popen(f"cat >&{server.fileno()}".encode(), b"w")
    libc.fputs(b" popen", ctypes.c_void_p(stream))
    libc.pclose(ctypes.c_void_p(stream))
    server.close()
    return [peer.receive(12).decode(), peer.read_to_end()]


@row("a child that was started while the connection was open, with FD_CLOEXEC on it", "does not hold the connection")
def close_on_exec(world: World) -> list:
    server, peer = world.server_with_peer()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as other:
        server.close()
        seen = peer.read_to_end()
        assert other.poll() is None
        assert other.stdin
        other.stdin.close()
    return [seen, other.returncode]


@row("the same without FD_CLOEXEC, which it need not know of", "holds it: no end until that child ends")
def kept_over_exec(world: World) -> list:
    server, peer = world.server_with_peer()
    os.set_inheritable(server.fileno(), True)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as other:
        server.close()
        peer.sock.settimeout(0.3)
        try:
            seen = str(peer.read_to_end())
        except TimeoutError:
            seen = "no end yet"
        peer.sock.settimeout(20)
        assert other.stdin
        other.stdin.close()
        return [seen, peer.read_to_end()]


@row("exec of a program that is told the number of its connection", "it reads and writes there; the end when it ends")
def number_over_exec(world: World) -> list:
    server, peer = world.server_with_peer()
    code = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(s.recv(9).upper())"
    words = [sys.executable, "-c", code, str(server.fileno())]
    with subprocess.Popen(words, pass_fds=[server.fileno()]) as other:
        server.close()
        peer.send(b"new")
        seen = [peer.receive(3).decode(), peer.read_to_end()]
    return [*seen, other.returncode]


@row("close() by the last holder while the handshake runs", "the end at the peer")
def closed_in_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    with child(server.close):
        server.close()
    if peer.tls:
        peer.tls.handshake()
    return [peer.read_to_end()]


for test, does, gives in (
    ("test_a_killed_program_ends_with_close_notify", "SIGKILL for the program", "the end at the peer"),
    ("test_exit_without_close_ends_with_close_notify", "exit() without close()", "the end at the peer"),
    ("test_shutdown_sends_close_notify_and_the_other_direction_goes_on", "shutdown(SHUT_WR)", "half a connection"),
):
    held_by(f"tests/e2e/test_processes.py::{test}", does, gives)

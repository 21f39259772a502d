"""Programs started with a connection: inetd, posix_spawn, vfork."""

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.contract.row import row
from tests.contract.world import Peer, World

libc = ctypes.CDLL(None, use_errno=True)


def compiled(world: World, source: str) -> Path:
    """A small C program, for what Python cannot do by itself."""
    program = world.folder / "program"
    program.with_suffix(".c").write_text(source)
    subprocess.run(["cc", "-D_GNU_SOURCE", "-w", "-o", program, program.with_suffix(".c")], check=True)
    return program


def inetd(server: socket.socket, *words: str, errors: bool = False) -> int:
    """Start a program that knows only its standard input and output, as inetd does; returns its pid."""
    pid = os.fork()
    if pid == 0:
        for number in (0, 1, 2)[: 3 if errors else 2]:
            os.dup2(server.fileno(), number)
        server.close()
        os.execvp(words[0], words)
    server.close()
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def echo(peer: Peer) -> list:
    """Two lines there and back, then our end: what cat makes of it."""
    peer.send(b"first\n")
    first = peer.receive(6)
    peer.send(b"second\n")
    second = peer.receive(7)
    peer.end()
    return [first.decode(), second.decode(), peer.read_to_end()]


@row(
    "inetd style: dup2() to 0, 1 and 2, exec of cat",
    "cat echoes; at the peer's end it ends with 0, and so does the connection",
)
def inetd_cat(world: World) -> list:
    server, peer = world.server_with_peer()
    pid = inetd(server, "cat", errors=True)
    return [*echo(peer), ended(pid)]


@row("inetd style, started before the handshake is done", "the same: cat waits")
def inetd_before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    pid = inetd(server, "cat")
    if peer.tls:
        peer.tls.handshake()
    return [*echo(peer), ended(pid)]


@row("inetd style, a shell script with read and echo", "line by line")
def inetd_shell(world: World) -> list:
    server, peer = world.server_with_peer()
    pid = inetd(server, "sh", "-c", 'while read line; do echo "got $line"; done; echo over')
    peer.send(b"one\ntwo\n")
    peer.end()
    return [peer.receive(21).decode(), peer.read_to_end(), ended(pid)]


@row("inetd style, Python with sys.stdin and getpeername(0)", "lines, and the peer's address")
def inetd_python(world: World) -> list:
    server, peer = world.server_with_peer()
    code = (
        "import socket, sys\n"
        "connection = socket.socket(fileno=0)\n"
        "print(connection.getpeername()[1], sys.stdin.readline().strip().upper(), flush=True)\n"
    )
    pid = inetd(server, sys.executable, "-c", code)
    peer.send(b"word\n")
    port, word = peer.receive(len(f"{peer.sock.getsockname()[1]} WORD\n")).split()
    return [int(port) == peer.sock.getsockname()[1], word.decode(), peer.read_to_end(), ended(pid)]


@row("subprocess.Popen(stdin=connection, stdout=connection): vfork() or fork(), dup2(), exec", "as inetd")
def popen_object(world: World) -> list:
    server, peer = world.server_with_peer()
    with subprocess.Popen(["cat"], stdin=server.fileno(), stdout=server.fileno()) as program:
        server.close()
        seen = echo(peer)
    return [*seen, program.returncode]


def spawn(server: socket.socket, words: list[str], actions: list) -> int:
    pid = os.posix_spawnp(words[0], words, os.environ, file_actions=actions)
    server.close()
    return pid


def to_standard(server: socket.socket) -> list:
    return [(os.POSIX_SPAWN_DUP2, server.fileno(), number) for number in (0, 1)]


@row("posix_spawn() with adddup2 of the connection to 0 and 1", "as inetd")
def spawned(world: World) -> list:
    server, peer = world.server_with_peer()
    pid = spawn(server, ["cat"], to_standard(server))
    return [*echo(peer), ended(pid)]


@row("posix_spawn() with adddup2, before the handshake is done", "as inetd: the program waits")
def spawned_before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    pid = spawn(server, ["cat"], to_standard(server))
    if peer.tls:
        peer.tls.handshake()
    return [*echo(peer), ended(pid)]


@row("posix_spawn() with adddup2 and getpeername(0) in the new program", "the peer's address")
def spawned_asks(world: World) -> list:
    server, peer = world.server_with_peer()
    code = "import socket; s = socket.socket(fileno=0); print(s.family.name, s.getpeername()[1], flush=True)"
    pid = spawn(server, [sys.executable, "-c", code], to_standard(server))
    wanted = f"AF_INET {peer.sock.getsockname()[1]}\n"
    return [peer.receive(len(wanted)).decode() == wanted, peer.read_to_end(), ended(pid)]


@row("posix_spawn() with addclose of an inheritable connection", "the child does not hold it")
def spawned_without(world: World) -> list:
    server, peer = world.server_with_peer()
    os.set_inheritable(server.fileno(), True)
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_CLOSE, server.fileno()), (os.POSIX_SPAWN_DUP2, reading, 0)]
    pid = spawn(server, ["cat"], actions)
    seen = peer.read_to_end()
    os.close(writing)
    return [seen, ended(pid)]


@row("posix_spawn() with addopen onto the connection's number", "the child does not hold it")
def spawned_over(world: World) -> list:
    server, peer = world.server_with_peer()
    os.set_inheritable(server.fileno(), True)
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, server.fileno(), "/dev/null", os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, reading, 0),
    ]
    pid = spawn(server, ["cat"], actions)
    seen = peer.read_to_end()
    os.close(writing)
    return [seen, ended(pid)]


SPAWN_CLOSEFROM = """
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
extern char **environ;
int main(int count, char **words)
{
    posix_spawn_file_actions_t actions;
    int status = 1, connection = atoi(words[1]);
    pid_t pid;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, connection, 0);
    posix_spawn_file_actions_adddup2(&actions, connection, 1);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    if (posix_spawnp(&pid, words[2], &actions, NULL, words + 2, environ))
        return 2;
    posix_spawn_file_actions_destroy(&actions);
    close(connection);
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}
"""


@row("posix_spawn() with adddup2, then addclosefrom_np(3)", "as inetd")
def spawned_with_closefrom(world: World) -> list:
    server, peer = world.server_with_peer()
    program = compiled(world, SPAWN_CLOSEFROM)
    words = [str(program), str(server.fileno()), "cat"]
    with subprocess.Popen(words, pass_fds=[server.fileno()]) as running:
        server.close()
        seen = echo(peer)
    return [*seen, running.returncode]


VFORK = """
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char **words)
{
    int status = 1, connection = atoi(words[1]);
    pid_t pid = vfork();
    if (pid == 0) {
        dup2(connection, 0);
        dup2(connection, 1);
        close(connection);
        execvp(words[2], words + 2);
        _exit(127);
    }
    if (write(connection, "parent\\n", 7) != 7)
        return 2;
    close(connection);
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}
"""


@row("vfork(), dup2(), close() and exec; the parent writes afterwards", "both write; the end when both are done")
def vforked(world: World) -> list:
    server, peer = world.server_with_peer()
    program = compiled(world, VFORK)
    words = [str(program), str(server.fileno()), "cat"]
    with subprocess.Popen(words, pass_fds=[server.fileno()]) as running:
        server.close()
        seen = [peer.receive(7).decode(), *echo(peer)]
    return [*seen, running.returncode]


@row("vfork(), dup2() and exec before the handshake is done", "the same: both wait")
def vforked_before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    program = compiled(world, VFORK)
    words = [str(program), str(server.fileno()), "cat"]
    with subprocess.Popen(words, pass_fds=[server.fileno()]) as running:
        server.close()
        if peer.tls:
            peer.tls.handshake()
        seen = [peer.receive(7).decode(), *echo(peer)]
    return [*seen, running.returncode]

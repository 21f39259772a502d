"""Other roots, users and namespaces."""

import ctypes
import encodings.idna  # noqa: F401 - for host names; from another root or user it could not be imported
import json
import os
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.contract.row import row
from tests.contract.world import HOST, World, outcome
from tests.e2e.harness import PATIENCE

libc = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_USERS, NEW_PIDS, NEW_NET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
NOBODY = 65534
BOTH_WAYS = [True, "there and back", [0, "end"]]


def done_in_child(work: Callable[[], Any]) -> Any:
    """What `work` gives, done in a child: what it does to itself is not undone."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = json.dumps(work())
        except BaseException:
            answer = json.dumps(traceback.format_exc(limit=-3))
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return json.loads(answer)


def serve(world: World) -> list:
    """Accept a foreign client and a covered one, and see that everything arrives."""
    client, server = world.ready_pair()
    client.close()
    ended = server.recv(1) == b""
    server, peer = world.server_with_peer()
    peer.send(b"there")
    assert server.recv(5) == b"there"
    server.sendall(b"there and back")
    server.close()
    return [ended, peer.receive(14).decode(), peer.read_to_end()]


def allowed(result: int) -> None:
    assert result == 0, os.strerror(ctypes.get_errno())


def setuid(world: World) -> list:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    return serve(world)


@row("setgid(), setuid(): another user than that of the agent", "connections as before", root=True)
def another_user(world: World) -> list:
    keep_certificates(world)
    seen = done_in_child(lambda: setuid(world))
    assert seen == BOTH_WAYS, seen
    return seen


def keep_certificates(world: World) -> Any:
    """The foreign peer reads its certificates before the root changes: a pair that waits for a connection."""
    from tests.e2e import peer

    if world.covered:
        context = peer.client_context(world.ca)
        world.peer = lambda raw, **_: _peer(raw, context)  # type: ignore[method-assign]
    return world


def _peer(raw: socket.socket, context: Any) -> Any:
    from tests.contract.world import Peer
    from tests.e2e.peer import TlsPeer

    raw.settimeout(PATIENCE)
    return Peer(raw, TlsPeer(raw, context, hostname="localhost"))


@row("chroot() to an empty directory; then setuid() too", "connections as before", root=True)
def another_root(world: World) -> list:
    keep_certificates(world)

    def work() -> list:
        os.chroot(world.folder)
        os.chdir("/")
        return [*serve(world), *setuid(world)]

    seen = done_in_child(work)
    assert seen == BOTH_WAYS * 2, seen
    return seen


RAW_CLOSE = """
int raw_close(int fd)
{
#if defined __x86_64__
    long result = 3;
    __asm__ volatile("syscall" : "+a"(result) : "D"((long)fd) : "rcx", "r11", "memory");
#elif defined __aarch64__
    register long result __asm__("x0") = fd, number __asm__("x8") = 57;
    __asm__ volatile("svc 0" : "+r"(result) : "r"(number) : "memory");
#endif
    return (int)result;
}
"""


def lose_channel(world: World) -> None:
    """Close every descriptor above the program's share, past libc."""
    library = world.folder / "raw.so"
    library.with_suffix(".c").write_text(RAW_CLOSE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, library.with_suffix(".c")], check=True)
    base = int(os.environ.get("KTLS_FD_BASE", "30000"))
    raw = ctypes.CDLL(str(library))
    for number in range(base, 2 * base + 16):
        raw.raw_close(number)


@row("closing every descriptor there is, past libc", "new connections work: the channel to the agent is made anew")
def channel_lost(world: World) -> list:
    lose_channel(world)
    return serve(world)


@row(
    "the same, then chroot(): the agent cannot be reached",
    "connections as before",
    root=True,
    kernel="connect() fails with ECONNREFUSED, accept() with ECONNABORTED; nothing goes out in clear",
    relay="as with kernel",
)
def channel_lost_in_another_root(world: World) -> list:
    inbound, outbound = world.listen(world.inbound), world.listen(world.outbound)

    def work() -> list:
        lose_channel(world)
        os.chroot(world.folder)
        client = socket.socket()
        seen = [outcome(client.connect, (HOST, world.outbound)), outcome(client.send, b"in clear")]
        accepted = outcome(inbound.accept)
        return [*seen, accepted if isinstance(accepted, str) else "accepted"]

    with socket.create_connection((HOST, world.inbound)):
        seen = done_in_child(work)
    raw, _ = outbound.accept()
    raw.settimeout(PATIENCE)
    arrived = outcome(raw.recv, 100)
    if world.covered:
        assert (seen, arrived) == (["ECONNREFUSED", "EPIPE", "ECONNABORTED"], b""), (seen, arrived)
    else:
        assert (seen, arrived) == ([None, 8, "accepted"], b"in clear"), (seen, arrived)
    return ["as said"]


def loopback_up() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@row("unshare(CLONE_NEWNET), connections there; setns() back, connections here", "connections in both", root=True)
def another_network(world: World) -> list:
    def work() -> list:
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        seen = serve(world)
        server, peer = world.server_with_peer()  # one that was made here, and goes on there
        allowed(libc.unshare(NEW_NET))
        loopback_up()
        seen += serve(world)
        server.sendall(b"from elsewhere")
        server.close()
        assert [peer.receive(14), peer.read_to_end()] == [b"from elsewhere", (0, "end")]
        allowed(libc.setns(here, NEW_NET))
        return seen + serve(world)

    seen = done_in_child(work)
    assert seen == BOTH_WAYS * 3, seen
    return seen


@row("unshare(CLONE_NEWNS), another file system over /tmp", "connections as before", root=True)
def another_mount_namespace(world: World) -> list:
    keep_certificates(world)

    def work() -> list:
        allowed(libc.unshare(NEW_MOUNTS))
        allowed(libc.mount(b"none", b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
        allowed(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
        return serve(world)

    seen = done_in_child(work)
    assert seen == BOTH_WAYS, seen
    return seen


@row("unshare(CLONE_NEWUSER): root of a namespace of its own", "connections as before")
def another_user_namespace(world: World) -> list:
    def work() -> list:
        user, group = os.geteuid(), os.getegid()
        allowed(libc.unshare(NEW_USERS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        return serve(world)

    seen = done_in_child(work)
    assert seen == BOTH_WAYS, seen
    return seen


@row(
    "unshare(CLONE_NEWPID): process 1 of a namespace has the connection, and is killed", "the end comes then", root=True
)
def another_process_namespace(world: World) -> list:
    def work() -> list:
        allowed(libc.unshare(NEW_PIDS))
        server, peer = world.server_with_peer()
        reading, writing = os.pipe()
        first = os.fork()
        if first == 0:
            os.write(writing, str(os.getpid()).encode())
            server.sendall(server.recv(2))
            signal.pause()
        server.close()
        peer.send(b"go")
        seen = [os.read(reading, 10).decode(), peer.receive(2).decode()]
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        return [*seen, peer.read_to_end()]

    return done_in_child(work)

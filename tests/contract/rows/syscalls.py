"""System calls past libc's functions: syscall(2), io_uring, an instruction of the program's own."""

import ctypes
import errno
import os
import socket
import struct
import subprocess

from tests.contract.row import held_by, row
from tests.contract.world import World

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "poll": 7, "ioctl": 16, "readv": 19, "dup": 32, "dup2": 33, "sendfile": 40,
        "sendto": 44, "recvfrom": 45, "shutdown": 48, "getsockname": 51, "getpeername": 52, "getsockopt": 55,
        "fcntl": 72, "epoll_wait": 232, "splice": 275, "accept4": 288, "io_uring_setup": 425, "getpid": 39,
    },
}  # fmt: skip
NUMBER = NUMBERS[os.uname().machine]


def call(name: str, *arguments: object) -> int | str:
    """What syscall() gives, or the name of its errno."""
    ctypes.set_errno(0)
    result = libc.syscall(NUMBER[name], *arguments)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result


@row("syscall(SYS_read), SYS_write and their families", "as the functions")
def reads_and_writes(world: World) -> list:
    client, server = world.ready_pair()
    buffer = ctypes.create_string_buffer(100)
    seen: list = [call("write", client.fileno(), b"one", 3), call("read", server.fileno(), buffer, 100), buffer.value]
    seen += [call("sendto", server.fileno(), b"two!", 4, 0, None, 0)]
    seen += [call("recvfrom", client.fileno(), buffer, 100, socket.MSG_PEEK, None, None), buffer.raw[:4]]
    seen += [call("recvfrom", client.fileno(), buffer, 100, 0, None, None)]
    seen += [call("recvfrom", client.fileno(), buffer, 100, socket.MSG_DONTWAIT, None, None)]
    return [part.decode() if isinstance(part, bytes) else part for part in seen]


@row("syscall(SYS_read) on a connection whose handshake is not done", "waits, or EAGAIN; then the data")
def a_read_before_the_handshake(world: World) -> list:
    server, peer = world.server_with_peer(handshake=False)
    buffer = ctypes.create_string_buffer(100)
    early = call("recvfrom", server.fileno(), buffer, 100, socket.MSG_DONTWAIT, None, None)
    reading = world.thread(call, "read", server.fileno(), buffer, 100)
    if peer.tls:
        peer.tls.handshake()
    peer.send(b"late")
    return [early, reading.result(), buffer.value.decode()]


@row("syscall(SYS_close): the peer sees the end", "end of file at the peer, once the last copy is closed")
def closes(world: World) -> list:
    server, peer = world.server_with_peer()
    copy = call("dup", server.fileno())
    seen: list = [call("close", server.detach())]
    assert isinstance(copy, int)
    seen += [call("write", copy, b"still here", 10), peer.receive(10).decode(), call("close", copy)]
    return [*seen, peer.read_to_end(), call("close", copy)]


@row("syscall(SYS_shutdown), then SYS_write", "end of file at the peer; EPIPE")
def ends_a_direction(world: World) -> list:
    server, peer = world.server_with_peer()
    seen = [call("shutdown", server.fileno(), socket.SHUT_WR)]
    return [*seen, peer.read_to_end(), call("sendto", server.fileno(), b"x", 1, socket.MSG_NOSIGNAL, None, 0)]


@row("syscall(SYS_sendfile), SYS_splice", "as the functions")
def from_files_and_pipes(world: World) -> list:
    client, server = world.ready_pair()
    file = world.folder / "file"
    file.write_bytes(b"f" * 1000)
    with file.open("rb") as source:
        sent = call("sendfile", client.fileno(), source.fileno(), None, 1000)
    got = b""
    while len(got) < 1000:
        got += server.recv(2000)
    reading, writing = os.pipe()
    client.send(b"s" * 10)
    moved = call("splice", server.fileno(), None, writing, None, 10, 0)
    return [sent, got == b"f" * 1000, moved, os.read(reading, 100).decode()]


@row("syscall(SYS_getpeername), SYS_getsockopt, SYS_fcntl, SYS_ioctl", "as the functions")
def questions(world: World) -> list:
    client, server = world.ready_pair()
    address, length = ctypes.create_string_buffer(16), ctypes.c_int(16)
    seen: list = [call("getpeername", client.fileno(), address, ctypes.byref(length))]
    seen.append(struct.unpack("!H", address.raw[2:4])[0] == world.both)
    value, length = ctypes.c_int(-1), ctypes.c_int(4)
    seen += [
        call(
            "getsockopt", client.fileno(), socket.SOL_SOCKET, socket.SO_TYPE, ctypes.byref(value), ctypes.byref(length)
        )
    ]
    seen.append(value.value)
    server.send(b"1234567")
    world.until(lambda: client.recv(10, socket.MSG_PEEK), "data")
    waiting = ctypes.c_int(0)
    return [*seen, call("ioctl", client.fileno(), 0x541B, ctypes.byref(waiting)), waiting.value]


@row("syscall(SYS_dup2) over a connection", "closes what was there: its peer sees the end")
def duplicates_over(world: World) -> list:
    server, peer = world.server_with_peer()
    null = os.open(os.devnull, os.O_RDWR)
    return [call("dup2", null, server.fileno()) == server.fileno(), peer.read_to_end()]


@row(
    "io_uring_setup()",
    "a ring, where the kernel has it",
    kernel="ENOSYS, so that programs fall back to epoll",
    relay="ENOSYS, so that programs fall back to epoll",
)
def io_uring(world: World) -> str:
    given = call("io_uring_setup", 1, ctypes.create_string_buffer(120))
    source = world.folder / "raw.c"
    source.write_text(RAW)
    program = world.folder / "raw"
    subprocess.run(["cc", "-o", program, source], check=True)
    by_instruction = subprocess.run([program, "ring"], check=False).returncode
    if world.covered:
        assert (given, by_instruction) == ("ENOSYS", errno.ENOSYS)
    return "looked at"


RAW = """
#include <stdlib.h>
#include <string.h>
static long raw(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
int main(int count, char **words)
{
    char room[200] = {0};
    if (count == 2 && !strcmp(words[1], "ring")) {
        long result = raw(425, 1, (long)room, 0);
        return result < 0 ? (int)-result : 0;
    }
    long got = raw(0, 0, (long)room, 100);
    for (long i = 0; i < got; i++)
        room[i] ^= 0x20;
    return raw(1, 1, (long)room, got) == got ? 0 : 1;
}
"""


@row("a read and a write by an instruction of its own, on an open connection", "as the functions")
def by_instruction(world: World) -> list:
    source = world.folder / "raw.c"
    source.write_text(RAW)
    program = world.folder / "raw"
    subprocess.run(["cc", "-o", program, source], check=True)
    server, peer = world.server_with_peer()
    peer.send(b"hello")
    world.until(lambda: server.recv(10, socket.MSG_PEEK), "data")
    status = subprocess.run([program], stdin=server.fileno(), stdout=server.fileno(), check=False).returncode
    return [status, peer.receive(5).decode()]


held_by(
    "tests/shim/test_children.py::test_every_way_to_start_a_program_is_judged",
    "exec or posix_spawn of a program that cannot be covered (static, Go, another libc, set-user-ID, ...)",
    "it runs",
    kernel="EPERM, said on standard error and in the agent's report (docs/coverage.md)",
    relay="as with kernel",
)
held_by(
    "tests/shim/test_children.py::test_system_and_popen_cover_their_shell_whatever_the_environment_became",
    "system() and popen() after clearenv()",
    "a shell",
)

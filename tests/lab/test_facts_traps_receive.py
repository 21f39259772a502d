"""The kernel's traps on the receiving side. The number is that of the trap in the list kept for the design."""

import ctypes
import errno
import os
import select
import socket
import struct
import subprocess

import pytest

from ktls import kernel
from tests.lab.harness import (
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    TICKET,
    Blocked,
    error_of,
    libc,
    libc_result,
    needs_rekey,
    no_rekey,
    poll,
    queued_in,
    until,
)

pytestmark = pytest.mark.qemu


def test_01_a_control_record_is_a_sticky_eio_and_poll_goes_on_saying_in(link):
    link.put(HANDSHAKE, TICKET)
    for _ in range(3):
        assert poll(link.end) == select.POLLIN
        assert error_of(link.recv) == errno.EIO
    assert poll(link.end) == select.POLLIN
    assert link.record() == (HANDSHAKE, TICKET)
    assert poll(link.end) == 0
    assert error_of(link.recv) == errno.EAGAIN


@pytest.mark.parametrize(("space", "taken"), [(0, False), (8, False), (16, False), (17, True), (24, True)])
def test_01_only_17_bytes_of_control_space_take_it(link, space, taken):
    link.put(HANDSHAKE, TICKET)
    result = error_of(link.end.recvmsg, 100, space, socket.MSG_DONTWAIT)
    assert result == (0 if taken else errno.EIO)


@needs_rekey
def test_02_data_and_key_update_in_one_recv_leave_poll_silent(link13):
    link13.put(DATA, b"data")
    link13.put(HANDSHAKE, KEY_UPDATE)
    assert link13.recv() == b"data"
    assert poll(link13.end) == 0  # though the KeyUpdate is unread
    assert link13.end.recvmsg(1, 24, socket.MSG_DONTWAIT | socket.MSG_PEEK)[0] == KEY_UPDATE[:1]
    assert error_of(link13.recv) == errno.EIO  # whoever asks is told


@no_rekey
def test_03_without_rekey_a_key_update_ends_the_connection(link13):
    link13.put(HANDSHAKE, KEY_UPDATE)
    assert link13.record() == (HANDSHAKE, KEY_UPDATE)
    rx = link13.updated_from_peer()
    link13.put(DATA, b"data")
    assert error_of(link13.end.setsockopt, kernel.SOL_TLS, kernel.TLS_RX, rx.crypto_info()) == errno.EBUSY
    assert error_of(link13.recv) == errno.EBADMSG  # never garbage


def test_06_fin_without_close_notify_is_an_ordinary_end_of_file(link):
    link.put(DATA, b"data")
    link.peer_finishes()
    assert link.recv() == b"data"
    assert link.recv() == b""
    assert link.end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_06_so_is_fin_in_the_middle_of_a_record(link):
    link.put_raw(link.seal(DATA, b"cut in two")[:-4])
    link.peer_finishes()
    assert link.recv() == b""
    assert link.end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_09_a_thread_in_recv_at_the_install_gets_ciphertext(connect, version):
    link = connect(version, keyed=False)
    reader = Blocked(lambda: link.end.recv(5), "tcp_recvmsg")
    link.install()
    record = link.put(DATA, b"not to be seen like this")
    assert reader.join() == record[:5]
    # Nothing more may be read: the bytes have gone from under the ULP, and Linux 6.1.176 dies of it (CVE-2025-38616).


HEADER_ERRORS = [
    pytest.param("1709090020", errno.EINVAL, id="version"),
    pytest.param("1703037fff", errno.EMSGSIZE, id="long"),
    pytest.param("1703030001", errno.EBADMSG, id="short"),
]


@pytest.mark.parametrize(("header", "number"), HEADER_ERRORS)
def test_10_an_error_in_a_header_is_told_once_and_then_never(link, header, number):
    link.put_raw(bytes.fromhex(header) + bytes(8))
    assert poll(link.end) & select.POLLERR
    assert error_of(link.recv) == number
    link.put(DATA, b"a good record comes too late")
    assert error_of(link.recv) == errno.EAGAIN
    assert link.end.send(b"goes out again") == 14
    assert link.take().data == b"goes out again"
    link.peer.shutdown(socket.SHUT_WR)
    until(lambda: error_of(link.recv) == 0, "the end of file")
    assert link.recv() == b""  # as if nothing had happened


def test_10_a_bad_mac_is_told_every_time(link):
    record = bytearray(link.seal(DATA, b"data"))
    record[-1] ^= 1
    link.put_raw(bytes(record))
    assert [error_of(link.recv) for _ in range(3)] == [errno.EBADMSG] * 3
    assert error_of(link.end.send, b"x") == errno.EBADMSG


def test_11_recvmsg_reports_flags_and_control_messages_that_nobody_asked_for(link):
    link.put(DATA, b"one")
    data, control, flags, _ = link.end.recvmsg(10)
    assert (data, control) == (b"one", [])
    assert flags & socket.MSG_EOR
    assert flags & socket.MSG_CTRUNC
    link.put(DATA, b"two")
    data, control, flags, _ = link.end.recvmsg(10, 100)
    assert control == [(kernel.SOL_TLS, kernel.TLS_GET_RECORD_TYPE, bytes([DATA]))]
    assert not flags & socket.MSG_CTRUNC


def test_12_fionread_counts_ciphertext(link13):
    link13.put(DATA, b"0123456789")
    assert queued_in(link13.end) == 5 + 10 + 1 + 16
    assert len(link13.recv(100, socket.MSG_PEEK)) == 10  # the correct count


def test_12_fionread_is_0_for_what_is_decrypted_already(link):
    link.put(DATA, b"0123456789")
    assert link.recv(4) == b"0123"
    assert queued_in(link.end) == 0
    assert link.recv() == b"456789"


class _Message(ctypes.Structure):
    _fields_ = [("message", ctypes.c_uint64 * 7), ("length", ctypes.c_uint)]


def _recvmmsg(sock, count):
    """recvmmsg() into buffers of 16 bytes: how many messages there were."""
    buffers = [ctypes.create_string_buffer(16) for _ in range(count)]
    vectors = [ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(each), 16)) for each in buffers]
    messages = (_Message * count)()
    for message, vector in zip(messages, vectors, strict=True):
        packed = struct.pack("@PIPNPNi", 0, 0, ctypes.addressof(vector), 1, 0, 0, 0)
        ctypes.memmove(ctypes.addressof(message), packed, len(packed))
    return libc_result(libc.recvmmsg(sock.fileno(), messages, count, socket.MSG_DONTWAIT, None))


def test_13_recvmmsg_turns_the_second_records_eio_into_a_socket_error(link):
    link.put(DATA, b"data")
    link.put(HANDSHAKE, TICKET)
    assert _recvmmsg(link.end, 2) == 1
    assert poll(link.end) & select.POLLERR
    assert error_of(link.end.send, b"x") == errno.EIO


# glibc's stdio calls its hidden __read: an interposed read() is passed by.
INTERPOSER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
ssize_t read(int fd, void *to, size_t size)
{
    ssize_t (*real)(int, void *, size_t) = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    write(2, "interposed", 10);
    return real(fd, to, size);
}
"""
PROGRAM = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words)
{
    char line[64];
    if (count > 1 && !strcmp(words[1], "read"))
        return read(0, line, sizeof line) <= 0;
    FILE *stream = fdopen(0, "r");
    if (!stream || !fgets(line, sizeof line, stream)) {
        perror("fgets");
        return 1;
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def stdio_program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stdio")
    for name, source, options in (("read.so", INTERPOSER, ["-shared", "-fPIC"]), ("program", PROGRAM, [])):
        (folder / f"{name}.c").write_text(source)
        words = ["cc", "-O1", "-w", *options, "-o", folder / name, folder / f"{name}.c", "-ldl"]
        subprocess.run(words, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(("call", "shown"), [("read", True), ("fgets", False)])
def test_17_stdio_does_not_go_through_an_interposed_read(link13, stdio_program, call, shown):
    link13.put(DATA, b"a line\n")
    environment = {**os.environ, "LD_PRELOAD": str(stdio_program / "read.so")}
    done = subprocess.run(
        [stdio_program / "program", call], stdin=link13.end, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert (b"interposed" in done.stderr) == shown


def test_17_so_stdio_meets_the_eio(link13, stdio_program):
    link13.put(HANDSHAKE, TICKET)
    done = subprocess.run([stdio_program / "program"], stdin=link13.end, capture_output=True, check=False)
    assert b"Input/output error" in done.stderr


def test_18_whoever_has_the_descriptor_can_ask_for_the_live_keys(link):
    keys = link.tx.crypto_info()
    got = link.end.getsockopt(kernel.SOL_TLS, kernel.TLS_TX, len(keys))
    assert got == keys
    assert link.tx.key in got
    got = link.end.getsockopt(kernel.SOL_TLS, kernel.TLS_RX, len(keys))
    assert link.rx.key in got

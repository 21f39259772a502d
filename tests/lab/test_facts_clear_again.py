"""Back to clear text on the same connection: ways that do not work, and the transplant to a fresh socket, which does.

TCP_REPAIR makes close() silent and lets a new socket be put in the old one's place, sequence numbers and all (as CRIU
restores connections). The new one never had the ULP. Both sides must be quiet meanwhile.
"""

import ctypes
import errno
import os
import socket
import struct

import pytest

from ktls import kernel
from ktls.alerts import CLOSE_NOTIFY as CLOSING
from ktls.ciphers import Version
from tests.lab.harness import (
    ALERT,
    CLOSE_NOTIFY,
    DATA,
    drop_privileges_and,
    error_of,
    libc,
    libc_result,
    make_keys,
    queued_in,
    queued_out,
    receiving,
    seal_any,
    until,
    zerocopy_receive,
)

pytestmark = pytest.mark.qemu

TCP = socket.IPPROTO_TCP
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS, TCP_TIMESTAMP, TCP_REPAIR_WINDOW = (
    19,
    20,
    21,
    22,
    24,
    29,
)
QUEUES = (2, 1)  # TCP_SEND_QUEUE, TCP_RECV_QUEUE
OPTION_MSS, OPTION_WINDOW, OPTION_SACK, OPTION_TIMESTAMP = 2, 3, 4, 8
INFO_TIMESTAMPS, INFO_SACK, INFO_WSCALE = 1, 2, 4


def transplant(old):
    """Close the socket without a word, and return a fresh one in its place."""
    assert queued_in(old) == queued_out(old) == 0
    local, remote = old.getsockname(), old.getpeername()
    old.setsockopt(TCP, TCP_REPAIR, 1)
    sequences = []
    for queue in QUEUES:
        old.setsockopt(TCP, TCP_REPAIR_QUEUE, queue)
        sequences.append(old.getsockopt(TCP, TCP_QUEUE_SEQ, 4))
    window = old.getsockopt(TCP, TCP_REPAIR_WINDOW, 20)
    timestamp = old.getsockopt(TCP, TCP_TIMESTAMP)
    segment = old.getsockopt(TCP, socket.TCP_MAXSEG)
    _, _, _, _, _, flags, scales = old.getsockopt(TCP, socket.TCP_INFO, 7)
    old.close()

    new = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    new.setsockopt(TCP, TCP_REPAIR, 1)  # it also lets the port be bound again; SO_REUSEADDR after it would undo that
    for queue, sequence in zip(QUEUES, sequences, strict=True):
        new.setsockopt(TCP, TCP_REPAIR_QUEUE, queue)
        new.setsockopt(TCP, TCP_QUEUE_SEQ, sequence)
    new.bind(local)
    try:
        new.connect(remote)
    except OSError:
        new.close()
        raise
    options = [(OPTION_MSS, segment)]
    if flags & INFO_WSCALE:
        options.append((OPTION_WINDOW, scales & 15 | scales >> 4 << 16))
    if flags & INFO_SACK:
        options.append((OPTION_SACK, 0))
    if flags & INFO_TIMESTAMPS:
        options.append((OPTION_TIMESTAMP, 0))
    new.setsockopt(TCP, TCP_REPAIR_OPTIONS, b"".join(struct.pack("=II", *option) for option in options))
    if flags & INFO_TIMESTAMPS:
        new.setsockopt(TCP, TCP_TIMESTAMP, timestamp)
    new.setsockopt(TCP, TCP_REPAIR_WINDOW, window)
    new.setsockopt(TCP, TCP_REPAIR, 0)
    return new


def end_tls(link):
    """Exchange close_notify."""
    kernel.send_alert(link.end, CLOSING)
    assert link.take().data == CLOSE_NOTIFY
    link.put(ALERT, CLOSE_NOTIFY)
    assert link.record() == (ALERT, CLOSE_NOTIFY)
    until(lambda: queued_out(link.end) == 0, "acknowledgements")


def test_transplant_clear_text_both_ways_and_tls_again(link):
    link.put(DATA, b"secret")
    assert link.recv() == b"secret"
    end_tls(link)
    names = link.end.getsockname(), link.end.getpeername()
    link.end = transplant(link.end)
    assert (link.end.getsockname(), link.end.getpeername()) == names
    assert not kernel.is_attached(link.end)

    link.end.sendall(b"clear out")
    assert link.peer.recv(100) == b"clear out"
    link.peer.sendall(b"clear in")
    assert link.end.recv(100) == b"clear in"

    kernel.attach(link.end)
    keys = make_keys(link.suite, link.version)
    kernel.install_tx(link.end, keys)
    kernel.install_rx(link.end, link.rx)
    link.peer.sendall(seal_any(link.from_peer, DATA, b"secret again"))
    assert link.end.recv(100) == b"secret again"
    link.end.send(b"and back")
    assert link.peer.recv(5)[0] == DATA


def test_transplant_of_both_ends(connect, version):
    link = connect(version)
    keys = receiving(link.tx)
    kernel.attach(link.peer)
    kernel.install_rx(link.peer, keys)
    kernel.install_tx(link.peer, link.from_peer)
    link.peer.settimeout(None)
    link.end.send(b"in TLS")
    assert link.peer.recv(100) == b"in TLS"
    until(lambda: queued_out(link.end) == 0, "acknowledgements")
    link.end, link.peer = transplant(link.end), transplant(link.peer)
    link.end.sendall(b"in clear")
    assert link.peer.recv(100) == b"in clear"
    link.peer.sendall(b"x" * 100_000)
    got = 0
    while got < 100_000:
        got += len(link.end.recv(65536))
    link.end.shutdown(socket.SHUT_WR)
    assert link.peer.recv(1) == b""


def test_transplant_takes_the_number_of_the_descriptor(link):
    number = link.end.fileno()
    end_tls(link)
    fresh = transplant(link.end)
    os.dup2(fresh.fileno(), number)
    fresh.close()
    link.end = socket.socket(fileno=number)
    link.end.sendall(b"under the old number")
    assert link.peer.recv(100) == b"under the old number"


def test_transplant_while_another_copy_is_open_finds_the_place_taken(link):
    with link.end.dup():
        end_tls(link)
        assert error_of(transplant, link.end) == errno.EADDRNOTAVAIL


def test_repair_mode_needs_a_privilege(link):
    assert drop_privileges_and(lambda: link.end.setsockopt(TCP, TCP_REPAIR, 1)) == errno.EPERM


# --- other ways ------------------------------------------------------------------------------------------------------


def test_one_direction_alone_leaves_the_other_clear(connect, version):
    link = connect(version, keyed=False)
    kernel.install_tx(link.end, link.tx)
    link.end.send(b"sealed")
    assert link.take().data == b"sealed"
    link.put_raw(b"clear")
    assert link.recv() == b"clear"


def test_receiving_alone_leaves_sending_clear(connect, version):
    link = connect(version, keyed=False)
    kernel.install_rx(link.end, link.rx)
    link.put(DATA, b"sealed")
    assert link.recv() == b"sealed"
    link.end.send(b"clear")
    assert link.peer.recv(100) == b"clear"


def test_clear_bytes_behind_close_notify_can_be_had_by_a_side_door(link):
    link.put(ALERT, CLOSE_NOTIFY)
    link.put_raw(b"PLAIN AFTER TLS")
    assert link.record() == (ALERT, CLOSE_NOTIFY)
    assert zerocopy_receive(link.end) == b"PLAIN AFTER TLS"


# --- sockmap ---------------------------------------------------------------------------------------------------------

SYS_BPF = {"x86_64": 321, "aarch64": 280}
BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_MAP_TYPE_SOCKMAP = 0, 2, 15


def bpf(command, attributes):
    number = SYS_BPF.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, "the number of bpf() is not known here")
    return libc_result(libc.syscall(number, command, attributes, len(attributes)))


@pytest.fixture
def sockmap():
    """A file descriptor of an empty sockmap of one place."""
    try:
        number = bpf(BPF_MAP_CREATE, struct.pack("=IIIII60x", BPF_MAP_TYPE_SOCKMAP, 4, 4, 1, 0))
    except OSError as error:
        pytest.skip(f"no sockmap in this kernel: {error.strerror}")
    yield number
    os.close(number)


def add(sockmap, sock):
    key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(struct.pack("=I", sock.fileno()), 4)
    addresses = ctypes.addressof(key), ctypes.addressof(value)
    return error_of(bpf, BPF_MAP_UPDATE_ELEM, struct.pack("=IIQQQ48x", sockmap, 0, *addresses, 0))


def test_a_socket_with_the_ulp_cannot_go_into_a_sockmap(sockmap, connect):
    assert add(sockmap, connect(keyed=False).end) == errno.EINVAL


def test_a_socket_of_a_sockmap_is_refused_or_encrypts(sockmap, connect):
    link = connect(Version.TLS13, keyed=False, attached=False)
    assert add(sockmap, link.end) == 0
    if error_of(link.end.setsockopt, TCP, kernel.TCP_ULP, b"tls"):
        return
    refused = error_of(link.end.setsockopt, kernel.SOL_TLS, kernel.TLS_TX, link.tx.crypto_info())
    assert refused in (0, errno.EINVAL)  # refused since mid-2026
    if not refused:
        link.end.send(b"never in clear")
        assert link.take().data == b"never in clear"

"""Options of the socket: attaching, keys in their order, what is queued before them, and what else a socket can do."""

import errno
import os
import socket
import struct

import pytest

from ktls import kernel
from ktls.ciphers import Version
from tests.lab.harness import (
    BY_VERSION,
    DATA,
    ONE_EACH,
    Blocked,
    counter,
    drop_privileges_and,
    error_of,
    make_keys,
    receiving,
)

pytestmark = pytest.mark.qemu
TLS_TX_ZEROCOPY_RO, TLS_RX_EXPECT_NO_PAD = 3, 4
TCP_REPAIR = 19


def set_keys(sock, option, info):
    return error_of(sock.setsockopt, kernel.SOL_TLS, option, info)


def get(sock, option, length):
    return error_of(sock.getsockopt, kernel.SOL_TLS, option, length)


# --- attach ----------------------------------------------------------------------------------------------------------


def test_an_attached_socket_is_as_it_was_until_keys_come(connect):
    link = connect(keyed=False)
    link.put_raw(b"clear in")
    assert link.recv() == b"clear in"
    link.end.send(b"clear out")
    assert link.peer.recv(100) == b"clear out"


def test_every_copy_of_a_socket_is_attached(connect):
    link = connect(keyed=False)
    with link.end.dup() as copy:
        assert copy.getsockopt(socket.IPPROTO_TCP, kernel.TCP_ULP, 16).startswith(b"tls\0")


def test_without_a_protocol_its_name_is_empty(connect):
    link = connect(keyed=False, attached=False)
    assert link.end.getsockopt(socket.IPPROTO_TCP, kernel.TCP_ULP, 16) == b""


def test_a_listener_cannot_carry_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert error_of(server.setsockopt, 6, kernel.TCP_ULP, b"tls") == errno.ENOTCONN


def test_options_before_the_protocol_are_enoprotoopt(connect):
    link = connect(keyed=False, attached=False)
    assert set_keys(link.end, kernel.TLS_TX, link.tx.crypto_info()) == errno.ENOPROTOOPT


def test_an_unknown_protocol_is_enoent(connect):
    link = connect(keyed=False, attached=False)
    assert error_of(link.end.setsockopt, socket.IPPROTO_TCP, kernel.TCP_ULP, b"nonesuch") == errno.ENOENT


# --- keys ------------------------------------------------------------------------------------------------------------

WRONG = {
    "short": lambda info: info[:-1],
    "long": lambda info: info + b"\0",
    "header": lambda info: info[:4],
    "empty": lambda info: b"",
    "TLS 1.1": lambda info: struct.pack("=H", 0x0302) + info[2:],
    "unknown cipher": lambda info: info[:2] + struct.pack("=H", 99) + info[4:],
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("option", [kernel.TLS_TX, kernel.TLS_RX], ids=["tx", "rx"])
def test_keys_that_are_wrong_are_einval_and_may_be_tried_again(connect, version, option, change):
    link = connect(version, keyed=False)
    keys = link.tx if option == kernel.TLS_TX else link.rx
    assert set_keys(link.end, option, change(keys.crypto_info())) == errno.EINVAL
    assert set_keys(link.end, option, keys.crypto_info()) == 0


def test_both_directions_must_agree(connect):
    link = connect(Version.TLS13, keyed=False)
    kernel.install_rx(link.end, link.rx)
    for version, suite in ONE_EACH:
        if suite.kernel is not link.suite.kernel or version is not link.version:
            assert set_keys(link.end, kernel.TLS_TX, make_keys(suite, version).crypto_info()) == errno.EINVAL
    kernel.install_tx(link.end, link.tx)


@pytest.mark.parametrize("first", [kernel.TLS_TX, kernel.TLS_RX], ids=["tx first", "rx first"])
def test_there_is_no_order_of_directions(connect, version, first):
    link = connect(version, keyed=False)
    for option in (first, 3 - first):
        keys = link.tx if option == kernel.TLS_TX else link.rx
        assert set_keys(link.end, option, keys.crypto_info()) == 0
    link.put(DATA, b"in")
    assert link.recv() == b"in"


def test_a_child_may_set_keys_and_the_parent_use_them(connect, version):
    link = connect(version, keyed=False)
    assert drop_privileges_and(link.install) == 0
    link.put(DATA, b"in")
    assert link.recv() == b"in"
    link.end.send(b"out")
    assert link.take().data == b"out"


def test_asking_for_keys_takes_the_exact_length(link):
    size = link.suite.kernel.size
    assert [get(link.end, kernel.TLS_TX, length) for length in (4, size)] == [0, 0]
    assert [get(link.end, kernel.TLS_TX, length) for length in (3, 5, size - 1, size + 1)] == [errno.EINVAL] * 4


def test_asking_for_keys_that_are_not_there_is_ebusy(connect):
    link = connect(keyed=False)
    assert [get(link.end, option, 4) for option in (kernel.TLS_TX, kernel.TLS_RX)] == [errno.EBUSY] * 2


def test_asking_tells_the_current_number(link):
    link.end.send(b"one")
    link.end.send(b"two")
    info = link.end.getsockopt(kernel.SOL_TLS, kernel.TLS_TX, link.suite.kernel.size)
    assert int.from_bytes(info[-8:]) == 2


def test_no_pad_is_for_tls13_with_keys_only(connect, version):
    link = connect(version, keyed=False)
    assert error_of(link.end.setsockopt, kernel.SOL_TLS, TLS_RX_EXPECT_NO_PAD, 1) == errno.EINVAL
    link.install()
    expected = 0 if version is Version.TLS13 else errno.EINVAL
    assert error_of(link.end.setsockopt, kernel.SOL_TLS, TLS_RX_EXPECT_NO_PAD, 1) == expected


def test_read_only_zerocopy_is_taken_without_a_device(link):
    assert error_of(link.end.setsockopt, kernel.SOL_TLS, TLS_TX_ZEROCOPY_RO, 1) == 0
    assert error_of(link.end.setsockopt, kernel.SOL_TLS, TLS_TX_ZEROCOPY_RO, 2) == errno.EINVAL


def test_connections_are_counted(connect):
    before = counter("TlsCurrTxSw"), counter("TlsTxSw")
    connect()
    assert (counter("TlsCurrTxSw"), counter("TlsTxSw")) == (before[0] + 1, before[1] + 1)


# --- what is queued before -------------------------------------------------------------------------------------------


def test_whole_records_queued_before_the_keys_are_decrypted(connect, version):
    link = connect(version, keyed=False)
    link.put(DATA, b"one")
    link.put(DATA, b"two")
    link.install()
    assert link.recv() == b"onetwo"


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_part_of_a_record_queued_before_the_keys_is_completed(connect, version, cut):
    link = connect(version, keyed=False)
    record = link.seal(DATA, b"in two parts")
    link.put_raw(record[:cut])
    link.install()
    assert error_of(link.recv) == errno.EAGAIN
    link.put_raw(record[cut:])
    assert link.recv() == b"in two parts"


@pytest.mark.parametrize("taken", [1, 3, 5, 20])
def test_a_record_of_which_a_byte_was_taken_is_lost_for_good(connect, version, taken):
    link = connect(version, keyed=False)
    link.put(DATA, b"0123456789" * 10)
    assert len(link.recv(taken)) == taken
    link.install()
    # Random bytes stand where the header should: whichever error it is, or a wait for a record that never ends.
    assert error_of(link.recv) in (errno.EINVAL, errno.EMSGSIZE, errno.EBADMSG, errno.EAGAIN)


def test_a_reader_that_comes_after_the_keys_is_served(link):
    reader = Blocked(lambda: link.end.recv(100), "tls_sw_recvmsg")
    link.put(DATA, b"data")
    assert reader.join() == b"data"


def test_two_blocked_readers_are_both_served(link):
    readers = [Blocked(lambda: link.end.recv(3), "tls_") for _ in range(2)]
    link.put(DATA, b"onetwo")
    assert {reader.join() for reader in readers} == {b"one", b"two"}


# --- other features --------------------------------------------------------------------------------------------------


def test_options_of_tcp_work_on(link):
    for level, option in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.IPPROTO_TCP, socket.TCP_CORK),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    ):
        link.end.setsockopt(level, option, 1)
        assert link.end.getsockopt(level, option) == 1
    link.end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    link.end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1234)
    assert link.end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1234


def test_repair_needs_a_privilege(link):
    assert drop_privileges_and(lambda: link.end.setsockopt(6, TCP_REPAIR, 1)) == errno.EPERM
    link.end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    link.end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)


def test_a_small_receive_buffer_still_holds_a_record(connect, version):
    link = connect(version)
    link.end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)  # the least that Linux allows
    record = link.seal(DATA, b"x" * 16384)
    reader = Blocked(lambda: link.end.recv(16384, socket.MSG_WAITALL), "tls_sw_recvmsg")
    link.peer.sendall(record)
    assert reader.join() == b"x" * 16384


def test_ipv6_works_as_ipv4_does(version):
    suite = BY_VERSION[version]
    keys = make_keys(suite, version)
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
        socket.create_connection(server.getsockname()[:2]) as one,
        server.accept()[0] as other,
    ):
        for sock in (one, other):
            kernel.attach(sock)
        kernel.install_tx(one, keys)
        kernel.install_rx(other, receiving(keys))
        one.send(b"over IPv6")
        assert other.recv(100) == b"over IPv6"
        assert os.get_blocking(other.fileno())

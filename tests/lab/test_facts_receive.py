"""Flags of reads, and what errors of records look like from outside."""

import ctypes
import errno
import os
import select
import socket

import pytest

from ktls import kernel
from tests.lab.harness import (
    ABORT,
    DATA,
    HANDSHAKE,
    TICKET,
    Blocked,
    counter,
    error_of,
    libc,
    libc_result,
    poll,
    until,
    zerocopy_receive,
)

pytestmark = pytest.mark.qemu
SO_TIMESTAMP, TCP_INQ = 29, 36


# --- flags -----------------------------------------------------------------------------------------------------------


def test_trunc_is_ignored_and_drops_nothing(link):
    link.put(DATA, b"0123456789")
    assert link.recv(4, socket.MSG_TRUNC) == b"0123"
    assert link.recv() == b"456789"


def test_oob_is_ignored(link):
    assert error_of(link.recv, 1, socket.MSG_OOB) == errno.EAGAIN
    link.put(DATA, b"x")
    assert link.recv(1, socket.MSG_OOB) == b"x"


def test_the_error_queue_is_tcps(link):
    link.put(DATA, b"not from here")
    assert error_of(link.recv, 100, socket.MSG_ERRQUEUE) == errno.EAGAIN
    assert link.recv() == b"not from here"


def test_waitall_waits_over_records(link):
    link.put(DATA, b"01234")
    reader = Blocked(lambda: link.end.recv(10, socket.MSG_WAITALL), "tls_sw_recvmsg")
    link.put(DATA, b"56789")
    assert reader.join() == b"0123456789"


def test_peek_takes_nothing(link):
    link.put(DATA, b"data")
    assert [link.recv(100, socket.MSG_PEEK) for _ in range(2)] == [b"data"] * 2
    assert link.recv() == b"data"


def test_a_bad_address_is_efault(link):
    link.put(DATA, b"data")

    def read_to_nowhere():
        libc_result(libc.recv(link.end.fileno(), ctypes.c_void_p(1), 100, socket.MSG_DONTWAIT))

    assert error_of(read_to_nowhere) == errno.EFAULT


def test_rcvlowat_is_compared_with_ciphertext(link):
    link.end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 8)
    link.put(DATA, b"four")
    assert poll(link.end) & select.POLLIN
    assert link.recv() == b"four"


@pytest.mark.parametrize(("level", "option"), [(socket.SOL_SOCKET, SO_TIMESTAMP), (socket.IPPROTO_TCP, TCP_INQ)])
def test_control_messages_of_tcp_are_not_delivered(link, level, option):
    link.end.setsockopt(level, option, 1)
    link.put(DATA, b"data")
    _, control, _, _ = link.end.recvmsg(100, 200)
    assert control == [(kernel.SOL_TLS, kernel.TLS_GET_RECORD_TYPE, bytes([DATA]))]


def test_zerocopy_receive_goes_behind_tls_and_eats_raw_bytes(connect, version):
    link = connect(version, keyed=False)
    kernel.install_tx(link.end, link.tx)  # our own direction only; what is read is not TLS's yet
    link.put_raw(b"raw")
    assert zerocopy_receive(link.end) == b"raw"


# --- errors ----------------------------------------------------------------------------------------------------------


def test_a_bad_mac_is_told_to_poll_after_the_first_read_and_counted(link):
    before = counter("TlsDecryptError")
    link.put_raw(link.seal(DATA, b"data")[:-1] + b"?")
    assert not poll(link.end) & select.POLLERR
    assert error_of(link.recv) == errno.EBADMSG
    assert poll(link.end) & select.POLLERR
    assert counter("TlsDecryptError") > before


def test_a_bad_mac_after_good_data_does_not_take_the_data(link):
    link.put(DATA, b"good")
    link.put_raw(link.seal(DATA, b"bad")[:-1] + b"?")
    assert link.recv() == b"good"
    assert error_of(link.recv) == errno.EBADMSG


def test_a_replayed_record_does_not_decrypt(link):
    record = link.put(DATA, b"once")
    assert link.recv() == b"once"
    link.put_raw(record)
    assert error_of(link.recv) == errno.EBADMSG


@pytest.mark.parametrize(
    ("text", "number"),
    [(b"220 mail.example ESMTP\r\n", errno.EINVAL), (b"PLAIN TEXT ON THE WIRE", errno.EMSGSIZE)],
)
def test_text_on_the_wire_is_a_broken_header(link, text, number):
    link.put_raw(text)
    assert error_of(link.recv) == number


def test_a_change_cipher_spec_in_clear_kills_tls13(link13):
    link13.put_raw(bytes.fromhex("140303000101"))
    assert error_of(link13.recv) == errno.EBADMSG
    assert error_of(link13.recv) == errno.EAGAIN


def test_part_of_a_record_is_nothing_yet(link):
    record = link.seal(DATA, b"in two parts")
    link.put_raw(record[:20])
    assert error_of(link.recv) == errno.EAGAIN
    link.put_raw(record[20:])
    assert link.recv() == b"in two parts"


def test_a_reset_after_data(link):
    link.put(DATA, b"data")
    assert link.recv() == b"data"
    link.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    link.peer.close()
    until(lambda: poll(link.end) & select.POLLHUP, "the reset")
    assert error_of(link.recv) == errno.ECONNRESET
    assert error_of(link.end.send, b"x") == 0  # not EPIPE, as on plain TCP: whoever writes must remember the reset


def test_records_that_come_while_nobody_reads_are_all_there(cipher_link):
    sent = [os.urandom(1 + 70 * number) for number in range(20)]
    for data in sent:
        cipher_link.put(DATA, data)
    got = b""
    while len(got) < sum(map(len, sent)):
        got += cipher_link.recv()
    assert got == b"".join(sent)


def test_data_after_a_control_record_keeps_its_order(cipher_link):
    cipher_link.put(DATA, b"one")
    cipher_link.put(HANDSHAKE, TICKET)
    cipher_link.put(DATA, b"two")
    assert [cipher_link.record() for _ in range(3)] == [(DATA, b"one"), (HANDSHAKE, TICKET), (DATA, b"two")]


# --- nonces and numbers ----------------------------------------------------------------------------------------------


def test_the_explicit_nonce_of_tls12_counts_up_from_where_it_was_set(connect, version):
    link = connect(version)
    nonces = []
    for _ in range(3):
        link.end.send(b"x")
        nonces.append(link.take_record()[5:13])
    first = int.from_bytes(link.tx.explicit_nonce)
    if link.suite.explicit_nonce_length:
        assert [int.from_bytes(nonce) for nonce in nonces] == [(first + step) % 2**64 for step in range(3)]
        info = link.end.getsockopt(kernel.SOL_TLS, kernel.TLS_TX, link.suite.kernel.size)
        assert int.from_bytes(info[4:12]) == (first + 3) % 2**64


def test_keys_begin_at_any_sequence_number(connect, version):
    link = connect(version, keyed=False)
    kernel.install_rx(link.end, link.rx.at(2**40))
    link.put_at(2**40, DATA, b"far along")
    assert link.recv() == b"far along"
    assert kernel.query(link.end, sequences=True).rx_sequence == 2**40 + 1


def test_the_explicit_nonce_of_received_records_is_not_compared(link12):
    link12.put_type(DATA, b"with a nonce of its own")
    assert link12.recv() == b"with a nonce of its own"


def test_the_last_sequence_number_can_be_set_and_kills_the_socket(connect, version):
    link = connect(version, keyed=False)
    kernel.install_tx(link.end, link.tx.at(2**64 - 1))
    assert error_of(link.end.send, b"x") == errno.EBADMSG
    assert error_of(link.end.send, b"x") == errno.EBADMSG

"""The sending side: records, flags, limits, files and pipes."""

import array
import errno
import os
import select
import socket
import struct

import pytest

from ktls import kernel
from ktls.probe import TLS_TX_MAX_PAYLOAD_LEN
from tests.lab.harness import (
    ABORT,
    ALERT,
    CAPABILITIES,
    CLOSE_NOTIFY,
    DATA,
    HANDSHAKE,
    TICKET,
    error_of,
    poll,
    until,
)

pytestmark = pytest.mark.qemu
MSG_ZEROCOPY, MSG_FASTOPEN, SO_ZEROCOPY = 0x4000000, 0x20000000, 60

payload_option = pytest.mark.skipif(not CAPABILITIES.max_payload_option, reason="no TLS_TX_MAX_PAYLOAD_LEN here")


def lengths(link, total):
    """Lengths of the records that the next `total` bytes come in."""
    got: list[int] = []
    while sum(got) < total:
        got.append(len(link.take().data))
    return got


# --- records ---------------------------------------------------------------------------------------------------------


def test_each_write_is_a_record_whatever_nagle_and_cork_say(link):
    link.end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    link.end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    for _ in range(5):
        link.end.send(b"x")
    link.end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    assert lengths(link, 5) == [1] * 5


def test_a_long_write_is_cut_into_full_records(link):
    assert link.end.send(bytes(40000)) == 40000
    assert lengths(link, 40000) == [16384, 16384, 7232]


def test_a_vector_is_one_record(link):
    assert os.writev(link.end.fileno(), [b"one", b"two", b"three"]) == 11
    assert link.take().data == b"onetwothree"


def test_records_are_never_padded(link13):
    link13.end.send(b"x")
    assert len(link13.take_record()) == 5 + 1 + 1 + 16


def test_nothing_is_sent_for_nothing(link):
    assert link.end.send(b"") == 0
    empty_alert = (kernel.SOL_TLS, kernel.TLS_SET_RECORD_TYPE, bytes([ALERT]))
    assert link.end.sendmsg([b""], [empty_alert]) == 0
    link.end.send(b"first on the wire")
    assert link.take().data == b"first on the wire"


@payload_option
def test_records_can_be_limited(link):
    link.end.setsockopt(kernel.SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN, struct.pack("=H", 1000))
    link.end.send(bytes(2500))
    # The limit counts TLS 1.3's byte of type, or not: either way the peer's record_size_limit is kept.
    got = lengths(link, 2500)
    assert max(got) <= 1000
    assert len(got) == 3


@payload_option
@pytest.mark.parametrize("length", [62, 16385])
def test_the_limit_of_records_has_limits(link, length):
    option = struct.pack("=H", length)
    assert error_of(link.end.setsockopt, kernel.SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN, option) == errno.EINVAL


@payload_option
def test_the_limit_cannot_change_under_an_open_record(link):
    link.end.send(b"open", socket.MSG_MORE)
    option = struct.pack("=H", 1000)
    assert error_of(link.end.setsockopt, kernel.SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN, option) == errno.EBUSY


def test_unknown_options_are_enoprotoopt(link):
    assert error_of(link.end.setsockopt, kernel.SOL_TLS, 77, 1) == errno.ENOPROTOOPT


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [socket.MSG_OOB, MSG_ZEROCOPY, socket.MSG_CONFIRM, socket.MSG_DONTROUTE, MSG_FASTOPEN])
def test_flags_that_tls_does_not_know_are_refused(link, flag):
    assert error_of(link.end.send, b"x", flag) == errno.EOPNOTSUPP


@pytest.mark.parametrize("flag", [socket.MSG_DONTWAIT, socket.MSG_NOSIGNAL])
def test_flags_that_it_knows(link, flag):
    assert link.end.send(b"x", flag) == 1
    assert link.take().data == b"x"


def test_zerocopy_can_be_switched_on_and_not_used(link):
    link.end.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    assert error_of(link.end.send, b"x", MSG_ZEROCOPY) == errno.EOPNOTSUPP


def test_flags_are_tcps_until_keys_come(connect):
    link = connect(keyed=False)
    assert link.end.send(b"x", socket.MSG_OOB) == 1


def test_eor_is_refused_or_ends_a_record(link):
    refused = error_of(link.end.send, b"x", socket.MSG_EOR)
    assert refused in (0, errno.EOPNOTSUPP)  # since 6.6 it is taken
    if not refused:
        assert link.take().data == b"x"
        assert error_of(link.end.send, b"x", socket.MSG_EOR | socket.MSG_MORE) == errno.EINVAL


# --- control messages ------------------------------------------------------------------------------------------------


def typed(number):
    return [(kernel.SOL_TLS, kernel.TLS_SET_RECORD_TYPE, bytes([number]))]


def test_a_control_message_makes_a_control_record(link):
    link.end.sendmsg([TICKET], typed(HANDSHAKE))
    taken = link.take()
    assert (taken.content_type, taken.data) == (HANDSHAKE, TICKET)


def test_a_control_record_cannot_be_left_open(link):
    assert error_of(link.end.sendmsg, [TICKET], typed(HANDSHAKE), socket.MSG_MORE) == errno.EINVAL


def test_a_control_message_of_another_kind_is_einval(link):
    for level, kind in ((kernel.SOL_TLS, 9), (socket.SOL_SOCKET, 37), (socket.IPPROTO_IP, 1)):
        result = error_of(link.end.sendmsg, [b"x"], [(level, kind, bytes(4))])
        assert result == errno.EINVAL


def test_passing_a_descriptor_is_einval(link):
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]).tobytes())
    assert error_of(link.end.sendmsg, [b"x"], [rights]) == errno.EINVAL


# --- files and pipes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [30000, 99999])
def test_sendfile_sends_a_file_of_any_length(link, tmp_path, count):
    content = os.urandom(30000)
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert os.sendfile(link.end.fileno(), file.fileno(), 0, count) == 30000
    link.end.sendmsg([CLOSE_NOTIFY], typed(ALERT))  # before 6.5 the last record waits for more when count is too large
    got = b""
    while (taken := link.take()).content_type is DATA:
        got += taken.data
    assert got == content


def test_splice_from_a_pipe(link):
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    assert os.splice(reading, link.end.fileno(), 11) == 11
    assert link.take().data == b"from a pipe"
    os.close(reading)
    os.close(writing)


# --- room and ends ---------------------------------------------------------------------------------------------------


def test_a_full_buffer_is_eagain_and_loses_nothing(link):
    sent = 0
    while not error_of(link.end.send, bytes(16384), socket.MSG_DONTWAIT):
        sent += 16384
    # The last write may have been taken in part, or as the record that waits: what counts is what comes.
    link.end.settimeout(0)
    got = len(link.take().data)
    until(lambda: select.select([], [link.end], [], 0)[1] or poll(link.peer), "room")
    while got < sent:
        got += len(link.take().data)
    assert got >= sent


def test_after_a_reset_every_write_fails(link):
    link.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    link.peer.close()
    until(lambda: poll(link.end) & select.POLLHUP, "the reset")
    failures = [error_of(link.end.send, b"x", socket.MSG_NOSIGNAL) for _ in range(3)]
    assert failures[0] in (errno.ECONNRESET, errno.EPIPE)
    assert all(failures)

"""Ending TCP connections that others hold too."""

import socket
import struct

import pytest

from ktls.closing import aborts, close_tcp, hung_up, shut, stands

RST = struct.pack("=ii", 1, 0)


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        theirs.settimeout(20)
        yield ours, theirs


def test_so_linger_without_seconds_asks_for_a_rst(pair):
    ours, theirs = pair
    assert not aborts(ours)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 5))
    assert not aborts(ours)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    assert aborts(ours)
    close_tcp(ours)
    with pytest.raises(ConnectionResetError):
        theirs.recv(1)


def test_what_is_shut_or_closed_already_is_no_error(pair):
    ours, theirs = pair
    theirs.close()
    assert ours.recv(1) == b""
    for _ in range(2):
        shut(ours, socket.SHUT_RDWR)
    for _ in range(2):
        close_tcp(ours)


def test_a_connection_stands_from_connect_to_reset(pair):
    ours, theirs = pair
    with socket.socket() as fresh:
        assert not stands(fresh)
    assert stands(ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    theirs.close()
    with pytest.raises(ConnectionResetError):
        ours.recv(1)
    assert not stands(ours)


def test_the_other_end_of_a_unix_pair_is_gone_when_it_is_closed_and_not_when_it_has_ended_one_direction():
    ours, theirs = socket.socketpair()
    with ours:
        assert not hung_up(ours)
        theirs.shutdown(socket.SHUT_WR)
        assert not hung_up(ours)
        theirs.close()
        assert hung_up(ours)

"""Ends of real TCP connections, as this kernel tells them."""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.tcp_ends import TcpEnd, cookie_of, listen_for_ends, parse_ends, take_end_messages

PATIENCE = 20.0  # seconds until a wait is given up as failed
ABORT = struct.pack("=ii", 1, 0)


@pytest.fixture
def ends() -> Iterator[socket.socket]:
    with listen_for_ends() as sock:
        yield sock


@pytest.fixture
def pair(ends: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Who connected, who accepted; made while somebody listens already."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
        server, _ = listener.accept()
    with client, server:
        yield client, server


def told(ends: socket.socket, *cookies: int | None) -> list[TcpEnd]:
    """Wait for the ends of these, in their order."""
    wanted = [cookie for cookie in cookies if cookie is not None]
    assert len(wanted) == len(cookies)
    found: dict[int, TcpEnd] = {}
    deadline = time.monotonic() + PATIENCE
    while len(found) < len(wanted):
        assert time.monotonic() < deadline, f"only {found} in {PATIENCE} s"
        for datagram in take_end_messages(ends, 64):
            found |= {end.cookie: end for end in parse_ends(datagram, wanted)}
        time.sleep(0.01)
    return [found[cookie] for cookie in wanted]


def test_bytes_are_counted_without_syn_and_fin_when_both_close(ends, pair):
    client, server = pair
    cookies = cookie_of(client, ends), cookie_of(server, ends)
    client.sendall(b"x" * 1000)
    assert len(server.recv(2000)) == 1000
    server.sendall(b"y" * 10)
    assert len(client.recv(2000)) == 10
    client.close()
    assert server.recv(1) == b""
    server.close()
    of_client, of_server = told(ends, *cookies)
    assert (of_client.delivered(connected=True), of_server.delivered(connected=False)) == (1000, 10)
    assert of_client.in_order(connected=True)
    assert of_server.in_order(connected=False)
    assert of_client.received in (10, 11)  # with the FIN, if it came before the socket was in FIN-WAIT-2
    assert of_server.received == 1001


def test_a_reset_by_the_peer_is_no_end_in_order(ends, pair):
    client, server = pair
    cookie = cookie_of(client, ends)
    client.sendall(b"x" * 5)
    assert server.recv(5) == b"x" * 5
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    client.close()
    (end,) = told(ends, cookie)
    assert end.delivered(connected=True) == 5
    assert not end.in_order(connected=True)


def test_a_reset_of_ours_is_no_end_in_order_either(ends, pair):
    client, _ = pair
    cookie = cookie_of(client, ends)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    client.close()
    (end,) = told(ends, cookie)
    assert not end.in_order(connected=True)


def test_a_connection_over_ipv6_is_told_too(ends):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        cookie = cookie_of(client, ends)
        listener.accept()[0].close()
        client.close()
    assert told(ends, cookie)


def test_a_flood_of_other_ends_is_survived(ends):
    """The queue overflows and the kernel drops some; who listens is not hurt."""
    ends.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        for _ in range(50):
            with socket.create_connection(listener.getsockname()):
                listener.accept()[0].close()
    assert len(take_end_messages(ends, 1000)) < 100  # of the hundred
    assert take_end_messages(ends, 1000) == []


NAMESPACE = """
import array, socket, sys
with socket.socket(fileno=int(sys.argv[1])) as channel, socket.socket() as elsewhere:
    channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [elsewhere.fileno()]))])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network namespace")
def test_a_socket_of_another_network_namespace_is_not_waited_for(ends):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = ["unshare", "--net", sys.executable, "-c", NAMESPACE, str(theirs.fileno())]
        subprocess.run(command, pass_fds=[theirs.fileno()], check=True)
        _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
    with socket.socket(fileno=fd) as elsewhere:
        assert cookie_of(elsewhere, ends) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data):
    known = range(1 << 62)
    assert all(end.cookie in known for end in parse_ends(data, known))
    header = struct.pack("=IHHII", 16 + len(data), 20, 0, 0, 0)
    assert all(end.cookie in known for end in parse_ends(header + data, known))

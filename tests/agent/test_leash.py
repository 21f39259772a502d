"""The leash without a kernel that has kTLS: what is done and in which order (the lab runs the real thing)."""

import asyncio
import fcntl
import socket
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ktls.agent import leash as module
from ktls.agent.leash import CLOSE_NOTIFY, KEY_UPDATE, Leash, tcp_bytes
from ktls.agent.wire import Wire
from ktls.ciphers import SUITES, Role, Version
from ktls.errors import AgentProtocolError
from ktls.kernel import Record
from ktls.poller import Poller
from ktls.records import ContentType
from ktls.session import RxKeys, Session, TxKeys
from tests.agent.agent_process import tcp_pair


class Kernel:
    """Writes down what it is told; `full` times it says that there is no room."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.full = 0

    def _room(self) -> None:
        if self.full:
            self.full -= 1
            raise BlockingIOError

    def install_rx(self, _: socket.socket, keys: RxKeys) -> None:
        self.calls.append(("rx", keys.secret))

    def install_tx(self, _: socket.socket, keys: TxKeys) -> None:
        self.calls.append(("tx", keys.secret))

    def send_record(self, _: socket.socket, kind: ContentType, data: bytes) -> int:
        self._room()
        self.calls.append(("send", (kind, data)))
        return len(data)

    def send_alert(self, _: socket.socket, alert: object) -> None:
        self._room()
        self.calls.append(("alert", alert))

    def drain_control_records(self, _: socket.socket) -> tuple[Record, ...]:
        self.calls.append(("drain", None))
        return ()

    def read_record(self, sock: socket.socket) -> Record:
        data = sock.recv(1000, socket.MSG_DONTWAIT)
        return Record(ContentType.APPLICATION_DATA if data else None, data, True)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    fake = Kernel()
    monkeypatch.setattr(module, "kernel", fake)
    return fake


SUITE = next(suite for suite in SUITES if suite.iana_name == "TLS_AES_128_GCM_SHA256")
SESSION = Session(
    role=Role.CLIENT,
    version=Version.TLS13,
    suite=SUITE,
    tx=TxKeys.from_secret(b"t" * 32, SUITE),
    rx=RxKeys.from_secret(b"r" * 32, SUITE),
)


async def nobody(_: int) -> bool:
    return False


async def in_thread(work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


async def held(
    during: Callable[[socket.socket, socket.socket], Awaitable[None]], others: Callable[[int], Awaitable[bool]] = nobody
) -> socket.socket:
    """Hold a leash while `during` (given A and the peer's socket) runs; returns R, for what is to be known of it."""
    client, server = tcp_pair()
    client.setblocking(True)
    server.setblocking(False)
    a, b = socket.socketpair()
    poller = Poller(asyncio.get_running_loop())
    wire = Wire(client, poller)
    leash = asyncio.create_task(
        Leash(wire, b, SESSION, poller, held=others, in_thread=in_thread, speaks_tls=lambda: None).run()
    )
    try:
        await during(a, server)
        async with asyncio.timeout(20):
            await leash
    finally:
        wire.release()
        poller.close()
        for sock in (a, b, server, client):
            sock.close()
    return client


async def closed_by_peer(peer: socket.socket) -> None:
    """Wait for our FIN, and answer it with the peer's."""
    async with asyncio.timeout(20):
        assert await asyncio.get_running_loop().sock_recv(peer, 1000) == b""
    peer.close()


@pytest.mark.parametrize("unread", [False, True], ids=["end of file", "ECONNRESET"])
async def test_when_a_is_gone_control_records_are_drained_and_close_notify_is_sent(
    kernel: Kernel, unread: bool
) -> None:
    async def program(a: socket.socket, peer: socket.socket) -> None:
        if unread:
            a.setblocking(False)
        a.close()
        await closed_by_peer(peer)

    await held(program)
    assert kernel.calls == [("drain", None), ("alert", CLOSE_NOTIFY)]


async def test_close_notify_waits_for_room_behind_the_programs_data(kernel: Kernel) -> None:
    kernel.full = 3

    async def program(a: socket.socket, peer: socket.socket) -> None:
        a.close()
        await closed_by_peer(peer)

    await held(program)
    assert kernel.calls[-1] == ("alert", CLOSE_NOTIFY)


async def test_close_notify_waits_until_no_other_process_has_the_socket(kernel: Kernel, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "HOLDER_WAIT", (0.001, 0.004))
    answers, asked = [True, True, True, False], []

    async def others(inode: int) -> bool:
        asked.append(inode)
        assert kernel.calls == []
        return answers.pop(0)

    async def program(a: socket.socket, peer: socket.socket) -> None:
        a.close()
        await closed_by_peer(peer)

    await held(program, others)
    assert len(asked) == 4
    assert len(set(asked)) == 1
    assert asked[0] > 0


async def wait_for_calls(kernel: Kernel, count: int) -> None:
    async with asyncio.timeout(20):
        while len(kernel.calls) < count:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("request_update", [0, 1, 2])
async def test_a_key_update_installs_the_next_keys_and_answers_under_the_old_one(
    kernel: Kernel, request_update: int
) -> None:
    rx, tx = SESSION.rx.updated(), SESSION.tx.updated()
    answer = [("send", (ContentType.HANDSHAKE, KEY_UPDATE)), ("tx", tx.secret)] if request_update else []

    async def program(a: socket.socket, peer: socket.socket) -> None:
        a.sendall(b"U" + bytes([request_update, 0, 0]))
        await wait_for_calls(kernel, 1 + len(answer))
        a.sendall(b"U\0\0\0")
        await wait_for_calls(kernel, 2 + len(answer))
        a.close()
        await closed_by_peer(peer)

    kernel.full = 1
    await held(program)
    assert kernel.calls[:-2] == [("rx", rx.secret), *answer, ("rx", rx.updated().secret)]


async def test_the_request_stays_in_the_leash_until_the_new_keys_are_in(kernel: Kernel, monkeypatch: Any) -> None:
    """A writer in the program waits while SIOCOUTQ(A) is not 0."""
    seen: list[bool] = []

    async def program(a: socket.socket, peer: socket.socket) -> None:
        install = kernel.install_tx

        def look_and_install(sock: socket.socket, keys: TxKeys) -> None:
            seen.append(unread(a) > 0)
            install(sock, keys)

        monkeypatch.setattr(kernel, "install_tx", look_and_install)
        a.sendall(b"U\1\0\0")
        async with asyncio.timeout(20):
            while unread(a):
                await asyncio.sleep(0.001)
        assert kernel.calls[-1][0] == "tx"
        a.close()
        await closed_by_peer(peer)

    await held(program)
    assert seen == [True]


def unread(a: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(a, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


async def test_another_message_on_the_leash_shuts_the_connection_down(kernel: Kernel) -> None:
    async def program(a: socket.socket, peer: socket.socket) -> None:
        a.sendall(b"What?\n\n\n")
        await closed_by_peer(peer)

    with pytest.raises(AgentProtocolError):
        await held(program)
    assert kernel.calls == []


def test_tcp_counts_bytes_each_way() -> None:
    client, server = tcp_pair()
    client.sendall(b"x" * 1000)
    assert server.recv(1000, socket.MSG_WAITALL)
    server.sendall(b"y" * 500)
    assert client.recv(500, socket.MSG_WAITALL)
    received, acked = tcp_bytes(client)
    assert received == 500
    assert acked >= 1000  # and the SYN
    client.close()
    server.close()


def test_a_socket_that_was_passed_on_is_looked_for_later(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_WAIT", 0.2)
    looks: list[float] = []

    async def during(a: socket.socket, peer: socket.socket) -> None:
        a.send(b"P\0\0\0")
        a.close()
        began = asyncio.get_running_loop().time()
        await closed_by_peer(peer)
        looks.append(asyncio.get_running_loop().time() - began)

    asyncio.run(held(during))
    assert looks[0] >= 0.2
    assert kernel.calls == [("drain", None), ("alert", CLOSE_NOTIFY)]

"""A relayed connection as the agent asks it things. The kernel's is in tests/e2e/test_fate.py, in the lab."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from ktls.agent.gate import Gate
from ktls.agent.report import Report
from ktls.agent.serving import TLS12, RelayLine
from ktls.agent.shared import Shared
from ktls.ciphers import Role, Version
from ktls.environment import Environment, TlsParameters
from ktls.handshake import Established, Handshake, SendBytes
from ktls.keyring import Keyring
from policy.model import Verdict
from policy.snapshot import build
from tests.agent.agent_process import tcp_pair
from tests.ktls.relay_peer import in_thread, read_record


def shake_hands(driver: Handshake, sock: socket.socket) -> Any:
    """Drive it over a blocking socket; returns the session."""
    events = driver.start()
    while True:
        for event in events:
            if isinstance(event, SendBytes):
                sock.sendall(event.data)
        for event in events:
            if isinstance(event, Established):
                return event.session
        events = driver.receive(read_record(sock))


@pytest.mark.parametrize("version", [Version.TLS12, Version.TLS13])
async def test_it_is_counted_rekeyed_and_closed_in_order(
    tls_files: Any, client_context: ssl.SSLContext, version: Version
) -> None:
    shared = Shared(build((), Verdict.CLEAR), Report(None))
    keyring = Keyring("k", Path(tls_files.cert), Path(tls_files.key), trust=(str(tls_files.ca),))
    driver = Handshake(Environment(TlsParameters(Role.SERVER, keyring, min_version=version, max_version=version)))
    client, server = tcp_pair()
    join = in_thread(lambda: client_context.wrap_socket(client, server_hostname="localhost"))
    session = await asyncio.to_thread(shake_hands, driver, server)
    server.settimeout(None)  # as the agent has it: Python would wait behind MSG_DONTWAIT
    peer: Any = await asyncio.to_thread(join)
    a, b = socket.socketpair()
    line = RelayLine(
        driver.connection, session, Gate(b, 0, shared.poller), server, shared, strict=True, speaks_tls=lambda: None
    )
    serving = asyncio.create_task(line.serve())
    a.sendall(bytes(40_000))
    assert len(await asyncio.to_thread(lambda: peer.recv(1) + exactly(peer, 39_999))) == 40_000
    assert line.moved() == (0, 40_000)
    assert line.records() == 3
    assert line.waiting() == 0
    assert line.rekey() == ("" if version is Version.TLS13 else TLS12)
    assert line.records() == (0 if version is Version.TLS13 else 3)
    line.close()
    assert await asyncio.to_thread(peer.recv, 1) == b""
    peer.close()
    assert await asyncio.to_thread(a.recv, 1) == b""
    a.close()
    served = await serving
    assert served.failure is None
    assert served.facts["rekeys"] == (1 if version is Version.TLS13 else None)
    assert line.waiting() == 0
    shared.close()


def exactly(peer: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += peer.recv(size - len(data))
    return data

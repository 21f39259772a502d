"""A mistake of ours, wherever it is: the program is told, nothing goes out in clear, the next connection is as ever.

Each of these functions of the agent raises what nobody foresaw, once. The agent is forked from this process, so what is
patched here is patched there.
"""

import contextlib
import itertools
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ktls.agent.connection import Connection
from ktls.agent.gate import Gate
from ktls.agent.handshaking import Handshaking
from ktls.agent.installing import KeyInstaller
from ktls.agent.leash import Leash
from ktls.agent.report import Report
from ktls.agent.serving import KernelLine, RelayLine
from ktls.agent.wire import Wire
from ktls.handshake import Handshake
from ktls.pump import Pump
from ktls.relay import RelayCore
from tests.e2e.harness import PATIENCE, until

EITHER = [
    (Connection, "decide"),
    (Connection, "_live"),
    (Connection, "_serve"),
    (Gate, "answer"),
    (Gate, "open"),
    (Handshake, "_check_peer"),
    (Handshaking, "_execute"),
    (KeyInstaller, "attach"),
    (KeyInstaller, "install"),
    (Report, "write"),
    (Wire, "receive"),
]
RELAY = [
    (Pump, "__init__"),
    (Pump, "_move_in"),
    (Pump, "_move_out"),
    (Pump, "_settle"),
    (RelayCore, "open"),
    (RelayCore, "seal"),
    (RelayLine, "serve"),
]
KERNEL = [(KernelLine, "__init__"), (KernelLine, "serve"), (Leash, "run"), (Leash, "_until_gone")]
OWN = KERNEL if os.environ.get("KTLS_TEST_ENGINE") == "kernel" else RELAY
UNTOLD = [(Connection, "decide"), (Gate, "answer"), (Report, "write")]  # nothing is known yet, or nobody tells
CLEAR = b"what nobody may read on the wire"
CLIENT = f"""
import errno, os, socket, sys, time
end = time.monotonic() + {PATIENCE / 2}

def talk(until):
    try:
        sock = socket.create_connection(("localhost", int(sys.argv[1])), timeout={PATIENCE / 2})
        while True:
            sock.sendall({CLEAR!r})
            if sock.recv(100) != {CLEAR!r}:
                return "is lied to"
            if until():
                return "goes on"
    except TimeoutError:
        return "hangs"
    except OSError as error:
        return errno.errorcode[error.errno]

print(os.environ["KTLS_AGENT"], talk(lambda: time.monotonic() > end), talk(lambda: True), sep="\\n")
"""


class EchoServer:
    """A TLS peer that keeps what came outside TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.clear: list[bytes] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # else accept() goes on, with whoever gets the number next
        self.listener.close()
        for thread in self.threads:
            thread.join(PATIENCE)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self._echo, args=(sock,), daemon=True))
                self.threads[-1].start()

    def _echo(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(PATIENCE)
            first = sock.recv(100, socket.MSG_PEEK)
            if first and first[0] != 22:  # no handshake record
                self.clear.append(first)
            with self.context.wrap_socket(sock, server_side=True) as tls:
                while data := tls.recv(100):
                    tls.sendall(data)


@pytest.fixture
def server(tls_files: Any) -> Iterator[EchoServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files.cert, tls_files.key)
    running = EchoServer(context)
    yield running
    running.close()


@pytest.mark.parametrize("where", [*EITHER, *OWN], ids=lambda where: f"{where[0].__name__}.{where[1]}")
def test_the_agent_stumbles_over_one_connection_only_and_the_program_is_told(
    where: tuple[type, str],
    covered: Any,
    server: EchoServer,
    tls_files: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stumble_once(monkeypatch, *where)
    command = [sys.executable, "-c", CLIENT, str(server.port)]
    program = covered(command, outbound=[server.port], ca=tls_files.ca, stumbles=True)
    status, out, err = program.finish()
    agent, first, second = out.splitlines()
    assert (status, err) == (0, "")
    assert first in ("ECONNREFUSED", "EPROTO", "ECONNRESET", "EPIPE")
    assert second == "goes on"
    assert server.clear == []
    assert program.log.read_text().count("Stumbled: over it") == 1
    until(lambda: not Path(agent).exists(), "the agent's end")
    if where not in UNTOLD:
        assert [event["error"] for event in program.events() if event.get("error")] == ["internal"]


class Stumbled(Exception):
    """What nobody foresees."""


def stumble_once(monkeypatch: pytest.MonkeyPatch, holder: type, name: str) -> None:
    """Let the function raise the first time that it is called."""
    function, calls = getattr(holder, name), itertools.count()

    def stumble(*arguments: Any, **named: Any) -> Any:
        if next(calls) == 0:
            raise Stumbled("over it")
        return function(*arguments, **named)

    monkeypatch.setattr(holder, name, stumble)

"""A mistake of ours, wherever it is: the program is told, nothing goes out in clear, the next connection is as ever.

Each of these functions of the agent raises what nobody foresaw, once. The agent is forked from this process, so what is
patched here is patched there.
"""

import itertools
import os
import socket
import ssl
import sys
from collections.abc import Callable
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
from tests.e2e.peer import TlsPeer, server, server_context

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


def echo(context: ssl.SSLContext, clear: list[bytes]) -> Callable[[socket.socket], None]:
    """A TLS peer that keeps what came outside TLS."""

    def behave(sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        first = sock.recv(100, socket.MSG_PEEK)
        if first and first[0] != 22:  # no handshake record
            clear.append(first)
        peer = TlsPeer(sock, context, server_side=True).handshake()
        while data := peer.receive():
            peer.send(data)

    return behave


@pytest.mark.parametrize("where", [*EITHER, *OWN], ids=lambda where: f"{where[0].__name__}.{where[1]}")
def test_the_agent_stumbles_over_one_connection_only_and_the_program_is_told(
    where: tuple[type, str], covered: Any, tls_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumble_once(monkeypatch, *where)
    clear: list[bytes] = []
    with server(echo(server_context(str(tls_files.cert), str(tls_files.key)), clear)) as port:
        command = [sys.executable, "-c", CLIENT, str(port)]
        program = covered(command, outbound=[port], ca=tls_files.ca, stumbles=True)
        status, out, err = program.finish()
        agent, first, second = out.splitlines()
        until(lambda: not Path(agent).exists(), "the agent's end")
    assert (status, err) == (0, "")
    assert first in ("ECONNREFUSED", "EPROTO", "ECONNRESET", "EPIPE")
    assert second == "goes on"
    assert clear == []
    assert program.log.read_text().count("Stumbled: over it") == 1
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

"""`already_tls`: programs that speak TLS themselves, on connections that policy protects."""

import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from tests.e2e.peer import TlsPeer, server_context

CLIENT = [sys.executable, str(Path(__file__).parent / "programs" / "tls_client.py")]


@dataclass
class Within:
    """A TLS connection, as the socket of another one."""

    outer: TlsPeer

    def recv(self, size: int) -> bytes:
        return self.outer.receive(size)

    def sendall(self, data: bytes) -> None:
        self.outer.send(data)

    def close(self) -> None:
        self.outer.sock.close()


@pytest.fixture
def connect(covered, tls_files, write_policy, engine):
    """Start the client under a rule with these keys; returns it and the connection to it, our TLS done."""

    def start(keys: str, command: list[str] = CLIENT):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            action = f'action = {{ keyring = "k", engine = "{engine}", {keys} }}'
            path = write_policy(
                f'version = 1\n[keyring.k]\ntrust = ["{tls_files.ca}"]\n'
                f'[[rule]]\nname = "out"\ndirection = "outbound"\nremote_port = ["{port}"]\nverdict = "tls"\n{action}\n'
            )
            program = covered([*command, str(port)], policy=path)
            sock, _ = listener.accept()
        sock.settimeout(60)
        return program, TlsPeer(sock, server_context(tls_files.cert, tls_files.key), server_side=True).handshake()

    return start


def test_a_program_that_speaks_tls_itself_is_recognised_and_left_alone(connect, tls_files):
    program, outer = connect('already_tls = "pass"')
    inner = TlsPeer(
        cast("socket.socket", Within(outer)), server_context(tls_files.cert, tls_files.key), server_side=True
    ).handshake()
    assert inner.receive_exactly(5) == b"hello"
    inner.send(b"world")
    assert program.results() == [{"got": "world"}]
    assert "speaks TLS itself" in program.event("already-tls")["message"]
    assert program.event("end")["already_tls"] == "pass"
    outer.sock.close()


def test_it_is_refused_where_the_rule_says_so(connect):
    program, outer = connect('already_tls = "deny"')
    (result,) = program.results()
    assert result == {"error": "ConnectionResetError"}
    assert program.event("end")["error"] == "already-tls"
    outer.sock.close()


def test_other_first_bytes_are_no_tls(connect, transfer_command):
    program, outer = connect('already_tls = "deny"', [*CLIENT[:1], "-c", PLAIN])
    assert outer.receive_exactly(6) == b"\x16\x03\x05hel"
    outer.send(b"x")
    program.finish()
    assert program.events("already-tls") == []
    outer.sock.close()


PLAIN = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"\\x16\\x03\\x05hel")
sock.recv(1)
"""

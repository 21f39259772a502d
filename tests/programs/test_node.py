"""Node.js: `http` with a keep-alive agent and pipelined requests, `net` with half-open sockets."""

import hashlib
import re
import socket

import pytest

from tests.e2e.harness import PATIENCE
from tests.e2e.peer import TlsPeer, client_context
from tests.programs import echo, site
from tests.programs.echo import SOURCES
from tests.programs.results import debian_version
from tests.programs.scene import Scene


def node(name: str, *words: object) -> list[str]:
    return ["node", str(SOURCES / "node" / f"{name}.js"), *map(str, words)]


def test_a_net_server_answers_foreign_tls_clients(scene: Scene):
    echo.serves_foreign_clients(scene, node("net_server"))


def test_a_net_client_talks_to_a_foreign_tls_server(scene: Scene):
    echo.uses_a_foreign_server(scene, node("net_client"))


@pytest.mark.measured
def test_net_client_and_server_are_both_covered(scene: Scene):
    scene.row("Node.js, net", debian_version("nodejs"))
    echo.talk_to_each_other(scene, node("net_server"), node("net_client"))


def test_an_http_server_answers_a_foreign_client(scene: Scene):
    port, page = scene.port(), site.file_of(scene, "site")
    site.serves_a_foreign_client(scene, node("http_server", port, page), port, page)


def test_an_http_server_answers_pipelined_uploads_in_order(scene: Scene):
    port = scene.port()
    scene.serve(node("http_server", port, site.file_of(scene, "site")), port)
    bodies = [bytes([number]) * 50_000 for number in range(4)]
    head = "POST /sum HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        peer = TlsPeer(sock, client_context(str(scene.tls.ca)), hostname="localhost").handshake()
        last = "Connection: close\r\n"
        peer.send(b"".join((head + last * (body == bodies[-1]) + "\r\n").encode() + body for body in bodies))
        answers = b""
        while part := peer.receive():
            answers += part
        peer.close_notify()
    assert re.findall(rb"[0-9a-f]{64}", answers) == [hashlib.sha256(body).hexdigest().encode() for body in bodies]


def test_an_http_client_talks_to_a_foreign_server(scene: Scene):
    site.uses_a_foreign_server(scene, node("http_client"), connections=2)


@pytest.mark.measured
def test_http_client_and_server_are_both_covered(scene: Scene):
    scene.row("Node.js, http", debian_version("nodejs"))
    port, page = scene.port(), site.file_of(scene, "site", scene.load(site.TOTAL, site.LOAD))
    site.talk_to_each_other(scene, node("http_server", port, page), port, node("http_client"), page)

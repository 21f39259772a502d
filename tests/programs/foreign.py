"""TLS that is not ours, at the other end of a program.

socat speaks OpenSSL's TLS on one side and clear text on the other, so any plain client can be made a TLS client and any
plain server a TLS server. `Site` is an HTTPS server of the standard library's.
"""

import contextlib
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.e2e.peer import TlsPeer, client_context, server_context
from tests.programs.scene import Scene


def connect(scene: Scene, port: int) -> TlsPeer:
    """A TLS connection to a covered server."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    return TlsPeer(sock, client_context(str(scene.tls.ca)), hostname="localhost").handshake()


def accept(scene: Scene, listener: socket.socket) -> TlsPeer:
    """The next connection of a covered client."""
    sock, _ = listener.accept()
    sock.settimeout(60)
    return TlsPeer(sock, server_context(str(scene.tls.cert), str(scene.tls.key)), server_side=True).handshake()


def end_direction(peer: TlsPeer) -> bytes:
    """Send close_notify; returns what had come already, which OpenSSL would take for an error in its shutdown."""
    came = b""
    with contextlib.suppress(ssl.SSLWantReadError):
        while True:
            came += peer.tls.read(65536)
    peer.close_notify()
    return came


def tls_before(scene: Scene, plain_port: int) -> int:
    """A port where TLS is spoken, with the plain server at `plain_port` behind it."""
    port = scene.port()
    ours = f"OPENSSL-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,verify=0,cert={scene.tls.cert},key={scene.tls.key}"
    scene.serve_plain(["socat", "-t30", ours, f"TCP:127.0.0.1:{plain_port}"], port)
    return port


def tls_towards(scene: Scene, tls_port: int) -> int:
    """A port where clear text is spoken, with TLS from there to the covered server at `tls_port`."""
    port = scene.port()
    theirs = f"OPENSSL:127.0.0.1:{tls_port},cafile={scene.tls.ca},commonname=localhost"
    scene.serve_plain(["socat", "-t30", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", theirs], port)
    return port


class Site(ThreadingHTTPServer):
    """An HTTPS server: GET gives `files`, PUT and POST add to `got`."""

    daemon_threads = True

    def __init__(self, scene: Scene, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.files, self.got, self.errors = files, dict[str, bytes](), list[BaseException | None]()
        self.context = server_context(str(scene.tls.cert), str(scene.tls.key))
        self.port = self.server_address[1]
        self.thread = threading.Thread(target=self.serve_forever, args=[0.05])

    def finish_request(self, request, client_address) -> None:
        """Do the handshake in the connection's own thread."""
        request.settimeout(60)
        with self.context.wrap_socket(request, server_side=True, suppress_ragged_eofs=False) as tls:
            super().finish_request(tls, client_address)
            with contextlib.suppress(OSError):  # the other end need not wait for it
                tls.unwrap()

    def handle_error(self, request, client_address) -> None:
        """Keep what went wrong, an end without close_notify for one (ssl.SSLEOFError)."""
        self.errors.append(sys.exception())

    def __enter__(self) -> "Site":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()
        assert not self.errors, self.errors


class Page(BaseHTTPRequestHandler):
    """One request."""

    server: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200, self.server.files[self.path])

    def do_PUT(self) -> None:
        self.server.got[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201, b"")

    do_POST = do_PUT  # noqa: N815

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

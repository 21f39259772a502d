"""Echo programs: a server gives back what it gets, a client sends a file and saves what comes back.

Every language's pair is tried in the same three ways: the server against foreign TLS clients, the client against a
foreign TLS server whose data are its own, and the two with each other. Both directions carry data at once, and both are
compared by hash.
"""

import hashlib
import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.e2e.harness import PATIENCE
from tests.e2e.peer import TlsPeer, client_context, server_context, stream_digest
from tests.programs.scene import Scene

SOURCES = Path(__file__).parent / "sources"
TOTAL = 600_000  # bytes each way; more than all buffers on the way hold
LOAD = 200_000_000  # bytes each way, measured


def serves_foreign_clients(scene: Scene, server: list[str], clients: int = 3) -> None:
    """The covered server echoes to several OpenSSL clients at once."""
    port = scene.port()
    scene.serve([*server, str(port)], port)

    def talk(_: int) -> tuple[int, str]:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
            peer = TlsPeer(sock, client_context(str(scene.tls.ca)), hostname="localhost").handshake()
            return peer.transfer(TOTAL)

    with ThreadPoolExecutor(clients) as pool:
        assert list(pool.map(talk, range(clients))) == [(TOTAL, stream_digest(TOTAL))] * clients


def uses_a_foreign_server(scene: Scene, client: list[str]) -> None:
    """The covered client exchanges data with an OpenSSL server, which sends its own stream meanwhile."""
    path, saved = scene.file("sent", os.urandom(TOTAL)), scene.folder / "saved"
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        port = listener.getsockname()[1]
        listener.settimeout(PATIENCE)
        served: Future[tuple[int, str]] = pool.submit(serve_once, listener, scene)
        scene.use([*client, str(port), str(path), str(saved)], port)
        assert served.result() == (TOTAL, digest(path))
    assert digest(saved) == stream_digest(TOTAL)


def serve_once(listener: socket.socket, scene: Scene) -> tuple[int, str]:
    sock, _ = listener.accept()
    with sock:
        context = server_context(str(scene.tls.cert), str(scene.tls.key))
        return TlsPeer(sock, context, server_side=True).handshake().transfer(TOTAL)


def talk_to_each_other(scene: Scene, server: list[str], client: list[str]) -> None:
    """Client and server are both covered; measured in MB/s each way."""
    port = scene.port()
    total = scene.load(TOTAL, LOAD)
    block = os.urandom(100_000)
    path, saved = scene.file("sent", block * (total // len(block))), scene.folder / "saved"
    scene.serve([*server, str(port)], port)
    start = time.monotonic()
    scene.use([*client, str(port), str(path), str(saved)], port)
    scene.rate("MB/s each way", total / 1e6 / (time.monotonic() - start))
    assert digest(saved) == digest(path)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Programs that speak HTTP: the site that their servers have, and what their clients say of it.

POST /sum answers with the SHA-256 of the body, GET /stream sends a file, and every other path is answered with itself.
uvicorn with TLS of its own is the foreign server, requests with TLS of its own the foreign client.
"""

import hashlib
import os
import sys
import time
from pathlib import Path

from tests.e2e.harness import Program
from tests.programs.scene import Scene

SOURCES = Path(__file__).parent / "sources"
TOTAL = 600_000  # bytes each way
LOAD = 100_000_000  # bytes each way, measured
HELLOS = 5  # small requests that a client ends with
REQUESTS = [sys.executable, str(SOURCES / "python" / "requests_client.py")]


def uvicorn(port: int, *options: str) -> list[str]:
    """The command line of the ASGI application."""
    words = [sys.executable, "-m", "uvicorn", "--app-dir", str(SOURCES / "python"), "--log-level", "warning"]
    return [*words, "--host", "127.0.0.1", "--port", str(port), *options, "asgi_app:app"]


def file_of(scene: Scene, name: str, total: int = TOTAL) -> Path:
    """Random bytes; a large file repeats itself."""
    block = os.urandom(100_000)
    return scene.file(name, block * (total // len(block)))


def sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetched(sent: Path, got: Path) -> list[str]:
    """What a client says when all was well."""
    return [f"sent {sum_of(sent)}", f"got {sum_of(got)}", *(f"said /hello/{number}" for number in range(HELLOS))]


def serves_a_foreign_client(scene: Scene, server: list[str], port: int, site: Path) -> None:
    """requests talks https to the covered server, all on one kept connection."""
    scene.expect("truncated")  # Python's ssl closes a connection without close_notify, and the agent says so
    sent = file_of(scene, "sent")
    program = scene.serve(server, port, env={"STREAM": str(site)})
    trust = {"REQUESTS_CA_BUNDLE": str(scene.tls.ca)}
    said = scene.use_plain([*REQUESTS, f"https://localhost:{port}", str(sent)], env=trust)
    assert said.stdout.decode().splitlines() == fetched(sent, site)
    assert len(program.told(1, "open")) == 1


def serve_foreign(scene: Scene, site: Path) -> int:
    """Start uvicorn with TLS of its own; its port."""
    port = scene.port()
    tls = ["--ssl-certfile", str(scene.tls.cert), "--ssl-keyfile", str(scene.tls.key)]
    scene.serve_plain(uvicorn(port, *tls), port, env={"STREAM": str(site)})
    return port


def uses_a_foreign_server(scene: Scene, client: list[str], connections: int) -> None:
    """The covered client, given http://127.0.0.1:PORT, and as many connections of it as it keeps."""
    site, sent = file_of(scene, "site"), file_of(scene, "sent")
    port = serve_foreign(scene, site)
    said = scene.use([*client, f"http://127.0.0.1:{port}", str(sent)], port)
    assert said.stdout.decode().splitlines() == fetched(sent, site)
    assert len(scene.programs[-1].told(connections, "open")) == connections


def talk_to_each_other(scene: Scene, server: list[str], port: int, client: list[str], site: Path) -> Program:
    """Server and client are both covered; measured in MB/s, up and then down."""
    sent = file_of(scene, "sent", scene.load(TOTAL, LOAD))
    program = scene.serve(server, port, env={"STREAM": str(site)})
    start = time.monotonic()
    said = scene.use([*client, f"http://127.0.0.1:{port}", str(sent)], port)
    scene.rate("MB/s", 2 * sent.stat().st_size / 1e6 / (time.monotonic() - start))
    assert said.stdout.decode().splitlines() == fetched(sent, site)
    return program

#!/usr/bin/env python3
"""The main job in one minute: two programs that know no TLS, TLS between them, and the proof.

An unmodified `python3 -m http.server` and an unmodified `curl http://...` run under `ktls run`. Between them sits a
recording hop, a plain TCP forwarder that keeps every byte that crosses it. The report says what the two agents saw, and
whether the file's bytes crossed the wire in clear. Exit status 0 only if the file arrived whole and none of it did.
"""

import argparse
import json
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from rich.console import Console
from rich.table import Table

SENTENCE = b"The quick brown fox was here in clear text.\n"
FILE_SIZE = 256 * 1024
TLS_STAT = Path("/proc/net/tls_stat")
READY_SECONDS = 20.0


@dataclass
class Recorder:
    """A TCP hop: forwards to `target` and keeps what crosses, per direction."""

    target: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    to_server: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        port: int = self.listener.getsockname()[1]
        return port

    def serve_one(self) -> None:
        """Forward one connection until both directions have ended."""
        client, _ = self.listener.accept()
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            routes = {client: (server, self.to_server), server: (client, self.to_client)}
            with selectors.DefaultSelector() as selector:
                for source in routes:
                    selector.register(source, selectors.EVENT_READ)
                while selector.get_map():
                    for key, _ in selector.select():
                        source = client if key.fileobj is client else server
                        sink, record = routes[source]
                        data = source.recv(65536)
                        record += data
                        if data:
                            sink.sendall(data)
                        else:
                            selector.unregister(source)
                            sink.shutdown(socket.SHUT_WR)


def make_credentials(folder: Path) -> tuple[Path, Path, Path]:
    """Write a CA and a certificate for localhost; returns (certificate, key, CA) paths."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    paths = folder / "server.pem", folder / "server.key", folder / "ca.pem"
    paths[0].write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    paths[1].write_bytes(server.private_key_pem.bytes())
    paths[1].chmod(0o600)
    authority.cert_pem.write_to_path(paths[2])
    return paths


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def wait_until_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait for the server's listener without connecting to it (a connection would be a TLS failure in its log)."""
    wanted = f":{port:04X}"
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
        if any(row.split()[1].endswith(wanted) and row.split()[3] == "0A" for row in rows):
            return
        time.sleep(0.05)
    sys.exit(f"demo: the server did not start listening within {READY_SECONDS:.0f} s")


def read_events(path: Path) -> list[dict[str, Any]]:
    """The agent's report: one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def opened(path: Path) -> dict[str, Any]:
    """The connection that was opened, as the agent that wrote `path` saw it."""
    for event in read_events(path):
        if event.get("event") == "open":
            return event
    failures = [event for event in read_events(path) if event.get("event") == "failed"]
    sys.exit(f"demo: no connection was opened; the agent says {failures or 'nothing'}")


def show_connection(console: Console, server: dict[str, Any], client: dict[str, Any]) -> None:
    """Print one table: a column for each end."""
    table = Table(title="What the two agents saw", title_justify="left")
    table.add_column("")
    table.add_column("curl's end")
    table.add_column("http.server's end")
    rows = {
        "program": "program",
        "connected to / from": "remote",
        "rule": "rule",
        "TLS version": "version",
        "cipher": "cipher",
        "engine": "engine",
        "why this engine": "engine_reason",
        "handshake (ms)": "handshake_ms",
    }
    for label, key in rows.items():
        table.add_row(label, str(client.get(key, "-")), str(server.get(key, "-")))
    console.print(table)


def show_wire(console: Console, recorder: Recorder, content: bytes) -> bool:
    """Print what crossed the hop; returns whether nothing of the file or the request was in clear."""
    crossed = bytes(recorder.to_client + recorder.to_server)
    pieces = {content[at : at + 16] for at in range(0, len(SENTENCE) * 2)} | {b"GET /", b"HTTP/1."}
    found = [piece for piece in pieces if piece in crossed]
    console.print(
        f"On the wire: {len(recorder.to_server)} bytes to the server, {len(recorder.to_client)} bytes to the client"
    )
    console.print(
        f"  first bytes each way: {recorder.to_server[:6].hex(' ')} ... / {recorder.to_client[:6].hex(' ')} ..."
    )
    console.print(f"  file or request seen in clear: {'YES: ' + repr(found[0]) if found else 'no'}")
    return not found


def run(engine: str, console: Console) -> bool:
    """Do it once; returns whether all was well."""
    before = TLS_STAT.read_text() if TLS_STAT.exists() else ""
    with tempfile.TemporaryDirectory(prefix="ktls-demo-") as name:
        folder = Path(name)
        certificate, key, authority = make_credentials(folder)
        site = folder / "site"
        site.mkdir()
        content = (SENTENCE * (FILE_SIZE // len(SENTENCE) + 1))[:FILE_SIZE]
        (site / "page.txt").write_bytes(content)
        port = free_port()
        recorder = Recorder(port)
        ktls = [sys.executable, "-m", "ktls", "run", "--engine", engine]
        serve = [
            "--inbound",
            str(port),
            "--cert",
            str(certificate),
            "--key",
            str(key),
            "--log",
            str(folder / "server.log"),
        ]
        serve += ["--", "python3", "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(site)]
        fetch = ["--outbound", str(recorder.port), "--ca", str(authority), "--log", str(folder / "client.log"), "--"]
        fetch += ["curl", "-sS", "-o", str(folder / "got"), f"http://localhost:{recorder.port}/page.txt"]
        console.print(f"$ ktls run --inbound {port} ... -- python3 -m http.server {port}")
        console.print(f"$ ktls run --outbound {recorder.port} ... -- curl http://localhost:{recorder.port}/page.txt")
        with subprocess.Popen([*ktls, *serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                wait_until_listening(port, server)
                hop = threading.Thread(target=recorder.serve_one, daemon=True)
                hop.start()
                status = subprocess.run([*ktls, *fetch], check=False, timeout=60).returncode
                hop.join(timeout=10)
            finally:
                server.terminate()
        if status != 0:
            console.print(f"curl ended with status {status}; the agents say:")
            console.print_json(json.dumps(read_events(folder / "client.log") + read_events(folder / "server.log")))
            return False
        show_connection(console, opened(folder / "server.log"), opened(folder / "client.log"))
        whole = (folder / "got").read_bytes() == content
        console.print(f"The file: {FILE_SIZE} bytes served, {'arrived whole' if whole else 'DID NOT ARRIVE WHOLE'}")
        hidden = show_wire(console, recorder, content)
    if before:
        console.print("/proc/net/tls_stat before and after (counters that changed):")
        for old, new in zip(before.splitlines(), TLS_STAT.read_text().splitlines(), strict=True):
            if old != new:
                console.print(f"  {new.split()[0]:<24} {old.split()[1]} -> {new.split()[1]}")
    return whole and hidden


def main() -> int:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["auto", "nic", "kernel", "relay"], default="auto", help="as in `ktls run`")
    arguments = parser.parse_args()
    return 0 if run(arguments.engine, Console(width=118, highlight=False)) else 1


if __name__ == "__main__":
    sys.exit(main())

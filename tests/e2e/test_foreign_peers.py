"""The other end is OpenSSL's own tools or curl, which know nothing of us."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import listens, until

STEPS = [sys.executable, str(Path(__file__).parent / "programs" / "steps.py")]
VERSION = {"1.2": ["-tls1_2"], "1.3": ["-tls1_3"]}


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "page").write_bytes(bytes(range(256)) * 1000)
    return folder


@pytest.fixture
def s_server(tls_files, free_port, site):
    """Start `openssl s_server -WWW` for the site; returns its port."""
    running = []

    def start(version: str) -> int:
        port = free_port()
        words = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-WWW", *VERSION[version]]
        words += ["-cert", str(tls_files.cert), "-cert_chain", str(tls_files.cert), "-key", str(tls_files.key)]
        silent = subprocess.DEVNULL
        running.append(subprocess.Popen(words, cwd=site, stdin=silent, stdout=silent, stderr=silent))
        until(lambda: listens(port), "s_server")
        return port

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_covered_curl_fetches_from_s_server(covered, s_server, tls_files, tmp_path, site, version, engine):
    port = s_server(version)
    program = covered(
        ["curl", "-sS", "--http1.0", "-o", str(tmp_path / "got"), f"http://127.0.0.1:{port}/page"],
        outbound=[port],
        ca=tls_files.ca,
    )
    status, _, err = program.finish()
    assert status == 0, err
    assert (tmp_path / "got").read_bytes() == (site / "page").read_bytes()
    opened = program.event("open")
    assert (opened["version"], opened["engine"]) == (f"TLSv{version}", engine)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_fetches_https_from_a_covered_http_server(covered, tls_files, free_port, tmp_path, site, version, engine):
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(site)]
    program = covered(command, inbound=[port], cert=tls_files.cert, key=tls_files.key, wait_port=port)
    words = ["curl", "-sS", "--cacert", str(tls_files.ca), "--tlsv1.2", "--tls-max", version]
    done = subprocess.run(
        [*words, "-o", str(tmp_path / "got"), f"https://127.0.0.1:{port}/page"],
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got").read_bytes() == (site / "page").read_bytes()
    opened = program.event("open")
    assert (opened["version"], opened["engine"]) == (f"TLSv{version}", engine)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_s_client_talks_to_a_covered_server(covered, tls_files, free_port, version):
    port = free_port()
    program = covered(
        [*STEPS, f"listen={port}", "accept", "read=5", "write=answer", "close"],
        inbound=[port],
        cert=tls_files.cert,
        key=tls_files.key,
        wait_port=port,
    )
    words = ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", str(tls_files.ca), *VERSION[version]]
    with subprocess.Popen(
        [*words, "-connect", f"127.0.0.1:{port}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        assert client.stdin
        assert client.stdout
        client.stdin.write(b"hello")
        client.stdin.flush()
        assert client.stdout.read(6) == b"answer"
        client.kill()
    assert {"step": "read", "got": "hello"} in program.results()

"""inetd accepts, makes the connection standard input, output and error of a child, and the child becomes a program.

That program never saw connect() or accept(). It uses its standard streams through libc's stdio, which reads and writes
inside libc, where nothing of ours is.
"""

import hashlib
import os
import shlex
import time

import pytest

from tests.programs.foreign import connect, end_direction
from tests.programs.results import debian_version
from tests.programs.scene import Scene

DATA = os.urandom(300_000)
HASH = f"{hashlib.sha256(DATA).hexdigest()}  -\n".encode()


def serve(scene: Scene, script: str) -> int:
    """Serve a shell script; returns the port."""
    found = "output of a program started on a connection whose handshake had not ended was lost (kernel); fixed"
    scene.row("inetd (OpenBSD)", debian_version("openbsd-inetd"), found)
    port = scene.port()
    path = scene.file("script", f"#!/bin/bash\n{script}\n", mode=0o755)
    services = scene.file("inetd.conf", f"127.0.0.1:{port} stream tcp nowait.9000 root {path} script\n")
    scene.serve(["/usr/sbin/inetd", "-i", str(services)], port)
    return port


@pytest.mark.parametrize(
    "script",
    [
        f"head -c {len(DATA)} | sha256sum",  # another program's stdio writes
        "exec sha256sum",  # reads to the end of file
        'sum=$(sha256sum); echo "$sum"',  # the shell's own stdio writes
        "exec perl -MDigest::SHA -e 'print Digest::SHA->new(256)->addfile(*STDIN)->hexdigest, qq(  -\\n)'",
    ],
)
@pytest.mark.parametrize("patience", [0, 0.3], ids=["at-once", "late"])
def test_a_foreign_client_sends_and_gets_an_answer(scene: Scene, script: str, patience: float):
    peer = connect(scene, serve(scene, script))
    time.sleep(patience)
    peer.send(DATA)
    end_direction(peer)
    assert peer.receive_exactly(len(HASH)) == HASH
    assert peer.receive() == b""


def test_a_program_that_speaks_first_waits_for_the_handshake(scene: Scene):
    peer = connect(scene, serve(scene, "echo greeting; exec cat"))
    assert peer.receive_exactly(9) == b"greeting\n"
    peer.send(DATA)
    assert peer.receive_exactly(len(DATA)) == DATA
    end_direction(peer)
    assert peer.receive() == b""


@pytest.mark.measured
def test_a_covered_client_connects_again_and_again(scene: Scene):
    port = serve(scene, f"head -c {len(DATA)} | sha256sum")
    data = scene.file("data", DATA)
    once = f"exec 3<>/dev/tcp/127.0.0.1/{port}; cat {shlex.quote(str(data))} >&3; cat <&3"
    count = scene.load(5, 60)
    start = time.monotonic()
    got = scene.use(["bash", "-c", f"for i in {{1..{count}}}; do {once}; done"], port).stdout
    scene.rate("connections/s", count / (time.monotonic() - start))
    assert got == HASH * count

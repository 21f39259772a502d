"""Caches and their clients: redis-server, redis-cli, redis-benchmark."""

import hashlib
import os

import pytest

from tests.programs.results import debian_version
from tests.programs.scene import Scene


@pytest.mark.measured
def test_redis_serves_its_own_clients_and_fifty_pipelines(scene: Scene):
    scene.row("redis-server, redis-cli, redis-benchmark", debian_version("redis-server"))
    port = scene.port()
    scene.serve(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], port)

    data = os.urandom(2 << 20)
    assert scene.use(["redis-cli", "-p", str(port), "-x", "set", "blob"], port, input=data).stdout == b"OK\n"
    got = scene.use(["redis-cli", "-p", str(port), "--raw", "get", "blob"], port).stdout
    assert hashlib.sha256(got.removesuffix(b"\n")).hexdigest() == hashlib.sha256(data).hexdigest()

    # It ends when the count is reached, whether all of its clients are connected by then or not.
    scene.expect("peer-closed", "program-gone")
    words = ["redis-benchmark", "-p", str(port), "-n", str(scene.load(2000, 300_000)), "-c", "50", "-P", "16", "--csv"]
    table = scene.use([*words, "-t", "set,get"], port, timeout=120).stdout.decode().splitlines()
    rates = {cells[0]: float(cells[1]) for cells in (line.replace('"', "").split(",") for line in table[1:])}
    assert set(rates) == {"SET", "GET"}
    scene.rate("GET/s, 50 clients, pipelines of 16", rates["GET"])

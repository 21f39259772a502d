"""Caches and their clients: Redis and memcached."""

import os
import time

import pytest

from tests.programs.foreign import connect, end_direction
from tests.programs.results import debian_version
from tests.programs.scene import Scene


def set_and_get(scene: Scene, cli: list[str], *ports: int) -> None:
    data = os.urandom(2 << 20)
    assert scene.use([*cli, "-x", "set", "blob"], *ports, input=data).stdout == b"OK\n"
    got = scene.use([*cli, "--raw", "get", "blob"], *ports).stdout
    assert got == data + b"\n"


@pytest.mark.measured
def test_redis_serves_its_own_clients_and_fifty_pipelines(scene: Scene):
    found = (
        "a client closed as its handshake ended was reported as malformed, its peer got no close_notify (kernel); fixed"
    )
    scene.row("redis-server, redis-cli, redis-benchmark", debian_version("redis-server"), found)
    port = scene.port()
    scene.serve(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], port)

    set_and_get(scene, ["redis-cli", "-p", str(port)], port)

    # It ends when the count is reached, whether all of its clients are connected by then or not.
    scene.expect("peer-closed", "program-gone")
    words = ["redis-benchmark", "-p", str(port), "-n", str(scene.load(2000, 300_000)), "-c", "50", "-P", "16", "--csv"]
    table = scene.use([*words, "-t", "set,get"], port, timeout=120).stdout.decode().splitlines()
    rates = {cells[0]: float(cells[1]) for cells in (line.replace('"', "").split(",") for line in table[1:])}
    assert set(rates) == {"SET", "GET"}
    scene.rate("GET/s, 50 clients, pipelines of 16", rates["GET"])


def test_a_covered_redis_server_and_a_foreign_client(scene: Scene):
    port = scene.port()
    scene.serve(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], port)
    scene.expect("truncated")  # it leaves without close_notify
    cli = ["redis-cli", "--tls", "--cacert", str(scene.tls.ca), "-h", "localhost", "-p", str(port)]
    set_and_get(scene, cli)


def test_a_covered_redis_cli_and_a_foreign_server(scene: Scene):
    port = scene.port()
    tls = ["--tls-cert-file", str(scene.tls.cert), "--tls-key-file", str(scene.tls.key), "--tls-auth-clients", "no"]
    tls += ["--tls-ca-cert-file", str(scene.tls.ca)]
    scene.serve_plain(
        ["redis-server", "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "", *tls], port
    )
    set_and_get(scene, ["redis-cli", "-p", str(port)], port)


# --- memcached ---------------------------------------------------------------------------------------------------


def serve_memcached(scene: Scene) -> int:
    scene.row("memcached", debian_version("memcached"))
    port = scene.port()
    scene.serve(["memcached", "-l", "127.0.0.1", "-p", str(port), "-u", "nobody", "-t", "2", "-I", "4m"], port)
    return port


@pytest.mark.measured
def test_memcached_as_nobody_answers_a_pipeline(scene: Scene):
    """nc sends everything, ends its direction, and reads what comes."""
    port = serve_memcached(scene)
    data = os.urandom(100_000)
    count = scene.load(20, 1000)
    commands = b"set blob 0 0 %d\r\n%s\r\n" % (len(data), data) + b"get blob\r\n" * count + b"quit\r\n"
    start = time.monotonic()
    got = scene.use(["nc", "127.0.0.1", str(port)], port, input=commands).stdout
    scene.rate("MB/s", len(got) / 1e6 / (time.monotonic() - start))
    assert got == b"STORED\r\n" + b"VALUE blob 0 %d\r\n%s\r\nEND\r\n" % (len(data), data) * count


def test_memcached_and_twenty_foreign_clients(scene: Scene):
    port = serve_memcached(scene)
    peers = [connect(scene, port) for _ in range(20)]
    values = [os.urandom(20_000 + number) for number in range(20)]
    for number, (peer, value) in enumerate(zip(peers, values, strict=True)):
        peer.send(b"set key%d 0 0 %d\r\n%s\r\n" % (number, len(value), value))
    for peer in peers:
        assert peer.receive_exactly(8) == b"STORED\r\n"
    for number, peer in enumerate(reversed(peers)):
        peer.send(b"get key%d\r\n" % number)
        answer = b"VALUE key%d 0 %d\r\n%s\r\nEND\r\n" % (number, len(values[number]), values[number])
        assert peer.receive_exactly(len(answer)) == answer
        end_direction(peer)

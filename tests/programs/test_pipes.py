"""nc and socat: a connection's two directions are two files, and each ends on its own (half-close)."""

import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.peer import TlsPeer
from tests.programs.foreign import accept, connect, end_direction, tls_towards
from tests.programs.results import debian_version
from tests.programs.scene import Scene

OURS, THEIRS = os.urandom(700_000), os.urandom(500_000)


def between_nc_and_tls(scene: Scene, role: str) -> tuple[subprocess.Popen, TlsPeer]:
    """nc in this role, which sends OURS and then ends its direction (-N), and the foreign end."""
    scene.row("nc (OpenBSD)", debian_version("netcat-openbsd"))
    ours, got = scene.file("ours", OURS), scene.folder / "got"
    with ours.open("rb") as standard_input, got.open("wb") as output:
        files: dict[str, Any] = {"stdin": standard_input, "stdout": output, "stderr": subprocess.DEVNULL}
        if role == "server":
            port = scene.port()
            program = scene.serve(["nc", "-N", "-l", "127.0.0.1", str(port)], port, **files)
            return program.process, connect(scene, port)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            program = scene.begin(["nc", "-N", "127.0.0.1", str(port)], port, **files)
            return program.process, accept(scene, listener)


@pytest.mark.parametrize("role", ["server", "client"])
def test_nc_ends_its_direction_first_and_still_receives(scene: Scene, role: str):
    process, peer = between_nc_and_tls(scene, role)
    assert peer.receive_exactly(len(OURS)) == OURS
    assert peer.receive() == b""
    peer.send(THEIRS)
    peer.close_notify()
    assert process.wait(60) == 0
    assert (scene.folder / "got").read_bytes() == THEIRS


def test_nc_goes_on_sending_when_the_other_direction_has_ended(scene: Scene):
    process, peer = between_nc_and_tls(scene, "client")  # nc -l would leave then, on plain TCP too
    peer.send(THEIRS)
    came = end_direction(peer)
    assert came + peer.receive_exactly(len(OURS) - len(came)) == OURS
    assert peer.receive() == b""
    assert process.wait(60) == 0
    assert (scene.folder / "got").read_bytes() == THEIRS


@pytest.mark.measured
def test_nc_to_nc(scene: Scene):
    scene.row("nc (OpenBSD)", debian_version("netcat-openbsd"))
    blocks = scene.load(3, 400)
    data = os.urandom(1 << 20)
    port = scene.port()
    output = scene.folder / "got"
    with output.open("wb") as file:
        server = scene.serve(["nc", "-l", "127.0.0.1", str(port)], port, stdout=file)
    start = time.monotonic()
    scene.use(["nc", "-N", "127.0.0.1", str(port)], port, input=data * blocks)
    assert server.process.wait(60) == 0
    scene.rate("MB/s", blocks * len(data) / 1e6 / (time.monotonic() - start))
    assert output.read_bytes() == data * blocks


# --- socat -------------------------------------------------------------------------------------------------------


def serve_cat(scene: Scene) -> int:
    """socat, which forks for each connection and starts cat: what comes in goes back."""
    scene.row("socat (fork)", debian_version("socat"))
    port = scene.port()
    scene.serve(["socat", "-t30", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", "EXEC:cat"], port)
    return port


def test_socat_forks_a_cat_for_each_of_ten_clients_at_once(scene: Scene):
    port = serve_cat(scene)

    def client(number: int) -> bool:
        data = bytes([number]) + OURS
        return scene.use(["socat", "-t30", "-", f"TCP:127.0.0.1:{port}"], port, input=data).stdout == data

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(client, range(10)))


def test_socat_and_a_foreign_client(scene: Scene):
    peer = connect(scene, serve_cat(scene))
    for _ in range(5):
        peer.send(THEIRS[:100_000])
        assert peer.receive_exactly(100_000) == THEIRS[:100_000]
    peer.close_notify()
    assert peer.receive() == b""
    assert peer.saw_close_notify
    peer.sock.close()


def test_socat_ends_its_direction_first_and_still_receives(scene: Scene):
    scene.row("socat (fork)", debian_version("socat"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        file = scene.file("ours", OURS)
        with file.open("rb") as ours, (scene.folder / "got").open("wb") as got:
            words = ["socat", "-t30", "-", f"TCP:127.0.0.1:{port}"]
            client = scene.begin(words, port, stdin=ours, stdout=got, stderr=subprocess.DEVNULL)
        peer = accept(scene, listener)
    assert peer.receive_exactly(len(OURS)) == OURS
    assert peer.receive() == b""
    peer.send(THEIRS)
    peer.close_notify()
    assert client.process.wait(60) == 0
    assert (scene.folder / "got").read_bytes() == THEIRS


@pytest.mark.measured
def test_socat_to_socat(scene: Scene):
    port = serve_cat(scene)
    data = os.urandom(1 << 20) * scene.load(3, 200)
    start = time.monotonic()
    got = scene.use(["socat", "-t30", "-", f"TCP:127.0.0.1:{port}"], port, input=data).stdout
    scene.rate("MB/s there and back", len(data) / 1e6 / (time.monotonic() - start))
    assert got == data


# --- iperf3 ------------------------------------------------------------------------------------------------------


def iperf3(scene: Scene, port: int, *ports: int, reverse: bool, count: int) -> float:
    """Send so many MB in one direction; what iperf3 itself says about its speed, in MB/s."""
    words = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", f"{count}M", "-J", *(["-R"] if reverse else [])]
    end = json.loads(scene.use(words, *ports).stdout)["end"]
    sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
    assert sent >= count << 20
    # It stops counting when the sender says that it is done, whatever is still on its way (on plain TCP too).
    assert 0 < received <= sent
    assert received >= count << 20 or not reverse
    return end["sum_received"]["bits_per_second"] / 8e6


def serve_iperf3(scene: Scene) -> int:
    scene.row("iperf3", debian_version("iperf3"))
    scene.expect("peer-closed")  # it leaves with data unread, which is a RST
    port = scene.port()
    scene.serve(["iperf3", "-s", "-B", "127.0.0.1", "-p", str(port)], port)
    return port


@pytest.mark.measured
@pytest.mark.parametrize("reverse", [False, True], ids=["to-the-server", "from-the-server"])
def test_iperf3_measures(scene: Scene, reverse: bool):
    port = serve_iperf3(scene)
    speed = iperf3(scene, port, port, reverse=reverse, count=scene.load(20, 1000))
    scene.rate("MB/s, -R" if reverse else "MB/s", speed)


@pytest.mark.parametrize("reverse", [False, True], ids=["to-the-server", "from-the-server"])
def test_iperf3_and_a_foreign_client(scene: Scene, reverse: bool):
    port = serve_iperf3(scene)
    iperf3(scene, tls_towards(scene, port), reverse=reverse, count=5)

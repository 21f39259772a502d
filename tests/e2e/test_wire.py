"""What an observer of the wire sees, one capture for each way to ask for protection: TLS records and no clear text."""

import contextlib
import socket
import struct
import threading

import pytest

from tests.e2e.peer import stream_digest

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
SYN = 2
MARK = bytes(range(200, 232))  # 32 bytes of the stream that programs/transfer.py sends
SIZE = 100_000


class Capture:
    """Every TCP payload to or from a port on the loopback interface, by direction."""

    def __init__(self, port: int) -> None:
        self.port, self.stopping = port, False
        self.first: dict[str, int] = {}  # sequence number of the first byte, by direction
        self.segments: dict[str, dict[int, bytes]] = {"to": {}, "from": {}}
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
        self.sock.bind(("lo", ETH_P_ALL))
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopping:
            packet, (_, _, kind, *_) = self.sock.recvfrom(1 << 17)
            if kind == socket.PACKET_OUTGOING:  # loopback shows each packet twice
                self._keep(packet)

    def _keep(self, packet: bytes) -> None:
        if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
            return
        tcp = packet[(packet[0] & 15) * 4 :]
        source, target, sequence = struct.unpack_from("!HHI", tcp)
        payload = tcp[(tcp[12] >> 4) * 4 :]
        if self.port not in (source, target):
            return
        direction = "to" if target == self.port else "from"
        if tcp[13] & SYN:
            self.first[direction] = sequence + 1
        elif payload:
            at = (sequence - self.first[direction]) % 2**32
            self.segments[direction][at] = max(self.segments[direction].get(at, b""), payload, key=len)

    def streams(self) -> dict[str, bytearray]:
        """What crossed, each byte once: TCP may have sent some of them again."""
        whole = {}
        for direction, segments in self.segments.items():
            data = whole[direction] = bytearray()
            for at, payload in sorted(segments.items()):
                assert at <= len(data), f"bytes {len(data)} to {at} {direction} the port were not captured"
                data += payload[len(data) - at :]
        return whole

    def stop(self) -> dict[str, bytearray]:
        self.stopping = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as poke:  # wakes the reader
            poke.sendto(b"x", ("127.0.0.1", 9))
        self.thread.join(10)
        self.sock.close()
        return self.streams()


@pytest.fixture
def capture():
    captures = []

    def start(port: int) -> Capture:
        captures.append(Capture(port))
        return captures[-1]

    yield start
    for one in captures:
        with contextlib.suppress(OSError):
            one.stop()


def exchange(covered, transfer_command, port: int, server_options: dict, client_options: dict) -> None:
    server = covered(transfer_command("server", f"127.0.0.1:{port}", SIZE), wait_port=port, **server_options)
    client = covered(transfer_command("client", f"127.0.0.1:{port}", SIZE), **client_options)
    assert client.results()[0]["sha256"] == stream_digest(SIZE)
    assert server.results()[0]["sha256"] == stream_digest(SIZE)


def assert_only_records(payloads: dict[str, bytearray]) -> None:
    """Both directions are TLS records from the first byte to the last, and none of the stream is in them."""
    for direction, data in payloads.items():
        assert len(data) > SIZE, direction
        assert MARK not in data, direction
        at = 0
        while at < len(data):
            kind, version, length = struct.unpack_from("!BHH", data, at)
            assert kind in (20, 21, 22, 23), (direction, at)
            assert version in (0x0301, 0x0303), (direction, at)
            at += 5 + length
        assert at == len(data), direction


def test_the_capture_would_notice_clear_text(capture, covered, transfer_command, free_port, tls_files):
    """The negative control: the same exchange, unprotected."""
    port = free_port()
    seen = capture(port)
    options = {"outbound": [1], "ca": tls_files.ca}
    exchange(covered, transfer_command, port, options, options)
    assert all(MARK in data for data in seen.stop().values())


def test_secure_ports_on_the_command_line_put_only_records_on_the_wire(
    capture, covered, transfer_command, free_port, tls_files
):
    port = free_port()
    seen = capture(port)
    server = {"inbound": [port], "cert": tls_files.cert, "key": tls_files.key}
    exchange(covered, transfer_command, port, server, {"outbound": [port], "ca": tls_files.ca})
    assert_only_records(seen.stop())


POLICY = """
version = 1
[keyring.k]
certificate = "{cert}"
private_key = "{key}"
trust = ["{ca}"]
[action.tls]
keyring = "k"
engine = "{{engine}}"
[[rule]]
name = "the server's end"
direction = "inbound"
local_port = ["{port}"]
verdict = "tls"
action = "tls"
[[rule]]
name = "the client's end"
direction = "outbound"
remote_port = ["{port}"]
verdict = "tls"
action = "tls"
"""


@pytest.mark.parametrize("way", ["--policy", "KTLS_POLICY"])
def test_a_policy_file_puts_only_records_on_the_wire(
    capture, covered, transfer_command, free_port, tls_files, write_policy, way
):
    port = free_port()
    policy = write_policy(POLICY.format(cert=tls_files.cert, key=tls_files.key, ca=tls_files.ca, port=port))
    options = (
        {"policy": policy, "own_agent": True}
        if way == "--policy"
        else {"env": {"KTLS_POLICY": str(policy)}, "own_agent": True}
    )
    seen = capture(port)
    exchange(covered, transfer_command, port, options, options)
    assert_only_records(seen.stop())

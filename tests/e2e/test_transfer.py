"""Bytes go both ways, whole and unseen, against TLS peers that are not ours and between two covered programs."""

import socket
import ssl
import threading
from collections.abc import Callable

import pytest
import trustme

from tests.e2e.peer import TlsPeer, client_context, server_context, stream_digest

SIZES = [0, 1, 16383, 16385]  # nothing, the least, and around the largest record (RFC 8446 section 5.1)
MODES = ["blocking", "nonblocking", "asyncio"]
TLS12 = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CCM": "ECDHE-ECDSA-AES128-CCM",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
}
TLS13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_CCM_SHA256"]


def serve_once(context: ssl.SSLContext, total: int, family: socket.AddressFamily = socket.AF_INET):
    """A TLS server on a thread for one connection; returns (port, results, thread)."""
    listener = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
    results: list = []

    def serve() -> None:
        with listener, listener.accept()[0] as sock:
            peer = TlsPeer(sock, context, server_side=True)
            try:
                peer.handshake()
                results.append((*peer.transfer(total), peer))
            except (OSError, ssl.SSLError) as error:
                results.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener.getsockname()[1], results, thread


@pytest.fixture(scope="session")
def rsa_files(tmp_path_factory, ca):
    """A certificate with an RSA key; trustme's own choice is ECDSA."""
    leaf, folder = ca.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA), tmp_path_factory.mktemp("rsa")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    return folder / "both.pem", folder / "both.pem"


def finish(thread: threading.Thread) -> None:
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("size", SIZES)
def test_a_covered_client_exchanges_streams_with_a_foreign_server(
    covered, transfer_command, tls_files, engine, mode, version, size
):
    port, results, thread = serve_once(server_context(tls_files.cert, tls_files.key, version=version), size)
    program = covered(transfer_command("client", f"127.0.0.1:{port}", size, mode), outbound=[port], ca=tls_files.ca)
    assert program.results() == [{"received": size, "sha256": stream_digest(size)}]
    finish(thread)
    received, digest, peer = results[0]
    assert (received, digest) == (size, stream_digest(size))
    assert peer.saw_close_notify
    opened = program.event("open")
    assert (opened["version"], opened["engine"]) == (f"TLSv{version}", engine)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("size", SIZES)
def test_a_covered_server_exchanges_streams_with_a_foreign_client(
    covered, transfer_command, tls_files, engine, free_port, mode, version, size
):
    port = free_port()
    program = covered(
        transfer_command("server", f"127.0.0.1:{port}", size, mode),
        inbound=[port],
        cert=tls_files.cert,
        key=tls_files.key,
        wait_port=port,
    )
    context = client_context(tls_files.ca, version=version)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        peer = TlsPeer(sock, context, hostname="localhost").handshake()
        assert peer.transfer(size) == (size, stream_digest(size))
        assert peer.saw_close_notify
    assert program.results() == [{"received": size, "sha256": stream_digest(size)}]
    opened = program.event("open")
    assert (opened["version"], opened["engine"]) == (f"TLSv{version}", engine)


@pytest.mark.parametrize(("iana", "openssl"), TLS12.items())
def test_each_tls12_cipher_of_a_foreign_server_is_served(
    covered, transfer_command, tls_files, rsa_files, engine, iana, openssl
):
    certificate, key = rsa_files if openssl.startswith("ECDHE-RSA") else (tls_files.cert, tls_files.key)
    context = server_context(certificate, key, version="1.2", ciphers=openssl)
    port, results, thread = serve_once(context, 40000)
    program = covered(transfer_command("client", f"127.0.0.1:{port}", 40000), outbound=[port], ca=tls_files.ca)
    assert program.results()[0]["sha256"] == stream_digest(40000)
    finish(thread)
    assert results[0][:2] == (40000, stream_digest(40000))
    assert (program.event("open")["cipher"], program.event("open")["engine"]) == (iana, engine)


@pytest.mark.parametrize("suite", TLS13)
@pytest.mark.parametrize("role", ["client", "server"])
def test_each_tls13_suite_the_policy_names_is_used(
    covered, transfer_command, tls_files, write_policy, free_port, engine, suite, role
):
    """Both ends are covered, so that a suite the standard library's peer does not offer is met too."""
    port = free_port()
    text = f"""
version = 1
[keyring.k]
certificate = "{tls_files.cert}"
private_key = "{tls_files.key}"
trust = ["{tls_files.ca}"]
[action.one]
keyring = "k"
ciphers = ["{suite}"]
engine = "{{engine}}"
[[rule]]
name = "both"
direction = "{"outbound" if role == "client" else "inbound"}"
{"remote_port" if role == "client" else "local_port"} = ["{port}"]
verdict = "tls"
action = "one"
"""
    policy = write_policy(text)
    server_options: dict = (
        {"policy": policy} if role == "server" else {"inbound": [port], "cert": tls_files.cert, "key": tls_files.key}
    )
    client_options: dict = {"policy": policy} if role == "client" else {"outbound": [port], "ca": tls_files.ca}
    server = covered(transfer_command("server", f"127.0.0.1:{port}", 40000), wait_port=port, **server_options)
    client = covered(transfer_command("client", f"127.0.0.1:{port}", 40000), **client_options)
    assert client.results()[0]["sha256"] == stream_digest(40000)
    assert server.results()[0]["sha256"] == stream_digest(40000)
    assert (client.event("open")["cipher"], server.event("open")["cipher"]) == (suite, suite)
    assert (client.event("open")["engine"], server.event("open")["engine"]) == (engine, engine)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_fifty_megabytes_each_way_at_once_between_two_covered_programs(
    covered, transfer_command, tls_files, free_port, engine, mode
):
    total, port = 50_000_000, free_port()
    server = covered(
        transfer_command("server", f"127.0.0.1:{port}", total, mode),
        inbound=[port],
        cert=tls_files.cert,
        key=tls_files.key,
        wait_port=port,
    )
    client = covered(transfer_command("client", f"127.0.0.1:{port}", total, mode), outbound=[port], ca=tls_files.ca)
    wanted = [{"received": total, "sha256": stream_digest(total)}]
    assert client.results() == wanted
    assert server.results() == wanted
    assert (client.event("open")["engine"], server.event("open")["engine"]) == (engine, engine)


@pytest.mark.parametrize("mode", MODES)
def test_ipv6_is_served_like_ipv4(covered, transfer_command, tls_files, mode):
    context = server_context(tls_files.cert, tls_files.key)
    port, results, thread = serve_once(context, 1000, socket.AF_INET6)
    program = covered(transfer_command("client", f"[::1]:{port}", 1000, mode), outbound=[port], ca=tls_files.ca)
    assert program.results()[0]["sha256"] == stream_digest(1000)
    finish(thread)
    assert results[0][:2] == (1000, stream_digest(1000))


def test_one_server_serves_many_clients_and_reads_its_keyring_once(covered, transfer_command, tls_files, free_port):
    """Fig. 3 block 315: the environment is created at the first connection and shared by the rest."""
    port, clients = free_port(), 20
    program = covered(
        transfer_command("server", f"127.0.0.1:{port}", 1000, "asyncio", clients),
        inbound=[port],
        cert=tls_files.cert,
        key=tls_files.key,
        wait_port=port,
    )
    context = client_context(tls_files.ca)

    def fetch(out: list) -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            out.append(TlsPeer(sock, context, hostname="localhost").handshake().transfer(1000))

    out: list = []
    threads = [threading.Thread(target=fetch, args=(out,)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert out == [(1000, stream_digest(1000))] * clients
    assert [result["sha256"] for result in program.results()] == [stream_digest(1000)] * clients


def test_connections_that_no_rule_names_stay_clear(covered, transfer_command, tls_files, free_port):
    port, other = free_port(), free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:
        program = covered(transfer_command("client", f"127.0.0.1:{port}", 5), outbound=[other], ca=tls_files.ca)
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(100, socket.MSG_WAITALL) == bytes(range(5))
            sock.sendall(b"clear")
            sock.shutdown(socket.SHUT_WR)
            assert program.results()[0]["received"] == 5


Command = Callable[..., list[str]]

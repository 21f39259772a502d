"""What all tests share: certificates made for the run, a free port, a count of descriptors, the rule for the lab."""

import errno
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import trustme
from cryptography.hazmat.backends.openssl.backend import backend

# The same examples each time, and no deadline, since a busy machine is no defect.
hypothesis.settings.register_profile("ktls", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ktls")

TCP_ULP = 31  # include/uapi/linux/tcp.h
LAB = Path(__file__).parent / "lab"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files on disk: a server's and a client's certificate and key, and the authority that issued both."""

    cert: Path
    key: Path
    ca: Path
    client_cert: Path
    client_key: Path


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """The authority whom the tests trust."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_certificate(ca: trustme.CA) -> trustme.LeafCert:
    """A server's certificate for localhost, 127.0.0.1 and ::1."""
    return ca.issue_cert("localhost", "127.0.0.1", "::1")


@pytest.fixture(scope="session")
def client_certificate(ca: trustme.CA) -> trustme.LeafCert:
    """A client's certificate."""
    return ca.issue_cert("client@example.test", common_name="client")


@pytest.fixture(scope="session")
def tls_files(
    tmp_path_factory: pytest.TempPathFactory,
    ca: trustme.CA,
    server_certificate: trustme.LeafCert,
    client_certificate: trustme.LeafCert,
) -> TlsFiles:
    """The same as files: cert.pem, key.pem, ca.pem, client-cert.pem, client-key.pem."""
    folder = tmp_path_factory.mktemp("tls")
    files = TlsFiles(
        cert=folder / "cert.pem",
        key=folder / "key.pem",
        ca=folder / "ca.pem",
        client_cert=folder / "client-cert.pem",
        client_key=folder / "client-key.pem",
    )
    _write_chain(server_certificate, files.cert, files.key)
    _write_chain(client_certificate, files.client_cert, files.client_key)
    ca.cert_pem.write_to_path(str(files.ca))
    return files


def _write_chain(certificate: trustme.LeafCert, chain: Path, key: Path) -> None:
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    key.chmod(0o600)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Call it for a TCP port that nobody uses on 127.0.0.1 or ::1."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    return find


@pytest.fixture
def fd_count() -> Callable[..., int]:
    """Call it, with a process's number or without, for how many descriptors that process (this one) has open."""

    def count(pid: int | None = None) -> int:
        # Listing our own takes a descriptor while it lasts.
        return len(list(Path(f"/proc/{pid or 'self'}/fd").iterdir())) - (pid is None)

    return count


@cache
def kernel_has_tls() -> bool:
    """Try the ULP on a socket that is not connected: ENOTCONN means that it is there."""
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        except OSError as error:
            return error.errno == errno.ENOTCONN
    return True


def pytest_report_header() -> list[str]:
    """Say what the results depend on."""
    kernel_tls = "with kTLS" if kernel_has_tls() else "without kTLS"
    return [
        f"kernel: Linux {os.uname().release} {kernel_tls}, {os.cpu_count()} CPUs",
        f"openssl: {backend.openssl_version_text()} (cryptography), {ssl.OPENSSL_VERSION} (ssl)",
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in tests/lab; without kTLS it is skipped, or fails where the lab is required."""
    for item in items:
        if item.path.is_relative_to(LAB):
            item.add_marker("lab")
    if kernel_has_tls() or os.environ.get("KTLS_REQUIRE_LAB") == "1":
        return
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.skip(reason="this kernel has no kTLS: tools/lab uml -- pytest ..."))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the developer's shell says about ktls out of the tests."""
    for name in ("KTLS_AGENT", "KTLS_POLICY", "KTLS_FD_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KTLS_RECORDS", "off")  # the tests' connections are nobody's record

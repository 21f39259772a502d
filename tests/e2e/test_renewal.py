"""Certificates, keys, anchors, CRLs and policies that change under a running program: what new connections get."""

import re
import shutil
import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ktls.agent import fate
from ktls.pump import LINGER
from tests.e2e.harness import until
from tests.e2e.peer import TlsPeer, client_context
from tests.e2e.served import ECHO, Served, serve

__all__ = ["serve"]

PAGE = (Path(__file__).parents[2] / "docs/renewal.md").read_text()


@pytest.fixture
def fresh(ca) -> trustme.LeafCert:
    """A renewed certificate."""
    return ca.issue_cert("localhost")


def der(certificate: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())


def in_place(folder: Path, certificate: trustme.LeafCert) -> None:
    (folder / "cert.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
    (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())


def renamed_over(folder: Path, certificate: trustme.LeafCert) -> None:
    for name, data in (("cert.pem", certificate.cert_chain_pems[0]), ("key.pem", certificate.private_key_pem)):
        (folder / f".{name}").write_bytes(data.bytes())
        (folder / f".{name}").rename(folder / name)


def linked_files(folder: Path, certificate: trustme.LeafCert) -> None:
    """As certbot does: each name is a link that is set to another file, elsewhere."""
    archive = folder / "archive"
    archive.mkdir(exist_ok=True)
    in_place(archive, certificate)
    for name in ("cert.pem", "key.pem"):
        (folder / "link").symlink_to(Path("archive") / name)
        (folder / "link").rename(folder / name)


def linked_folder(folder: Path, certificate: trustme.LeafCert) -> None:
    """As Kubernetes does: names are links through a link to a folder, and that one is swapped."""
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    in_place(version, certificate)
    (folder / "..tmp").symlink_to(version.name)
    (folder / "..tmp").rename(folder / "..data")
    for name in ("cert.pem", "key.pem"):
        if not (folder / name).is_symlink():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(f"..data/{name}")


def moved_folder(folder: Path, certificate: trustme.LeafCert) -> None:
    """The whole folder is replaced by another."""
    other = folder.with_name("other")
    other.mkdir()
    in_place(other, certificate)
    folder.rename(folder.with_name("old"))
    other.rename(folder)


@pytest.mark.parametrize("renew", [in_place, renamed_over, linked_files, linked_folder, moved_folder])
def test_new_connections_are_shown_the_renewed_certificate(serve, ca, fresh, tmp_path, renew):
    folder = tmp_path / "tls"
    folder.mkdir()
    first = ca.issue_cert("localhost")
    (in_place if renew is moved_folder else renew)(folder, first)
    served = serve(folder=folder)
    assert served.certificate() == der(first)
    renew(folder, fresh)
    until(lambda: served.certificate() == der(fresh), "the renewed certificate")
    assert served.program.events("refused") == []


def test_where_nothing_tells_of_changes_they_are_seen_all_the_same(serve, fresh, monkeypatch):
    """The system has no more inotify instances (128 for each user, as a rule)."""

    def watch(*_, **__):
        raise RuntimeError("Too many open files (os error 24)")

    monkeypatch.setattr("watchfiles.watch", watch)
    served = serve()
    renamed_over(served.folder, fresh)
    until(lambda: served.certificate() == der(fresh), "the renewed certificate")


def test_the_commands_of_the_page_renew_a_certificate(serve, fresh, tls_files, tmp_path):
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    served = serve()
    (tmp_path / "renewed.pem").write_bytes(fresh.cert_chain_pems[0].bytes())
    (tmp_path / "renewed.key").write_bytes(fresh.private_key_pem.bytes())
    subprocess.run(
        ["sh", "-ec", commands.replace("web.", "cert.").replace("cert.key", "key.pem")], cwd=tmp_path, check=True
    )
    until(lambda: served.certificate() == der(fresh), "the renewed certificate")


def test_the_page_tells_of_every_event_and_time():
    events = set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE))
    assert events == {"renewed", "policy", "refused", "restored", "change", "rekey"}
    assert f"no byte has moved for {fate.IDLE:g} seconds" in PAGE
    assert f"after {fate.DRAIN / 60:g} minutes in any case" in PAGE
    assert f"is waited for {LINGER:g} seconds" in PAGE


def test_a_renewal_that_is_half_written_waits_for_the_other_half(serve, fresh, tls_files):
    """The new certificate is there before its key: until both are, the old pair serves."""
    served = serve()
    (served.folder / "cert.pem").write_bytes(fresh.cert_chain_pems[0].bytes())
    refused = served.program.event("refused")
    assert "is not the key of the first certificate" in refused["message"]
    assert served.certificate() == ssl.PEM_cert_to_DER_cert(tls_files.cert.read_text())
    (served.folder / "key.pem").write_bytes(fresh.private_key_pem.bytes())
    until(lambda: served.certificate() == der(fresh), "the renewed certificate")


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nMIIB", None], ids=["empty", "cut", "gone"])
def test_a_broken_renewal_keeps_the_old_one_and_is_said_once(serve, tls_files, broken):
    served = serve()
    file = served.folder / "cert.pem"
    file.unlink() if broken is None else file.write_bytes(broken)
    refused = served.program.event("refused")
    assert (refused["what"], refused["keyring"], refused["error"]) == ("keyring", "web", "keyring")
    assert str(file) in refused["files"]
    assert str(file) in refused["message"]
    assert refused["hint"]
    for _ in range(3):
        assert served.certificate() == ssl.PEM_cert_to_DER_cert(tls_files.cert.read_text())
    shutil.copy(tls_files.cert, file)  # what it was: nothing is renewed, and the next break is told again
    assert served.program.event("restored")["keyring"] == "web"
    assert len(served.program.events("refused")) == 1
    assert served.program.events("renewed") == []
    file.write_bytes(b"broken anew")
    until(lambda: len(served.program.events("refused")) == 2, "the second complaint")


def test_a_new_anchor_in_a_directory_is_trusted(serve, tmp_path, tls_files):
    anchors, other = tmp_path / "anchors", trustme.CA()
    anchors.mkdir()
    shutil.copy(tls_files.ca, anchors / "first.pem")
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    client = other.issue_cert("client@example.test")
    certificate.write_bytes(client.cert_chain_pems[0].bytes())
    key.write_bytes(client.private_key_pem.bytes())
    served = serve('client_auth = "required"', f'trust = ["{anchors}"]')

    def is_let_in() -> bool:
        sock = socket.create_connection(("127.0.0.1", served.port))
        context = client_context(str(tls_files.ca))
        context.load_cert_chain(certificate, key)
        peer = TlsPeer(sock, context, hostname="localhost").handshake()
        try:
            peer.send(b"ping")
            return peer.receive() == b"ping"
        except OSError:  # ssl's errors are such
            return False
        finally:
            sock.close()

    assert not is_let_in()
    other.cert_pem.write_to_path(str(anchors / "second.pem"))
    until(is_let_in, "the new anchor")


def test_a_certificate_that_is_revoked_is_refused_from_then_on(serve, tmp_path, ca, tls_files, client_certificate):
    crl = tmp_path / "ca.crl"
    crl.write_bytes(revocation_list(ca, []))
    served = serve('client_auth = "required"', f'trust = ["{tls_files.ca}"]\ncrl = ["{crl}"]')

    def is_let_in() -> bool:
        sock = socket.create_connection(("127.0.0.1", served.port))
        context = client_context(str(tls_files.ca))
        context.load_cert_chain(tls_files.client_cert, tls_files.client_key)
        peer = TlsPeer(sock, context, hostname="localhost").handshake()
        try:
            peer.send(b"ping")
            return peer.receive() == b"ping"
        except OSError:
            return False
        finally:
            sock.close()

    assert is_let_in()
    crl.write_bytes(revocation_list(ca, [x509.load_pem_x509_certificate(tls_files.client_cert.read_bytes())]))
    until(lambda: not is_let_in(), "the revocation")


def revocation_list(ca: trustme.CA, revoked: list[x509.Certificate]) -> bytes:
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(issuer.subject, now - timedelta(1), now + timedelta(1))
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder(certificate.serial_number, now - timedelta(1)).build()
        builder = builder.add_revoked_certificate(entry)
    signed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    return signed.public_bytes(serialization.Encoding.PEM)


def test_a_policy_that_changes_decides_the_next_connection(serve, tls_files):
    served = serve()
    before = served.connect()
    policy = served.policy
    policy.write_text(policy.read_text().replace("alpn = []", 'alpn = ["ktls-test"]'))
    event = served.program.event("policy")
    assert event["revision"] != event["before"]
    after = TlsPeer(
        socket.create_connection(("127.0.0.1", served.port)), with_alpn(tls_files.ca), hostname="localhost"
    ).handshake()
    assert after.tls.selected_alpn_protocol() == "ktls-test"
    before.send(b"still here")
    assert before.receive_exactly(10) == b"still here"


def with_alpn(ca: Path) -> ssl.SSLContext:
    context = client_context(str(ca))
    context.set_alpn_protocols(["ktls-test"])
    return context


def test_a_policy_with_mistakes_leaves_the_old_one_and_says_all_of_them(serve):
    served = serve()
    policy = served.policy
    good = policy.read_text()
    policy.write_text(
        good.replace("alpn = []", 'alpn = [1], min_version = "1.1"') + '[keyring.new]\ncrl = ["none.crl"]\n'
    )
    refused = served.program.event("refused")
    assert refused["what"] == "policy"
    for part in ("alpn", "min_version", "none.crl", f"{policy.name}:"):
        assert part in refused["message"]
    served.connect().sock.close()
    policy.write_text(good.replace("alpn = []", "alpn = [], handshake_timeout = 3.0"))
    assert served.program.event("policy")["rules"] == 1


def test_a_policy_whose_new_keyring_cannot_be_opened_leaves_the_old_one(serve, tmp_path, fresh):
    served = serve()
    policy = served.policy
    (tmp_path / "new.pem").write_bytes(fresh.cert_chain_pems[0].bytes())
    policy.write_text(policy.read_text().replace("/cert.pem", "/new.pem"))  # and the key of the old one
    assert "is not the key of" in served.program.event("refused")["message"]
    served.connect().sock.close()
    assert served.program.events("policy") == []


def test_a_keyring_of_the_command_line_is_watched_too(covered, tls_files, fresh, free_port, tmp_path):
    shutil.copy(tls_files.cert, tmp_path / "cert.pem")
    shutil.copy(tls_files.key, tmp_path / "key.pem")
    port = free_port()
    keyring = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    program = covered([*ECHO, str(port)], own_agent=True, inbound=[port], wait_port=port, **keyring)
    served = Served(program, port, tmp_path, tls_files.ca)
    (tmp_path / "cert.pem").write_bytes(fresh.cert_chain_pems[0].bytes())
    program.event("refused")
    until(lambda: "is not right, and the old one stays" in program.log.read_text(), "the agent's standard error")
    renamed_over(tmp_path, fresh)
    until(lambda: served.certificate() == der(fresh), "the renewed certificate")

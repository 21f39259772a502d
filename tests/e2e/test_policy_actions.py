"""Each key of an action and of a keyring makes the difference that docs/policy.md says, on live connections.

Each test has one policy with the key and one without it, or with another value, and the outcome differs. The program is
a client here, the other end Python's ssl; test_policy_servers.py has the program as a server.
"""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from tests.e2e.decided import SAID, connect
from tests.e2e.peer import client_context, server_context
from tests.e2e.test_failures import leaf_files
from tests.ktls.handshake_peer import dns, ip, make_leaf, uri

__all__ = ["connect"]


@pytest.fixture
def policy(tls_files):
    """The text of a policy for clients: call it with the keys of the action, and of its keyring."""

    def text(action: str = "", keyring: str | None = None, engine: str = "{engine}") -> str:
        trust = f'trust = ["{tls_files.ca}"]' if keyring is None else keyring
        return f"""
[keyring.k]
{trust}
[action.a]
keyring = "k"
engine = "{engine}"
{action}
[[rule]]
name = "out"
direction = "outbound"
remote_port = ["PORT"]
verdict = "tls"
action = "a"
"""

    return text


@pytest.fixture
def server(tls_files):
    """The context of a server that our authority vouches for; options as in tests/e2e/peer.py."""
    return lambda **options: server_context(str(tls_files.cert), str(tls_files.key), **options)


def of(leaf: trustme.LeafCert, folder: Path) -> ssl.SSLContext:
    return server_context(*map(str, leaf_files(folder, leaf)))


VERIFY = {
    "ours, for this name": ("open", "open", "open"),
    "ours, for another name": ("EKEYREJECTED", "open", "open"),
    "somebody else's": ("EKEYREJECTED", "EKEYREJECTED", "open"),
}


@pytest.mark.parametrize(("mode", "number"), [("name", 0), ("chain", 1), ("none", 2)])
@pytest.mark.parametrize("whose", VERIFY)
def test_verify(connect, policy, ca, tmp_path, whose, mode, number):
    issuer = trustme.CA() if whose == "somebody else's" else ca
    leaf = issuer.issue_cert("elsewhere.example" if "another" in whose else "127.0.0.1")
    fate = connect(policy(f'verify = "{mode}"'), of(leaf, tmp_path))
    assert str(fate) == VERIFY[whose][number]


@pytest.mark.parametrize(("line", "fate"), [("", "EKEYREJECTED"), ('peer_name = "elsewhere.example"', "open")])
def test_peer_name(connect, policy, ca, tmp_path, line, fate):
    assert str(connect(policy(line), of(ca.issue_cert("elsewhere.example"), tmp_path))) == fate


@pytest.mark.parametrize(
    "identity", ["DNS:*.svc.example", "IP:192.0.2.9", "URI:spiffe://example/app", "EMAIL:app@example.com", "SHA256:"]
)
def test_peer_identities(connect, policy, ca, tmp_path, identity):
    def server(number: int, who: str) -> tuple[ssl.SSLContext, str]:
        names = dns(f"{who}.svc.example" if who == "app" else "app.example"), ip(f"192.0.2.{number}")
        pair = make_leaf(
            tmp_path, who, ca, *names, uri(f"spiffe://example/{who}"), x509.RFC822Name(f"{who}@example.com")
        )
        return server_context(str(pair.cert), str(pair.key)), pair.leaf.fingerprint(SHA256()).hex()

    (ours, digest), (other, _) = server(9, "app"), server(8, "other")
    wanted = identity + digest if identity == "SHA256:" else identity
    line = f'verify = "chain"\npeer_identities = ["{wanted}"]'
    assert str(connect(policy(line), ours)) == "open"
    assert str(connect(policy(line), other)) == "EKEYREJECTED"


@pytest.mark.parametrize(("line", "fate"), [("", "open"), ('min_version = "1.3"', "EPROTO")])
def test_min_version(connect, policy, server, line, fate):
    assert str(connect(policy(line), server(version="1.2"))) == fate


@pytest.mark.parametrize(("line", "fate"), [("", "open"), ('max_version = "1.2"', "EPROTO")])
def test_max_version(connect, policy, server, line, fate):
    assert str(connect(policy(line), server(version="1.3"))) == fate


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_ciphers(connect, policy, server, suite):
    assert connect(policy(f'ciphers = ["{suite}"]'), server()).event["cipher"] == suite


def test_alpn(connect, policy, server):
    def talks(*protocols: str) -> ssl.SSLContext:
        context = server()
        context.set_alpn_protocols(protocols)
        return context

    fate = connect(policy('alpn = ["h2", "http/1.1"]'), talks("http/1.1"))
    assert fate.peer.tls.selected_alpn_protocol() == fate.event["alpn"] == "http/1.1"
    fate = connect(policy(), talks("http/1.1"))
    assert (fate.peer.tls.selected_alpn_protocol(), fate.event.get("alpn")) == (None, None)


@pytest.mark.parametrize(("line", "fate"), [("", "open"), ("handshake_timeout = 0.2", "ETIMEDOUT")])
def test_handshake_timeout(connect, policy, server, line, fate):
    assert str(connect(policy(line), server(), after=1.5)) == fate


def test_role(connect, policy, tls_files, server):
    """A program that connects may be the server: it shows the certificate, the other end speaks first."""
    pair = f'certificate = "{tls_files.cert}"\nprivate_key = "{tls_files.key}"'
    text = policy('role = "server"', pair)
    assert str(connect(text, client_context(str(tls_files.ca)), as_client=True)) == "open"
    assert str(connect(policy(), client_context(str(tls_files.ca)), as_client=True)) == "EPROTO"


ENGINES = {  # by what there is: a kernel with kTLS, and one without; no card in either
    "kernel": {"auto": "kernel", "no-nic": "kernel", "kernel": "kernel", "relay": "relay", "nic": None},
    "relay": {"auto": "relay", "no-nic": "relay", "kernel": None, "relay": "relay", "nic": None},
}


@pytest.mark.parametrize("wanted", ENGINES["relay"])
def test_engine(connect, policy, server, engine, wanted):
    fate = connect(policy(engine=wanted), server())
    expected = ENGINES[engine][wanted]
    if expected is None:  # one by name is never replaced by another
        assert (fate.event["event"], fate.event["error"], fate.result.get("received")) == (
            "failed",
            "engine-unavailable",
            None,
        )
    else:
        assert (str(fate), fate.event["engine"], fate.result["received"]) == ("open", expected, len(SAID))


def test_keylog(connect, policy, server, tmp_path):
    log = tmp_path / "secrets"
    assert str(connect(policy(), server())) == "open"
    assert not log.exists()
    assert str(connect(policy(f'keylog = "{log}"'), server())) == "open"
    assert (
        log.read_text().startswith("SERVER_HANDSHAKE_TRAFFIC_SECRET ") or "CLIENT_TRAFFIC_SECRET_0 " in log.read_text()
    )
    assert log.stat().st_mode & 0o777 == 0o600


def test_keyring_trust(connect, policy, server, tls_files):
    assert str(connect(policy(keyring=f'trust = ["{tls_files.ca}"]'), server())) == "open"
    assert str(connect(policy(keyring=""), server())) == "EKEYREJECTED"  # the system's
    folder = tls_files.ca.parent / "anchors"
    folder.mkdir(exist_ok=True)
    (folder / "ours.pem").write_bytes(tls_files.ca.read_bytes())
    assert str(connect(policy(keyring=f'trust = ["system", "{folder}"]'), server())) == "open"


def test_client_certificate(connect, policy, server, tls_files):
    """A keyring's certificate is what a client shows when it is asked."""
    asking = {"verify_mode": ssl.CERT_REQUIRED}

    def strict() -> ssl.SSLContext:
        context = server(version="1.2", **asking)
        context.load_verify_locations(str(tls_files.ca))
        return context

    pair = (
        f'trust = ["{tls_files.ca}"]\ncertificate = "{tls_files.client_cert}"\nprivate_key = "{tls_files.client_key}"'
    )
    fate = connect(policy(keyring=pair), strict())
    assert (str(fate), dict(fate.peer.tls.getpeercert()["subject"][-1])) == ("open", {"commonName": "client"})
    assert str(connect(policy(), strict())) == "EPROTO"

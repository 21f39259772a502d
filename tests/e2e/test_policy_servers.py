"""Each key of an action and of a keyring that is about servers makes the difference that docs/policy.md says."""

import socket
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificate

from ktls.errors import AgentUnreachable
from tests.e2e.decided import decided, visit
from tests.e2e.harness import until
from tests.e2e.peer import client_context
from tests.e2e.test_failures import leaf_files

__all__ = ["visit"]
RECEIVED = len(b"hello")


@pytest.fixture
def policy(tls_files):
    """The text of a policy for servers: call it with the keys of the action, those of its keyring, and more tables."""

    def text(action: str = "", keyring: str | None = None, more: str = "") -> str:
        pair = f'certificate = "{tls_files.cert}"\nprivate_key = "{tls_files.key}"\ntrust = ["{tls_files.ca}"]'
        return f"""
[keyring.k]
{pair if keyring is None else keyring}
{more}
[action.a]
keyring = "k"
engine = "{{engine}}"
{action}
[[rule]]
name = "in"
direction = "inbound"
local_port = ["PORT"]
verdict = "tls"
action = "a"
"""

    return text


@pytest.fixture
def client(tls_files, tmp_path):
    """A client's context: one that our authority vouches for, a stranger, or one without a certificate."""

    def make(who: str = "nobody", **options) -> ssl.SSLContext:
        context = client_context(str(tls_files.ca), **options)
        if who == "ours":
            context.load_cert_chain(tls_files.client_cert, tls_files.client_key)
        elif who == "stranger":
            context.load_cert_chain(*leaf_files(tmp_path, trustme.CA().issue_cert("stranger@example.test")))
        return context

    return make


CLIENT_AUTH = {  # what a client without a certificate, a stranger and one of ours get
    "none": ("open", "open", "open"),
    "passthru": ("open", "open", "open"),
    "full": ("open", "EKEYREJECTED", "open"),
    "required": ("EKEYREJECTED", "EKEYREJECTED", "open"),
}


@pytest.mark.parametrize("level", CLIENT_AUTH)
def test_client_auth(visit, policy, client, level):
    visits = visit(policy(f'client_auth = "{level}"'), *map(client, ("nobody", "stranger", "ours")))
    assert tuple(map(str, visits)) == CLIENT_AUTH[level]
    assert [one.result.get("received") for one in visits] == [
        RECEIVED if fate == "open" else None for fate in CLIENT_AUTH[level]
    ]
    shown = ["peer" in one.event for one in visits if str(one) == "open"]
    assert shown == {"none": [0, 0, 0], "passthru": [0, 1, 1], "full": [0, 1], "required": [1]}[level]


def test_a_thread_that_still_waits_to_write_to_a_refused_connection_reaches_no_other(visit, policy, client):
    """The number of its descriptor is the next connection's by then, which is bare until policy has decided on it."""
    visits = visit(policy('client_auth = "required"'), *(client("ours"), client("stranger")) * 12)
    assert list(map(str, visits)) == ["open", "EKEYREJECTED"] * 12
    assert [one.error for one in visits[::2]] == [None] * 12  # clear text of the other thread would be no record


@pytest.mark.parametrize(
    ("identity", "fate"), [("EMAIL:client@example.test", "open"), ("EMAIL:other@example.test", "EKEYREJECTED")]
)
def test_client_auth_map(visit, policy, client, identity, fate):
    table = f'[[map]]\nidentity = "{identity}"\nuser = "app"\n'
    (one,) = visit(policy('client_auth = "map"', more=table), client("ours", version="1.2"))
    assert (str(one), one.event.get("peer_user")) == (fate, "app" if fate == "open" else None)
    if fate != "open":
        assert "no local user" in one.event["message"]
        assert isinstance(one.error, ssl.SSLError)  # an alert has come
        assert "alert bad certificate" in str(one.error).lower()


def test_client_auth_map_lets_nobody_in_who_shows_no_certificate(visit, policy, client):
    table = '[[map]]\nidentity = "EMAIL:client@example.test"\nuser = "app"\n'
    assert list(map(str, visit(policy('client_auth = "map"', more=table), client()))) == ["EKEYREJECTED"]


@pytest.mark.parametrize(("name", "fate"), [("client@example.test", "open"), ("x@example.test", "EKEYREJECTED")])
def test_peer_identities_of_clients(visit, policy, client, name, fate):
    action = f'client_auth = "required"\npeer_identities = ["EMAIL:{name}"]'
    assert list(map(str, visit(policy(action), client("ours")))) == [fate]


def test_sni(visit, policy, client, ca, tmp_path, tls_files):
    chain, key = leaf_files(tmp_path, ca.issue_cert("*.shop.example"))
    pair = f'certificate = "{tls_files.cert}"\nprivate_key = "{tls_files.key}"'
    sni = f'[[keyring.k.sni]]\nnames = ["*.shop.example"]\ncertificate = "{chain}"\nprivate_key = "{key}"\n'
    (one,) = visit(policy(keyring=pair, more=sni), client(), sni="a.shop.example")
    assert (str(one), one.error, one.event["server_name"]) == ("open", None, "a.shop.example")
    (one,) = visit(policy(keyring=pair, more=sni), client())
    assert one.error is None
    (one,) = visit(policy(keyring=pair), client(), sni="a.shop.example")
    assert isinstance(one.error, ssl.SSLCertVerificationError)


def test_certificate_and_private_key(visit, policy, client, ca, tmp_path, tls_files):
    chain, key = leaf_files(tmp_path, ca.issue_cert("elsewhere.example"))
    (one,) = visit(policy(keyring=f'certificate = "{chain}"\nprivate_key = "{key}"'), client(), sni="elsewhere.example")
    assert one.error is None
    (one,) = visit(policy(), client(), sni="elsewhere.example")
    assert isinstance(one.error, ssl.SSLCertVerificationError)


@pytest.fixture
def locked(tls_files, tmp_path):
    """The server's certificate and key in one PKCS #12 file, and the key alone, both under a password in a file."""
    key = load_pem_private_key(tls_files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = load_pem_x509_certificate(tls_files.cert.read_bytes())
    sealed = BestAvailableEncryption(b"a password")
    (tmp_path / "both.p12").write_bytes(pkcs12.serialize_key_and_certificates(b"x", key, leaf, None, sealed))
    (tmp_path / "password").write_text("a password\n")
    (tmp_path / "wrong").write_text("another\n")
    return tmp_path


def test_pkcs12_and_password_file(visit, policy, client, locked):
    whole = f'pkcs12 = "{locked}/both.p12"\npassword_file = "{locked}/password"'
    assert list(map(str, visit(policy(keyring=whole), client()))) == ["open"]
    for wrong in (f'pkcs12 = "{locked}/both.p12"', whole.replace("/password", "/wrong")):
        with pytest.raises(AgentUnreachable, match=r"both\.p12"):
            visit(policy(keyring=wrong), client())


@pytest.mark.parametrize(("line", "fate"), [("", "open"), ("crl", "EKEYREVOKED")])
def test_crl(visit, policy, client, tls_files, tmp_path, revoke, client_certificate, line, fate):
    (tmp_path / "ca.crl").write_bytes(revoke(client_certificate))
    pair = f'certificate = "{tls_files.cert}"\nprivate_key = "{tls_files.key}"\ntrust = ["{tls_files.ca}"]\n'
    text = policy('client_auth = "required"', pair + (f'crl = ["{tmp_path}/ca.crl"]' if line else ""))
    assert list(map(str, visit(text, client("ours")))) == [fate]


@pytest.mark.parametrize("allowed", ["true", "false"])
def test_allow_clear_on_timeout(covered, transfer_command, write_policy, free_port, policy, allowed):
    """The client is silent until the deadline has passed, and then speaks in clear."""
    port = free_port()
    text = policy(f"handshake_timeout = 0.3\nallow_clear_on_timeout = {allowed}").replace("PORT", str(port))
    command = transfer_command("server", f"127.0.0.1:{port}", 5)
    program = covered(command, policy=write_policy("version = 1\n" + text), wait_port=port)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        until(lambda: program.events("clear") or program.events("failed"), "the deadline")
        if allowed == "true":
            sock.sendall(b"in clear")
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(5) == bytes(range(5))
        (result,) = program.results()
    event = decided(program)
    if allowed == "true":
        assert (event["event"], result["received"]) == ("clear", len(b"in clear"))
    else:
        assert (event["event"], event["errno_name"], result.get("received")) == ("failed", "ETIMEDOUT", None)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(("line", "resumed"), [("", True), ("resumption = { tickets = false }", False)])
def test_resumption(visit, policy, client, version, line, resumed):
    context = client(version=version)
    first, second = visit(policy(line), context, context, resume=True)
    assert (first.event["resumed"], second.event["resumed"], second.tls.session_reused) == (False, resumed, resumed)


@pytest.mark.parametrize(("line", "seconds"), [("", 7200), ("resumption = { lifetime = 77 }", 77)])
def test_the_lifetime_of_tickets(visit, policy, client, line, seconds):
    (one,) = visit(policy(line), client(version="1.3"))
    assert one.session is not None
    assert one.session.ticket_lifetime_hint == seconds

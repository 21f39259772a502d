"""Which peers the handshake driver lets in: their names, certificates and identities, as a client and as a server."""

from dataclasses import replace

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from ktls.ciphers import Version
from ktls.errors import (
    CertificateExpired,
    CertificateMissing,
    CertificateRejected,
    CertificateRevoked,
    NameMismatch,
    UnknownIssuer,
    UsageError,
)
from ktls.handshake import Handshake
from ktls.keyring import Keyring
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_peer import Pair, StdlibPeer, check_keys, peer_names, run, stdlib_client, stdlib_server, told
from tests.ktls.handshake_world import BOTH, FEEDS, World, client, only

# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feed", FEEDS)
@BOTH
def test_a_server_of_another_name_gets_neither_certificate_nor_finished(world, version, feed):
    pair = hp.save(world.folder, "elsewhere", world.ca.issue_cert("elsewhere.example"))
    peer = stdlib_server(pair, version, client_ca=world.ca_file)
    keyring = world.client_keyring(certificate=world.client.cert, private_key=world.client.key)
    driver = Handshake(world.as_client(keyring, **only(version)), server_name="localhost")
    outcome = run(driver, peer, feed)
    assert type(outcome.failed) is NameMismatch
    assert "'elsewhere.example'" in str(outcome.failed)
    hello = 5 + int.from_bytes(outcome.sent[3:5])
    assert len(outcome.sent) - hello <= 24  # one alert: 7 bytes in clear, 24 protected
    assert "alert bad certificate" in told(peer)


@pytest.mark.parametrize(
    ("server_name", "peer_name", "address", "good"),
    [
        ("localhost", None, None, True),
        ("LocalHost.", None, "192.0.2.1", True),
        ("127.0.0.1", None, None, True),
        (None, None, "127.0.0.1", True),
        (None, None, "::ffff:127.0.0.1", True),
        (None, None, "127.0.0.2", False),
        (None, None, None, False),
        ("other.example", "localhost", None, True),
        ("localhost", "other.example", None, False),
    ],
)
def test_the_name_checked_is_the_rules_the_resolved_one_or_the_address(world, server_name, peer_name, address, good):
    peer = stdlib_server(world.ec)
    driver = Handshake(world.as_client(peer_name=peer_name), server_name=server_name, peer_address=address)
    outcome = run(driver, peer)
    assert (outcome.session is not None) is good
    assert good or type(outcome.failed) is NameMismatch


def test_an_address_is_never_sent_as_sni(world):
    names: list[str | None] = []
    context = hp.server_context(world.ec)
    context.sni_callback = lambda _, name, __: names.append(name)
    for name in ("127.0.0.1", "localhost."):
        run(Handshake(world.as_client(), server_name=name), StdlibPeer(context, server_side=True))
    assert names == [None, "localhost"]


@pytest.mark.parametrize("name", ["a b", "x" * 254, "tab\tbed", "nul\0", ".", "b\u00fccher..example"])
def test_a_server_name_that_cannot_be_one_is_refused_before_anything_is_sent(world, name):
    with pytest.raises(UsageError):
        Handshake(world.as_client(), server_name=name)


@BOTH
def test_verify_chain_does_not_care_about_the_name_and_none_about_anything(world, version):
    stranger = hp.save(world.folder, "stranger", trustme.CA().issue_cert("stranger.example"))
    assert run(client(world, version, "x.example", verify="chain"), stdlib_server(world.ec, version)).session
    assert run(client(world, version, "x.example", verify="none"), stdlib_server(stranger, version)).session
    failed = run(client(world, version, "x.example", verify="chain"), stdlib_server(stranger, version)).failed
    assert type(failed) is UnknownIssuer


@BOTH
def test_a_server_certificate_that_makes_the_name_check_stumble_is_not_verified(world, version):
    pair = hp.make_leaf(world.folder, "stumble", world.ca, hp.dns("localhost"), hp.uri("https://good.example:8443/"))
    assert type(run(client(world, version), stdlib_server(pair, version)).failed) is NameMismatch


# --- chain, dates, revocation ----------------------------------------------------------------------------------------


def dated(world: World, name: str, start: int, end: int) -> Pair:
    leaf = world.ca.issue_cert("localhost", not_before=hp.now() + start * hp.DAY, not_after=hp.now() + end * hp.DAY)
    return hp.save(world.folder, name, leaf)


BAD_CERTIFICATES = {
    "expired": (CertificateExpired, "alert certificate expired", "has expired"),
    "early": (CertificateExpired, "alert certificate expired", "not valid yet"),
    "stranger": (UnknownIssuer, "alert unknown ca", "issuer that is not trusted"),
    "revoked": (CertificateRevoked, "alert certificate revoked", "is revoked"),
    "unlisted": (CertificateRejected, "alert bad certificate", "without revocation list"),
    "stale": (CertificateRejected, "alert bad certificate", "list has expired"),
    "self-signed": (UnknownIssuer, "alert unknown ca", "self-signed"),
}


def bad_certificate(world: World, kind: str) -> tuple[Pair, Keyring]:
    """The peer's certificate, and the keyring that must refuse it."""
    crl = world.folder / f"{kind}.crl"
    keyring = world.server_keyring()
    if kind == "expired":
        return dated(world, kind, -20, -10), keyring
    if kind == "early":
        return dated(world, kind, 10, 20), keyring
    if kind == "stranger":
        return hp.save(world.folder, kind, trustme.CA().issue_cert("localhost")), keyring
    if kind == "self-signed":
        ca = trustme.CA()
        pair = Pair(world.folder / "self.pem", world.folder / "self.key")
        ca.cert_pem.write_to_path(str(pair.cert))
        ca.private_key_pem.write_to_path(str(pair.key))
        return pair, keyring
    if kind == "unlisted":
        crl.write_bytes(hp.make_crl(trustme.CA()))
    else:
        revoked = [world.rsa.leaf] if kind == "revoked" else []
        crl.write_bytes(hp.make_crl(world.ca, *revoked, next_update=hp.now() - hp.DAY if kind == "stale" else None))
    return world.rsa, replace(keyring, crl=(crl,))


@pytest.mark.parametrize("kind", BAD_CERTIFICATES)
@BOTH
def test_a_server_certificate_that_is_no_good_is_told_apart_and_alerted(world, version, kind):
    pair, keyring = bad_certificate(world, kind)
    peer = stdlib_server(pair, version)
    keyring = replace(keyring, certificate=None, private_key=None)
    outcome = run(Handshake(world.as_client(keyring, **only(version)), server_name="localhost"), peer)
    expected, alert, words = BAD_CERTIFICATES[kind]
    assert type(outcome.failed) is expected
    assert words in str(outcome.failed)
    assert alert in told(peer)


@pytest.mark.parametrize("kind", BAD_CERTIFICATES)
@BOTH
def test_a_client_certificate_that_is_no_good_is_told_apart_and_alerted(world, version, kind):
    pair, keyring = bad_certificate(world, kind)
    peer = stdlib_client(world.ca_file, version=version, pair=pair)
    outcome = run(Handshake(world.as_server(keyring, client_auth="full", **only(version))), peer)
    expected, alert, words = BAD_CERTIFICATES[kind]
    assert type(outcome.failed) is expected
    assert words in str(outcome.failed)
    assert alert in told(peer)


def test_a_chain_with_an_intermediate_is_kept_whole(world):
    child = world.ca.create_child_ca()
    pair = hp.save(world.folder, "child", child.issue_cert("localhost"))
    session = run(client(world), stdlib_server(pair)).established
    assert len(session.peer_chain) == 2


def test_an_intermediate_that_is_revoked_is_refused_and_one_without_list_is_not(world):
    child = world.ca.create_child_ca()
    pair = hp.save(world.folder, "child2", child.issue_cert("localhost"))
    intermediate = x509.load_pem_x509_certificate(child.cert_pem.bytes())
    lists = world.folder / "child.crl", world.folder / "root.crl"
    lists[0].write_bytes(hp.make_crl(child))
    lists[1].write_bytes(hp.make_crl(world.ca, intermediate))
    good = Handshake(world.as_client(world.client_keyring(crl=lists[:1])), server_name="localhost")
    assert run(good, stdlib_server(pair)).session
    bad = Handshake(world.as_client(world.client_keyring(crl=lists)), server_name="localhost")
    assert type(run(bad, stdlib_server(pair)).failed) is CertificateRevoked


def test_a_certificate_in_trust_is_an_anchor_though_its_issuer_is_not(world):
    keyring = world.client_keyring(trust=(str(world.ec.cert),))
    assert run(Handshake(world.as_client(keyring), server_name="localhost"), stdlib_server(world.ec)).session


# --- client certificates and identities ------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", ["required", "map"])
@BOTH
def test_a_client_without_certificate_is_refused_where_one_is_required(world, version, auth):
    peer = stdlib_client(world.ca_file, version=version)
    environment = world.as_server(client_auth=auth, users=(("DNS:*.example", "app"),), **only(version))
    outcome = run(Handshake(environment), peer)
    assert type(outcome.failed) is CertificateMissing
    alerts = {Version.TLS12: "alert handshake failure", Version.TLS13: "alert certificate required"}
    assert alerts[version] in told(peer)


@pytest.mark.parametrize("auth", ["none", "passthru", "full"])
@BOTH
def test_a_client_without_certificate_may_come_elsewhere(world, version, auth):
    outcome = run(
        Handshake(world.as_server(client_auth=auth, **only(version))), stdlib_client(world.ca_file, version=version)
    )
    assert outcome.established.peer_chain == ()


@pytest.mark.parametrize("auth", ["passthru", "full", "required", "map"])
@BOTH
def test_a_client_certificate_is_in_the_session(world, version, auth):
    peer = stdlib_client(world.ca_file, version=version, pair=world.client)
    environment = world.as_server(client_auth=auth, users=(("DNS:*.example", "app"),), **only(version))
    outcome = run(Handshake(environment), peer)
    leaf = x509.load_der_x509_certificate(outcome.established.peer_chain[0])
    assert leaf == world.client.leaf
    check_keys(outcome, peer)


@BOTH
def test_a_client_certificate_is_mapped_to_the_first_user_that_fits(world, version):
    users = (("DNS:other.example", "nobody"), ("DNS:client.example", "app"), ("DNS:*.example", "guest"))
    peer = stdlib_client(world.ca_file, version=version, pair=world.client)
    outcome = run(Handshake(world.as_server(client_auth="map", users=users, **only(version))), peer)
    assert outcome.established.peer_user == "app"
    required = world.as_server(client_auth="required", users=users, **only(version))
    outcome = run(Handshake(required), stdlib_client(world.ca_file, version=version, pair=world.client))
    assert outcome.established.peer_user is None


@BOTH
def test_a_client_that_is_mapped_to_nobody_is_refused_before_our_finished_or_a_ticket(world, version):
    environment = world.as_server(client_auth="map", users=(("DNS:other.example", "app"),), **only(version))
    peer = stdlib_client(world.ca_file, version=version, pair=world.client)
    outcome = run(Handshake(environment), peer)
    assert type(outcome.failed) is NameMismatch
    assert "no local user" in outcome.failed.message
    assert "alert bad certificate" in told(peer)


@BOTH
def test_passthru_takes_any_certificate_and_full_does_not(world, version):
    stranger = hp.save(world.folder, "visitor", trustme.CA().issue_cert("visitor.example"))
    for auth, expected in (("passthru", None), ("full", UnknownIssuer)):
        peer = stdlib_client(world.ca_file, version=version, pair=stranger)
        outcome = run(Handshake(world.as_server(client_auth=auth, **only(version))), peer)
        assert outcome.error is None if expected is None else type(outcome.failed) is expected


@BOTH
def test_our_client_shows_its_certificate_when_asked(world, version):
    keyring = world.client_keyring(certificate=world.client.cert, private_key=world.client.key)
    peer = stdlib_server(world.ec, version, client_ca=world.ca_file)
    outcome = run(Handshake(world.as_client(keyring, **only(version)), server_name="localhost"), peer)
    check_keys(outcome, peer)
    assert peer_names(peer) == (("DNS", "client.example"),)


@BOTH
def test_a_client_of_another_identity_is_refused_before_our_finished_or_a_ticket(world, version):
    environment = world.as_server(client_auth="required", peer_identities=("DNS:other.example",), **only(version))
    peer = stdlib_client(world.ca_file, version=version, pair=world.client)
    outcome = run(Handshake(environment), peer)
    assert type(outcome.failed) is NameMismatch
    assert "alert bad certificate" in told(peer)
    if version is Version.TLS12:
        assert not peer.done


def digest(pair: Pair) -> str:
    return pair.leaf.fingerprint(SHA256()).hex()


def test_a_spiffe_id_and_a_digest_are_exact(world):
    workload = hp.make_leaf(world.folder, "workload", world.ca, hp.uri("spiffe://example.org/app"))
    for wanted, good in [
        ("URI:spiffe://example.org/app", True),
        ("URI:spiffe://example.org/ap", False),
        ("URI:spiffe://example.org/app/", False),
        ("URI:SPIFFE://example.org/app", False),
        (f"SHA256:{digest(workload)}", True),
        (f"SHA256:{digest(world.client)}", False),
    ]:
        environment = world.as_server(client_auth="required", peer_identities=("DNS:nobody.example", wanted))
        outcome = run(Handshake(environment), stdlib_client(world.ca_file, version=Version.TLS12, pair=workload))
        assert (outcome.session is not None) is good, wanted


def test_a_digest_is_enough_where_no_chain_is_checked(world):
    stranger = hp.save(world.folder, "pinned", trustme.CA().issue_cert("pinned.example"))
    for pair, good in ((stranger, True), (world.ec, False)):
        driver = client(world, verify="none", peer_identities=(f"SHA256:{digest(stranger)}",))
        assert (run(driver, stdlib_server(pair)).session is not None) is good

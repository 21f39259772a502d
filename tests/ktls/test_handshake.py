"""The handshake driver against peers that are not ours, in every suite, version and role, and what can go wrong."""

import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktls.ciphers import SUITES, CipherSuite, Role, Version, by_iana
from ktls.environment import Environment, TlsParameters
from ktls.errors import (
    CertificateExpired,
    CertificateMissing,
    CertificateRejected,
    CertificateRevoked,
    ClearTextError,
    HandshakeTimeout,
    KtlsError,
    NameMismatch,
    PeerAlert,
    PeerClosed,
    ProtocolError,
    RecordOverflow,
    UnknownIssuer,
    UsageError,
)
from ktls.handshake import Established, Failed, Handshake, NeedBytes, SendBytes, State
from ktls.keyring import Keyring, SniEntry
from ktls.records import ContentType, RecordProtection, RecordReader
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_peer import (
    Pair,
    PyPeer,
    StdlibPeer,
    all_at_once,
    byte_by_byte,
    check_keys,
    exact,
    run,
    stdlib_client,
    stdlib_server,
)

VERSIONS = [Version.TLS12, Version.TLS13]
FEEDS = [exact, byte_by_byte, all_at_once]
BOTH = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.label)


class World:
    """One authority and what it has issued, as files."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self.ec = hp.save(folder, "ec", self.ca.issue_cert("localhost", "127.0.0.1"))
        self.rsa = hp.save(folder, "rsa", self.ca.issue_cert("localhost", key_type=trustme.KeyType.RSA))
        self.client = hp.save(folder, "client", self.ca.issue_cert("client.example"))

    def pair_for(self, suite: CipherSuite) -> Pair:
        return self.rsa if "_RSA_" in suite.iana_name else self.ec

    def client_keyring(self, **more) -> Keyring:
        return Keyring("c", **{"trust": (str(self.ca_file),), **more})

    def server_keyring(self, pair: Pair | None = None, **more) -> Keyring:
        pair = pair or self.ec
        return Keyring(
            "s", **{"certificate": pair.cert, "private_key": pair.key, "trust": (str(self.ca_file),), **more}
        )

    def as_client(self, keyring: Keyring | None = None, **more) -> Environment:
        return Environment(TlsParameters(Role.CLIENT, keyring or self.client_keyring(), **more))

    def as_server(self, keyring: Keyring | None = None, **more) -> Environment:
        return Environment(TlsParameters(Role.SERVER, keyring or self.server_keyring(), **more))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("handshake"))


def only(version: Version) -> dict[str, Version]:
    return {"min_version": version, "max_version": version}


def client(world: World, version: Version | None = None, name: str | None = "localhost", **more) -> Handshake:
    return Handshake(world.as_client(**{**(only(version) if version else {}), **more}), server_name=name)


# --- every suite, version and role -----------------------------------------------------------------------------------


def peer_names(peer: StdlibPeer) -> tuple[object, ...]:
    return tuple((peer.tls.getpeercert() or {})["subjectAltName"])


def peer_for(world: World, suite: CipherSuite, *, server: bool) -> StdlibPeer | PyPeer:
    """The standard library's, unless it cannot be told to use the suite."""
    pair = world.pair_for(suite) if server else None
    (version,) = suite.versions
    if suite.iana_name == "TLS_AES_128_CCM_SHA256" or "TLS_DHE_" in suite.iana_name:
        return hp.py_peer(server=server, suite=suite, pair=pair)
    options = {"ciphers": suite.openssl_name} if version is Version.TLS12 else {}
    if pair is not None:
        return stdlib_server(pair, version, **options)
    return stdlib_client(world.ca_file, version=version, **options)


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_client_in_every_suite_gets_keys_that_work(world, suite, feed):
    peer = peer_for(world, suite, server=True)
    driver = Handshake(world.as_client(suites=(suite,)), server_name="localhost")
    outcome = run(driver, peer, feed)
    session = outcome.established
    assert (session.suite, session.role, session.server_name, session.resumed) == (
        suite,
        Role.CLIENT,
        "localhost",
        False,
    )
    assert session.tx.sequence == session.rx.sequence == (0 if session.version is Version.TLS13 else 1)
    assert session.peer_chain[0] == world.pair_for(suite).leaf.public_bytes(Encoding.DER)
    check_keys(outcome, peer)


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_a_server_in_every_suite_gets_keys_that_work(world, suite, feed):
    peer = peer_for(world, suite, server=False)
    driver = Handshake(world.as_server(world.server_keyring(world.pair_for(suite)), suites=(suite,)))
    outcome = run(driver, peer, feed)
    session = outcome.established
    assert (session.suite, session.role, session.peer_chain) == (suite, Role.SERVER, ())
    if session.version is Version.TLS13:
        assert session.tickets_sent == session.tx.sequence == 2
        assert session.rx.sequence == 0
    else:
        assert (session.tickets_sent, session.tx.sequence, session.rx.sequence) == (0, 1, 1)
    check_keys(outcome, peer)


@BOTH
def test_the_connection_itself_can_go_on_instead_of_the_keys(world, version):
    peer = stdlib_server(world.ec, version)
    driver = client(world, version)
    outcome = run(driver, peer)
    driver.connection.sendall(b"by hand")
    assert peer.read(driver.connection.bio_read(1000)) == b"by hand"
    driver.connection.bio_write(outcome.wire + peer.write(b"answer"))
    assert driver.connection.recv(100) == b"answer"


def test_a_hello_retry_request_changes_nothing(world):
    """The server knows none of the groups that our client has sent a key for."""
    context = hp.server_context(world.ec, Version.TLS13)
    context.set_ecdh_curve("secp384r1")
    peer = StdlibPeer(context, server_side=True)
    outcome = run(client(world), peer)
    check_keys(outcome, peer)


# --- no byte too many ------------------------------------------------------------------------------------------------


class EagerPeer(StdlibPeer):
    """A client that speaks right behind its Finished, in the same segment."""

    def step(self, data: bytes) -> bytes:
        before = self.done
        out = super().step(data)
        return out + self.write(b"GET /") if self.done and not before else out


@pytest.mark.parametrize("feed", FEEDS)
@BOTH
def test_application_data_in_the_segment_of_the_clients_finished_is_left_over(world, version, feed):
    """It is neither swallowed nor opened. In TLS 1.2 the client's Finished is the last one when it resumes."""
    environment = world.as_server(**only(version))
    peer = stdlib_client(world.ca_file, version=version)
    if version is Version.TLS12:
        run(Handshake(environment), peer)
    eager = EagerPeer(peer.context, server_side=False, hostname="localhost", session=peer.tls.session)
    outcome = run(Handshake(environment), eager, feed)
    assert outcome.established.resumed is (version is Version.TLS12)
    opened = RecordProtection(outcome.established.rx).open(outcome.wire)
    assert (opened.content_type, opened.data) == (ContentType.APPLICATION_DATA, b"GET /")


@pytest.mark.parametrize("feed", FEEDS)
def test_a_tls13_server_that_speaks_at_once_is_left_over_too(world, feed):
    """Tickets and data behind the handshake stay where they are, in order."""
    peer = stdlib_server(world.ec, Version.TLS13)
    outcome = run(client(world), peer, feed)
    wire = outcome.wire + peer.write(b"220 ready")
    protection = RecordProtection(outcome.established.rx)
    reader = RecordReader()
    reader.feed(wire)
    kinds = [protection.open(record) for record in iter(reader.next_record, None)]
    assert [one.content_type for one in kinds] == [ContentType.HANDSHAKE, ContentType.HANDSHAKE, 23]
    assert kinds[-1].data == b"220 ready"


@BOTH
def test_need_bytes_is_the_header_and_then_the_body(world, version):
    peer = stdlib_server(world.ec, version)
    driver = client(world, version)
    start = driver.start()
    assert [type(event) for event in start] == [SendBytes, NeedBytes]
    assert start[-1] == NeedBytes(5)
    wire = peer.step(hp.sent(start))
    length = int.from_bytes(wire[3:5])
    assert driver.receive(wire[:2]) == [NeedBytes(3)]
    assert driver.receive(wire[2:5]) == [NeedBytes(length)]
    assert driver.receive(b"") == [NeedBytes(length)]
    assert driver.receive(wire[5:6]) == [NeedBytes(length - 1)]
    assert driver.receive(wire[6 : 5 + length])[-1] == NeedBytes(5)


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


def told(peer: StdlibPeer) -> str:
    """The alert the peer has been sent, in its own words; a TLS 1.3 client meets it when it reads."""
    if peer.error is None:
        try:
            peer.tls.read(1)
        except ssl.SSLError as error:
            peer.error = error
    assert isinstance(peer.error, ssl.SSLError), "the peer was told nothing"
    return str(peer.error)


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


# --- SNI and ALPN ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(world) -> Keyring:
    one = hp.save(world.folder, "one", world.ca.issue_cert("one.example"))
    wild = hp.save(world.folder, "wild", world.ca.issue_cert("*.shop.example"))
    return world.server_keyring(
        sni=(SniEntry(("One.example",), one.cert, one.key), SniEntry(("*.shop.example",), wild.cert, wild.key))
    )


@pytest.mark.parametrize(
    ("name", "certificate"),
    [
        ("one.example", "one.example"),
        ("a.shop.example", "*.shop.example"),
        ("a.b.shop.example", "localhost"),
        ("shop.example", "localhost"),
        ("localhost", "localhost"),
        (None, "localhost"),
    ],
)
@BOTH
def test_a_server_shows_the_certificate_for_the_clients_server_name(world, shop, version, name, certificate):
    plain = stdlib_client(world.ca_file, hostname=None, version=version)
    peer = StdlibPeer(plain.context, server_side=False, hostname=name)
    outcome = run(Handshake(world.as_server(shop)), peer)
    assert outcome.established.server_name == name
    assert ("DNS", certificate) in peer_names(peer)
    check_keys(outcome, peer)


@BOTH
def test_a_server_without_certificate_for_the_name_says_unrecognized_name(world, shop, version):
    keyring = replace(shop, certificate=None, private_key=None)
    peer = stdlib_client(world.ca_file, version=version)
    outcome = run(Handshake(world.as_server(keyring)), peer)
    assert type(outcome.failed) is ProtocolError
    assert "'localhost'" in str(outcome.failed)
    assert "unrecognized name" in told(peer)


@BOTH
def test_alpn_is_by_the_servers_preference(world, version):
    peer = stdlib_client(world.ca_file, version=version, alpn=["http/1.1", "h2"])
    outcome = run(Handshake(world.as_server(alpn=("h2", "http/1.1"))), peer)
    assert outcome.established.alpn == peer.tls.selected_alpn_protocol() == "h2"
    peer = stdlib_server(world.ec, version, alpn=["http/1.1"])
    assert run(client(world, alpn=("h2", "http/1.1")), peer).established.alpn == "http/1.1"


@BOTH
def test_alpn_is_nothing_where_one_side_does_not_speak_of_it(world, version):
    assert (
        run(Handshake(world.as_server(alpn=("h2",))), stdlib_client(world.ca_file, version=version)).established.alpn
        is None
    )
    assert run(client(world, alpn=("h2",)), stdlib_server(world.ec, version)).established.alpn is None


@BOTH
def test_a_client_of_other_protocols_is_refused(world, version):
    peer = stdlib_client(world.ca_file, version=version, alpn=["imap"])
    outcome = run(Handshake(world.as_server(alpn=("h2",))), peer)
    assert "imap" in str(outcome.failed)
    assert "alert no application protocol" in told(peer)


# --- resumption ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feed", FEEDS)
@BOTH
def test_a_server_resumes_from_its_tickets(world, version, feed):
    environment = world.as_server(client_auth="full", **only(version))
    first = stdlib_client(world.ca_file, version=version, pair=world.client)
    outcome = run(Handshake(environment), first)
    check_keys(outcome, first)
    assert not outcome.established.resumed
    again = StdlibPeer(first.context, server_side=False, hostname="localhost", session=first.tls.session)
    outcome = run(Handshake(environment), again, feed)
    assert outcome.established.resumed
    assert again.tls.session_reused
    assert x509.load_der_x509_certificate(outcome.established.peer_chain[0]) == world.client.leaf
    check_keys(outcome, again)


@BOTH
def test_a_server_without_tickets_resumes_nothing(world, version):
    environment = world.as_server(tickets=False, **only(version))
    first = stdlib_client(world.ca_file, version=version)
    check_keys(run(Handshake(environment), first), first)
    again = StdlibPeer(first.context, server_side=False, hostname="localhost", session=first.tls.session)
    outcome = run(Handshake(environment), again)
    assert not outcome.established.resumed
    check_keys(outcome, again)


@BOTH
def test_a_ticket_is_worth_nothing_in_another_environment(world, version):
    first = stdlib_client(world.ca_file, version=version)
    check_keys(run(Handshake(world.as_server(**only(version))), first), first)
    again = StdlibPeer(first.context, server_side=False, hostname="localhost", session=first.tls.session)
    assert not run(Handshake(world.as_server(**only(version))), again).established.resumed


@pytest.mark.parametrize("feed", FEEDS)
def test_a_client_resumes_tls12(world, feed):
    environment = world.as_client()
    context = hp.server_context(world.ec, Version.TLS12)
    resumed = []
    for _ in range(3):
        peer = StdlibPeer(context, server_side=True)
        outcome = run(Handshake(environment, server_name="localhost"), peer, feed)
        check_keys(outcome, peer)
        assert len(outcome.established.peer_chain) == 1
        assert outcome.established.resumed == peer.tls.session_reused
        resumed.append(outcome.established.resumed)
    assert resumed == [False, True, True]


def test_a_client_resumes_only_with_the_same_server_within_the_lifetime_and_if_allowed(world):
    time = [0.0]
    params = TlsParameters(Role.CLIENT, world.client_keyring(), ticket_lifetime=100, verify="chain")
    environment = Environment(params, clock=lambda: time[0])
    context = hp.server_context(world.ec, Version.TLS12)

    def resumed(environment: Environment, name: str) -> bool:
        driver = Handshake(environment, server_name=name)
        return run(driver, StdlibPeer(context, server_side=True)).established.resumed

    assert [resumed(environment, name) for name in ("localhost", "other", "localhost")] == [False, False, True]
    time[0] = 250
    assert not resumed(environment, "localhost")
    without = Environment(replace(params, tickets=False))
    assert [resumed(without, "localhost") for _ in range(2)] == [False, False]


def test_a_resumed_session_is_checked_again(world, monkeypatch):
    """The certificate expires between the two, and the name check is asked both times."""
    environment = world.as_client()
    context = hp.server_context(world.ec, Version.TLS12)
    asked = []
    monkeypatch.setattr("ktls.handshake.check_server_name", lambda certificate, name: asked.append(name))
    run(Handshake(environment, server_name="localhost"), StdlibPeer(context, server_side=True))
    monkeypatch.setattr(environment, "check_dates", _expired)
    peer = StdlibPeer(context, server_side=True)
    outcome = run(Handshake(environment, server_name="localhost"), peer)
    assert asked == ["localhost", "localhost"]
    assert type(outcome.failed) is CertificateExpired
    assert not peer.done, "our Finished has left"
    assert not run(Handshake(environment, server_name="localhost"), StdlibPeer(context, True)).established.resumed


def _expired(_: x509.Certificate) -> None:
    raise CertificateExpired("meanwhile")


def test_a_full_handshake_after_an_offer_to_resume_checks_the_new_certificate(world):
    """The certificate of the session offered is there before the server has shown one; it must not count."""
    environment = world.as_client()
    run(Handshake(environment, server_name="localhost"), stdlib_server(world.ec, Version.TLS12)).established  # noqa: B018
    other = hp.save(world.folder, "impostor", world.ca.issue_cert("impostor.example"))
    outcome = run(Handshake(environment, server_name="localhost"), stdlib_server(other, Version.TLS12))
    assert type(outcome.failed) is NameMismatch


# --- failures of other kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad", b"GET / HT", b"220 hi\r\n", b"\x16\x05rest", b"\x80\x2e\x01\x00\x02"]
)
@pytest.mark.parametrize("feed", FEEDS)
def test_clear_text_is_told_from_the_first_bytes(world, role, data, feed):
    driver = Handshake(world.as_client() if role is Role.CLIENT else world.as_server(), server_name="localhost")
    events = driver.start()
    while isinstance(events[-1], NeedBytes):
        size = feed(events[-1].count, data)
        events, data = driver.receive(data[:size]), data[size:]
    assert type(hp.failure(events)) is ClearTextError
    assert events[0] == SendBytes(bytes.fromhex("15030300020 20a".replace(" ", "")))


@BOTH
def test_an_alert_from_the_server_is_told(world, version):
    """A server that refuses: no suite in common."""
    suite = by_iana("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
    peer = stdlib_server(world.ec, Version.TLS12)
    outcome = run(client(world, Version.TLS12, suites=(suite,)), peer)
    assert type(outcome.failed) is PeerAlert
    assert "handshake failure" in str(outcome.failed)
    assert outcome.events[-1] == Failed(outcome.failed)
    assert len([event for event in outcome.events if isinstance(event, SendBytes)]) == 1  # no alert in answer


@BOTH
def test_an_alert_from_the_client_is_told(world, version):
    peer = stdlib_client(None, version=version)  # trusts nobody
    outcome = run(Handshake(world.as_server(**only(version))), peer)
    assert type(outcome.failed) is PeerAlert
    assert "unknown ca" in str(outcome.failed)


def test_no_version_in_common_is_a_protocol_error_with_openssls_words(world):
    peer = stdlib_client(world.ca_file, version=Version.TLS12)
    outcome = run(Handshake(world.as_server(**only(Version.TLS13))), peer)
    assert type(outcome.failed) is ProtocolError
    assert "unsupported protocol" in str(outcome.failed)
    assert "alert protocol version" in told(peer)


@pytest.mark.parametrize("role", Role)
def test_end_of_file_is_peer_closed(world, role):
    driver = Handshake(world.as_client() if role is Role.CLIENT else world.as_server(), server_name="localhost")
    driver.start()
    events = driver.receive_eof()
    assert type(hp.failure(events)) is PeerClosed
    assert "before it said anything" in str(hp.failure(events))


@BOTH
def test_end_of_file_in_the_middle_is_peer_closed(world, version):
    driver, peer = client(world, version), stdlib_server(world.ec, version)
    flight = peer.step(hp.sent(driver.start()))
    driver.receive(flight[:-10])
    events = driver.receive_eof()
    assert type(hp.failure(events)) is PeerClosed
    assert "during" in str(hp.failure(events))


def test_a_close_notify_in_the_middle_is_peer_closed(world):
    driver = client(world)
    driver.start()
    events = driver.receive(bytes.fromhex("15030300020100"))
    assert type(hp.failure(events)) is PeerClosed


def test_time_out_fails_at_any_moment_and_keeps_an_earlier_reason(world):
    for prepare in (lambda driver: None, lambda driver: driver.start()):
        driver = client(world)
        prepare(driver)
        events = driver.time_out()
        assert type(hp.failure(events)) is HandshakeTimeout
        assert driver.time_out() == events
    driver = client(world)
    driver.start()
    events = driver.receive_eof()
    assert driver.time_out() == events
    driver = client(world)
    run(driver, stdlib_server(world.ec))
    assert type(hp.failure(driver.time_out())) is HandshakeTimeout  # the last flight cannot be sent
    assert driver.state is State.FAILED


def test_a_record_too_long_is_alerted_as_such(world):
    driver = client(world)
    driver.start()
    events = driver.receive(bytes.fromhex("160303ffff"))
    assert type(hp.failure(events)) is RecordOverflow
    assert events[0] == SendBytes(bytes.fromhex("15030300020216"))


def disturb(driver: Handshake, peer: StdlibPeer, records: int) -> bytes:
    """Let so many of the peer's records through, then garbage; returns the alert, before which the peer has had all."""
    reader = RecordReader()
    events = driver.start()
    while records:
        reader.feed(peer.step(hp.sent(events)))
        events = []
        while records and (record := reader.next_record()) is not None:
            events += driver.receive(record)
            records -= 1
    peer.step(hp.sent(events))
    events = driver.receive(b"\xff" * 5)
    assert type(hp.failure(events)) is ProtocolError
    return hp.sent(events)


@BOTH
def test_a_server_disturbed_in_the_middle_sends_an_alert_that_the_peer_can_open(world, version):
    """In TLS 1.3 it is protected by then, with the application key."""
    peer = stdlib_client(world.ca_file, version=version)
    alert = disturb(Handshake(world.as_server(**only(version))), peer, 1)
    assert alert[0] == (21 if version is Version.TLS12 else 23)
    peer.step(alert)
    assert "internal error" in told(peer)


@pytest.mark.parametrize(("version", "records"), [(Version.TLS12, 2), (Version.TLS12, 4), (Version.TLS13, 2)])
def test_a_client_disturbed_in_the_middle_sends_an_alert_that_the_peer_can_open(world, version, records):
    """In clear before our first protected record and protected after it, as OpenSSL's own are."""
    peer = stdlib_server(world.ec, version)
    alert = disturb(client(world, version), peer, records)
    assert len(alert) == (31 if records == 4 else 7)
    peer.step(alert)
    assert "internal error" in told(peer)


def test_a_resuming_server_disturbed_before_the_clients_finished_sends_a_protected_alert(world):
    environment = world.as_server(**only(Version.TLS12))
    first = stdlib_client(world.ca_file, version=Version.TLS12)
    run(Handshake(environment), first)
    peer = StdlibPeer(first.context, server_side=False, hostname="localhost", session=first.tls.session)
    peer.step(disturb(Handshake(environment), peer, 1))
    assert "internal error" in told(peer)


def test_a_flood_is_cut_off(world):
    """Empty change_cipher_specs cost OpenSSL nothing, but not for ever."""
    driver, peer = client(world, Version.TLS13), stdlib_server(world.ec, Version.TLS13)
    flight = peer.step(hp.sent(driver.start()))
    driver.receive(flight[: 5 + int.from_bytes(flight[3:5])])
    record = bytes.fromhex("140303000101")
    events = []
    for _ in range(200_000):
        events = driver.receive(record)
        if isinstance(events[-1], Failed):
            break
    assert isinstance(hp.failure(events), ProtocolError)


# --- secrets ---------------------------------------------------------------------------------------------------------


@BOTH
def test_secrets_do_not_outlive_the_handshake(world, version):
    driver = client(world, version)
    run(driver, stdlib_server(world.ec, version))
    assert driver._notes.secrets == []
    assert driver.connection.get_app_data() is None


@BOTH
def test_the_key_log_is_written_only_when_asked_for_and_for_nobody_else(world, version, tmp_path, caplog):
    path = tmp_path / "keys.log"
    environment = world.as_client(keylog=path, **only(version))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text
    run(Handshake(environment, server_name="localhost"), stdlib_server(world.ec, version))
    run(Handshake(environment, server_name="localhost"), stdlib_server(world.ec, version))
    assert path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text().splitlines()
    label = "CLIENT_RANDOM" if version is Version.TLS12 else "SERVER_TRAFFIC_SECRET_0"
    assert len({line for line in lines if line.startswith(label + " ")}) == 2 or version is Version.TLS12
    assert len(caplog.records) == 1


def test_keys_that_do_not_fit_are_never_handed_out(world, monkeypatch):
    """As if OpenSSL had logged another connection's secrets."""
    driver = client(world, Version.TLS13)
    peer = stdlib_server(world.ec, Version.TLS13)
    original = driver._keys._secret
    monkeypatch.setattr(
        driver._keys, "_secret", lambda role, *, handshake: bytes(len(original(role, handshake=handshake) or b""))
    )
    outcome = run(driver, peer)
    assert type(outcome.failed) is ProtocolError
    assert "cannot be proven" in str(outcome.failed)
    assert not peer.done


def test_missing_secrets_are_told_by_their_label(world):
    driver = client(world, Version.TLS13)
    driver._notes.secrets = type("Deaf", (list,), {"append": lambda self, line: None})()
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET" in str(run(driver, stdlib_server(world.ec, Version.TLS13)).failed)


# --- what may not happen ---------------------------------------------------------------------------------------------


def test_what_cannot_happen_raises_and_changes_nothing(world):
    driver = client(world)
    for call in (lambda: driver.receive(b"x"), driver.receive_eof):
        with pytest.raises(UsageError, match="IDLE"):
            call()
        assert driver.state is State.IDLE
    peer = stdlib_server(world.ec)
    driver.start()
    with pytest.raises(UsageError):
        driver.start()
    assert driver.state is State.WAIT_SERVER_HELLO
    driver = client(world)
    outcome = run(driver, peer)
    for call in (driver.start, lambda: driver.receive(b"x"), driver.receive_eof):
        with pytest.raises(UsageError, match="ESTABLISHED"):
            call()
        assert driver.state is State.ESTABLISHED
    check_keys(outcome, peer)


# --- real programs ---------------------------------------------------------------------------------------------------


@BOTH
def test_against_openssl_s_server(world, version, free_port):
    port = free_port()
    flag = "-tls1_2" if version is Version.TLS12 else "-tls1_3"
    command = ["openssl", "s_server", "-accept", str(port), "-cert", world.ec.cert, "-key", world.ec.key, flag]
    with subprocess.Popen([*command, "-rev"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            assert server.stdout is not None
            assert any(b"ACCEPT" in line for line in server.stdout)
            with socket.create_connection(("127.0.0.1", port)) as sock:
                session = hp.shake(Handshake(world.as_client(), server_name="localhost"), sock)
                sock.sendall(RecordProtection(session.tx).seal(ContentType.APPLICATION_DATA, b"hello\n"))
                assert read_data(sock, RecordProtection(session.rx)) == b"olleh\n"
        finally:
            server.kill()


@BOTH
def test_against_openssl_s_client(world, version):
    flag = "-tls1_2" if version is Version.TLS12 else "-tls1_3"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", world.ca_file]
        more = ["-servername", "localhost", "-verify_return_error", "-quiet", flag]
        with subprocess.Popen(
            [*command, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            try:
                sock, _ = listener.accept()
                with sock:
                    session = hp.shake(Handshake(world.as_server()), sock)
                    assert session.server_name == "localhost"
                    program.stdin.write(b"question\n")
                    program.stdin.flush()
                    assert read_data(sock, RecordProtection(session.rx)) == b"question\n"
                    sock.sendall(RecordProtection(session.tx).seal(ContentType.APPLICATION_DATA, b"answer\n"))
                    assert program.stdout.readline() == b"answer\n"
            finally:
                program.kill()


def test_a_server_knows_a_resumption_behind_a_hello_retry_request(world, tmp_path):
    """s_client guesses a group that our server does not take, both times."""
    environment, session_file = world.as_server(**only(Version.TLS13)), tmp_path / "session.pem"
    resumed = []
    for option in ("-sess_out", "-sess_in"):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-quiet"]
            command += ["-groups", "ffdhe8192:X25519", option, str(session_file)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as program:
                try:
                    sock, _ = listener.accept()
                    with sock:
                        session = hp.shake(Handshake(environment), sock)
                        sock.sendall(RecordProtection(session.tx).seal(ContentType.APPLICATION_DATA, b"tickets came\n"))
                        assert program.stdout is not None
                        assert program.stdout.readline() == b"tickets came\n"
                        resumed.append(session.resumed)
                finally:
                    program.kill()
    assert resumed == [False, True]


def read_data(sock: socket.socket, protection: RecordProtection) -> bytes:
    """The next application data record's content, past tickets."""
    reader = RecordReader()
    while True:
        while (record := reader.next_record()) is None:
            data = sock.recv(reader.want)
            assert data, "end of file"
            reader.feed(data)
        opened = protection.open(record)
        if opened.content_type is ContentType.APPLICATION_DATA:
            return opened.data


# --- whatever comes --------------------------------------------------------------------------------------------------

FUZZ = settings(max_examples=150, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def fuzzed(world) -> dict[Role, Environment]:
    return {Role.CLIENT: world.as_client(), Role.SERVER: world.as_server(client_auth="full", alpn=("h2",))}


def feed_all(driver: Handshake, data: bytes) -> None:
    """Only events come out, they make sense, and a driver that has ended stays so."""
    events = driver.start()
    for chunk in (data[:3], data[3:]):
        if driver.state not in (State.ESTABLISHED, State.FAILED):
            events = driver.receive(chunk)
        assert isinstance(events[-1], NeedBytes | Failed)
        assert all(isinstance(event, SendBytes) for event in events[:-1])
    if isinstance(events[-1], Failed):
        assert isinstance(hp.failure(events), KtlsError)
        assert driver.state is State.FAILED


@FUZZ
@given(role=st.sampled_from(Role), data=st.binary(max_size=400))
def test_any_bytes_give_events(fuzzed, role, data):
    feed_all(Handshake(fuzzed[role], server_name="localhost"), data)


@FUZZ
@given(
    role=st.sampled_from(Role),
    kind=st.sampled_from([20, 21, 22, 23]),
    message=st.integers(0, 255),
    body=st.binary(max_size=300),
)
def test_any_handshake_message_gives_events(fuzzed, role, kind, message, body):
    content = bytes([message]) + len(body).to_bytes(3) + body
    feed_all(Handshake(fuzzed[role], server_name="localhost"), bytes([kind, 3, 3]) + len(content).to_bytes(2) + content)


@FUZZ
@given(
    role=st.sampled_from(Role),
    version=st.sampled_from(VERSIONS),
    place=st.integers(0, 4000),
    flip=st.integers(1, 255),
    cut=st.integers(0, 3),
)
def test_a_flight_changed_on_its_way_gives_events(world, fuzzed, role, version, place, flip, cut):
    if role is Role.CLIENT:
        peer = stdlib_server(world.ec, version)
    else:
        peer = stdlib_client(world.ca_file, version=version, pair=world.client)
    passed = 0

    def change(data: bytes) -> bytes:
        nonlocal passed
        at, passed = place - passed, passed + len(data)
        if not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] ^ flip]) + data[at + 1 + cut :]

    outcome = run(Handshake(fuzzed[role], server_name="localhost"), peer, change=change)
    assert (outcome.session is None) != (outcome.error is None)


@FUZZ
@given(version=st.sampled_from(VERSIONS), cuts=st.lists(st.integers(1, 3000), max_size=10))
def test_how_the_bytes_come_makes_no_difference(world, version, cuts):
    sizes = iter([*cuts, *([1 << 20] * 1000)])
    outcome = run(
        client(world, version), stdlib_server(world.ec, version), lambda count, wire: min(next(sizes), len(wire))
    )
    kinds = [type(event) for event in outcome.events if not isinstance(event, NeedBytes)]
    assert kinds == [SendBytes, SendBytes, Established]


def test_connections_that_share_an_environment_in_threads_do_not_mix_up(world, shop):
    """Each thread gets its own outcome, though contexts, callbacks and sessions are the same for all."""
    environment = world.as_server(replace(shop, trust=(str(world.ca_file),)), client_auth="full", alpn=("h2",))
    stranger = hp.save(world.folder, "threads", trustme.CA().issue_cert("visitor.example"))

    def good() -> None:
        peer = stdlib_client(world.ca_file, pair=world.client, alpn=["h2"])
        check_keys(run(Handshake(environment), peer), peer)

    def untrusted() -> None:
        assert type(run(Handshake(environment), stdlib_client(world.ca_file, pair=stranger)).failed) is UnknownIssuer

    def no_protocol() -> None:
        assert "imap" in str(run(Handshake(environment), stdlib_client(world.ca_file, alpn=["imap"])).failed)

    with ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(work) for _ in range(20) for work in (good, untrusted, no_protocol)]:
            result.result()

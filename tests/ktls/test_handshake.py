"""The handshake driver against peers that are not ours, in every suite, version and role.

What has a theme of its own is in test_handshake_<theme>.py, and certificates for all of them in conftest.py.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding

from ktls.ciphers import SUITES, CipherSuite, Role, Version
from ktls.errors import ProtocolError, UnknownIssuer, UsageError
from ktls.handshake import Handshake, NeedBytes, SendBytes, State
from ktls.records import ContentType, RecordProtection, RecordReader
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_peer import PyPeer, StdlibPeer, check_keys, run, stdlib_client, stdlib_server
from tests.ktls.handshake_world import BOTH, FEEDS, World, client, only

# --- every suite, version and role -----------------------------------------------------------------------------------


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


# --- many at once ----------------------------------------------------------------------------------------------------


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

"""Handshakes that resume an earlier session, as a client and as a server, and those that must not."""

from dataclasses import replace

import pytest
from cryptography import x509

from ktls.ciphers import Role, Version
from ktls.environment import Environment, TlsParameters
from ktls.errors import CertificateExpired, NameMismatch
from ktls.handshake import Handshake
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_peer import StdlibPeer, check_keys, run, stdlib_client, stdlib_server
from tests.ktls.handshake_world import BOTH, FEEDS, only


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

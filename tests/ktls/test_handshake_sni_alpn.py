"""What the two ends of a handshake agree on by SNI and ALPN."""

from dataclasses import replace

import pytest

from ktls.errors import ProtocolError
from ktls.handshake import Handshake
from tests.ktls.handshake_peer import StdlibPeer, check_keys, peer_names, run, stdlib_client, stdlib_server, told
from tests.ktls.handshake_world import BOTH, client


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

"""What becomes of live connections when their rule or their keyring changes (`on_change`), and of keys that have done
enough (`rekey`). A covered echo server, with clients in the middle of something."""

import socket
import threading
from pathlib import Path

import pytest

from ktls.records import ContentType
from tests.e2e.crafted import CraftedPeer
from tests.e2e.peer import TlsPeer, client_context
from tests.e2e.served import Served, serve

__all__ = ["serve"]

OTHER = """
[[rule]]
name = "nobody"
priority = 9
local_port = ["{port}"]
verdict = "deny"
"""


@pytest.fixture(autouse=True)
def soon_idle(monkeypatch):
    """Idle is what is idle for two seconds."""
    monkeypatch.setattr("ktls.agent.fate.IDLE", 2.0)


def echo(peer: TlsPeer, data: bytes = b"ping") -> None:
    peer.send(data)
    assert peer.receive_exactly(len(data)) == data


def change_rule(served: Served, _) -> None:
    served.rewrite("action = {", "action = { handshake_timeout = 9.0,")


def remove_rule(served: Served, _) -> None:
    served.rewrite('"echo"', '"another"')


def put_another_before_it(served: Served, _) -> None:
    served.rewrite("[keyring.web]", OTHER.format(port=served.port) + "[keyring.web]")


def renew_keyring(served: Served, ca) -> None:
    fresh = ca.issue_cert("localhost")
    (served.folder / "key.pem").write_bytes(fresh.private_key_pem.bytes())
    (served.folder / "cert.pem").write_bytes(fresh.cert_chain_pems[0].bytes())


CHANGES = {
    "rule echo has changed": change_rule,
    "rule echo is gone": remove_rule,
    "it would now be decided by rule nobody": put_another_before_it,
    "keyring web has new content": renew_keyring,
}


@pytest.mark.parametrize("why", CHANGES)
def test_close_ends_a_connection_in_order_for_both_sides(serve, ca, why):
    served = serve('on_change = "close"')
    peer = served.connect()
    echo(peer)
    CHANGES[why](served, ca)
    assert peer.receive() == b""
    assert peer.saw_close_notify
    peer.close_notify()
    peer.sock.close()
    assert served.end()["ended"] == "eof"
    assert served.program.event("change")["changed"] == why
    assert served.program.event("end")["closed_for"] == why
    assert "error" not in served.program.event("end")


def test_a_program_that_writes_on_after_a_close_is_told_as_by_tcp(serve, ca):
    served = serve('on_change = "close"')
    peer = served.connect()
    echo(peer)
    change_rule(served, ca)
    assert peer.receive() == b""
    peer.sock.close()
    assert served.end() == {"ended": "eof", "wrote": "EPIPE"}


def test_a_peer_that_does_not_end_is_not_waited_for(serve, ca, monkeypatch):
    monkeypatch.setattr("ktls.pump.LINGER", 0.5)
    monkeypatch.setattr("ktls.agent.leash.LINGER", 0.5)
    served = serve('on_change = "close"')
    peer = served.connect()
    echo(peer)
    change_rule(served, ca)
    assert peer.receive() == b""
    assert served.end() == {"ended": "eof", "wrote": "EPIPE"}


def test_close_in_the_middle_of_a_stream_cuts_nothing_off_before_close_notify(serve, ca):
    """Whole bytes in the right order, then a proper end, however much was on its way."""
    served = serve('on_change = "close"')
    peer = served.connect()
    block = bytes(range(256)) * 64
    sender = threading.Thread(target=lambda: change_rule(served, ca))
    sender.start()
    received = 0
    while data := _send_some(peer, block):
        assert data == block
        received += len(data)
    sender.join()
    assert received > 0
    assert peer.saw_close_notify
    peer.sock.close()
    assert served.end()["ended"] in ("eof", "EPIPE")  # it may have been writing just then


def _send_some(peer: TlsPeer, block: bytes) -> bytes:
    peer.send(block)
    got = peer.receive_exactly(len(block))
    return got if len(got) == len(block) else b""


@pytest.mark.parametrize("why", CHANGES)
def test_keep_leaves_a_connection_as_it_is(serve, ca, why):
    served = serve('on_change = "keep"')
    peer = served.connect()
    CHANGES[why](served, ca)
    served.program.event("renewed" if why.startswith("keyring") else "policy")
    echo(peer)
    peer.close_notify()
    assert served.end() == {"ended": "eof", "wrote": "ok"}
    assert served.program.events("change") == []


@pytest.mark.parametrize("why", CHANGES)
def test_drain_closes_a_connection_when_it_is_idle(serve, ca, why):
    served = serve('on_change = "drain"')
    peer = served.connect()
    CHANGES[why](served, ca)
    assert served.program.event("change")["does"] == "drain"
    for _ in range(60):  # longer than two seconds, and never idle for so long
        echo(peer)
        threading.Event().wait(0.05)
    assert peer.receive() == b""
    peer.close_notify()
    peer.sock.close()
    assert served.end()["ended"] == "eof"
    assert served.program.event("end")["closed_for"] == why


def test_drain_ends_even_a_connection_that_is_never_idle(serve, ca, monkeypatch):
    monkeypatch.setattr("ktls.agent.fate.IDLE", 3600.0)
    monkeypatch.setattr("ktls.agent.fate.DRAIN", 1.0)
    served = serve('on_change = "drain"')
    peer = served.connect()
    change_rule(served, ca)
    while _send_some(peer, b"ping"):
        pass
    assert peer.saw_close_notify


def crafted(served: Served, tmp_path: Path) -> CraftedPeer:
    sock = socket.create_connection(("127.0.0.1", served.port))
    sock.settimeout(60)
    context = client_context(str(served.ca), version="1.3")
    return CraftedPeer(sock, context, tmp_path / "keylog", server_side=False)


def next_of(peer: CraftedPeer, content_type: ContentType) -> bytes:
    while (record := peer.receive()) is not None:
        if record.content_type is content_type and not record.data.startswith(b"\x04"):  # a ticket
            return record.data
    raise AssertionError("the connection has ended")


def test_rekey_goes_on_under_new_keys_or_drains(serve, ca, tmp_path, engine):
    """The relay sends a KeyUpdate and asks for one. With the kernel it drains, and says why."""
    served = serve('on_change = "rekey"')
    peer = crafted(served, tmp_path)
    peer.send(peer.data(b"before"))
    assert next_of(peer, ContentType.APPLICATION_DATA) == b"before"
    change_rule(served, ca)
    event = served.program.event("change")
    if engine == "kernel":
        assert event["does"] == "drain"
        assert "nothing keeps the program's own records out" in event["message"]
        assert next_of(peer, ContentType.ALERT) == b"\1\0"
        return
    assert event["does"] == "rekey"
    assert next_of(peer, ContentType.HANDSHAKE) == b"\x18\0\0\1\1"
    peer.send(peer.key_update(requested=False), peer.data(b"after"))
    assert next_of(peer, ContentType.APPLICATION_DATA) == b"after"
    peer.send(peer.seal(21, b"\1\0"))
    assert served.end()["ended"] == "eof"
    assert served.program.event("end")["rekeys"] == 1


def test_rekey_drains_where_tls_12_has_no_key_update(serve, ca):
    served = serve('on_change = "rekey", max_version = "1.2"')
    peer = served.connect()
    echo(peer)
    change_rule(served, ca)
    assert served.program.event("change")["message"] == "TLS 1.2 has no KeyUpdate"
    assert peer.receive() == b""
    assert peer.saw_close_notify


@pytest.mark.parametrize("limit", ["records = 5", "seconds = 1"])
def test_keys_that_have_done_enough_are_replaced_or_the_connection_is_drained(serve, tmp_path, engine, limit):
    served = serve(f"rekey = {{ {limit} }}")
    peer = crafted(served, tmp_path)
    for _ in range(10):
        peer.send(peer.data(b"ping"))
        assert next_of(peer, ContentType.APPLICATION_DATA) == b"ping"
    event = served.program.event("rekey")
    assert "under one key" in event["changed"]
    if engine == "kernel":
        assert event["does"] == "drain"
        assert next_of(peer, ContentType.ALERT) == b"\1\0"
        return
    assert event["does"] == "rekey"
    assert next_of(peer, ContentType.HANDSHAKE) == b"\x18\0\0\1\1"
    peer.send(peer.key_update(requested=False), peer.data(b"after"))
    assert next_of(peer, ContentType.APPLICATION_DATA) == b"after"

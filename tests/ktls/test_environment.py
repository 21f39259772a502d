"""Environments: made once, shared, bounded, and their key log."""

import logging
import threading

import pytest
from cryptography import x509
from OpenSSL import SSL, crypto

from ktls import environment as module
from ktls.ciphers import Role
from ktls.environment import Environment, EnvironmentCache, Notes, TlsParameters
from ktls.errors import KeyringError, UsageError
from ktls.keyring import Keyring


def params(name: str = "ring", **keys) -> TlsParameters:
    return TlsParameters(Role.CLIENT, Keyring(name, trust=()), **keys)


def test_an_environment_is_made_once_and_shared():
    cache = EnvironmentCache()
    first = cache.get(params())
    assert cache.get(params()) is first
    assert cache.created == 1
    assert cache.get(params(alpn=("h2",))) is not first
    assert cache.created == 2


def test_threads_that_ask_at_once_share_it_too():
    cache, found = EnvironmentCache(), []
    threads = [threading.Thread(target=lambda: found.append(cache.get(params()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == cache.created == 1


def test_the_cache_forgets_what_was_used_longest_ago():
    cache = EnvironmentCache(limit=2)
    one, _ = cache.get(params("one")), cache.get(params("two"))
    cache.get(params("one"))
    cache.get(params("three"))
    assert cache.get(params("one")) is one
    cache.get(params("two"))
    assert cache.created == 4


def test_a_keyring_that_cannot_be_opened_is_tried_again(tls_files, tmp_path):
    cache, path = EnvironmentCache(), tmp_path / "ca.pem"
    wanted = TlsParameters(Role.CLIENT, Keyring("ring", trust=(str(path),)))
    with pytest.raises(KeyringError):
        cache.get(wanted)
    path.write_bytes(tls_files.ca.read_bytes())
    cache.get(wanted)
    assert cache.created == 1


def test_a_server_needs_a_certificate():
    with pytest.raises(KeyringError, match="server needs one"):
        Environment(TlsParameters(Role.SERVER, Keyring("ring", trust=())))


def test_contradictions_are_refused_when_it_is_made():
    with pytest.raises(UsageError):
        Environment(params(verify="none", peer_identities=("DNS:a.example",)))
    with pytest.raises(UsageError):
        Environment(params(alpn=("",)))


def test_the_systems_store_and_many_anchors_can_be_trusted(tls_files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_CA_NAMES", 0)
    keyring = Keyring("ring", tls_files.cert, tls_files.key, trust=("system", str(tls_files.ca)))
    Environment(TlsParameters(Role.SERVER, keyring, client_auth="full"))


def test_sessions_are_kept_by_server_for_their_lifetime_and_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    time = [0.0]
    environment = Environment(params(ticket_lifetime=10), clock=lambda: time[0])
    sessions = [SSL.Session() for _ in range(3)]
    for name, session in zip("abc", sessions, strict=True):
        environment.keep_session(name, session)
    assert [environment.session_with(name) for name in "abc"] == [None, *sessions[1:]]
    environment.forget_session("b")
    assert environment.session_with("b") is None
    time[0] = 10
    assert environment.session_with("c") is None


def test_the_key_log_is_private_and_a_link_is_not_followed(tmp_path, caplog):
    path = tmp_path / "keys.log"
    path.touch(0o644)
    environment = Environment(params(keylog=path))
    environment.log_secrets([b"LABEL 00 11", b"LABEL 00 22"])
    environment.log_secrets([])
    assert path.read_text() == "LABEL 00 11\nLABEL 00 22\n"
    assert path.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link"
    link.symlink_to(path)
    caplog.clear()
    Environment(params(keylog=link)).log_secrets([b"LABEL 00 33"])
    assert "cannot write the key log" in caplog.text
    assert "33" not in path.read_text()
    assert "33" not in caplog.text


def test_without_a_key_log_nothing_is_said_or_written(caplog):
    with caplog.at_level(logging.DEBUG):
        Environment(params()).log_secrets([b"LABEL 00 11"])
    assert caplog.records == []


def test_notes_show_no_secrets_and_are_bounded(monkeypatch):
    notes = Notes(secrets=[b"SECRET"])
    assert "SECRET" not in repr(notes)
    connection = Environment(params()).connect(notes)
    for _ in range(100):
        module._note_secret(connection, b"LABEL 00 11")
    assert len(notes.secrets) == module.MAX_SECRETS


def test_callbacks_that_come_late_do_nothing(tls_files):
    """After the handshake the driver takes its notes away; a callback that raised would hit another connection."""
    keyring = Keyring("ring", tls_files.cert, tls_files.key, trust=())
    environment = Environment(TlsParameters(Role.SERVER, keyring, alpn=("h2",), client_auth="full"))
    connection = environment.connect(Notes())
    connection.set_app_data(None)
    module._note_secret(connection, b"LABEL 00 11")
    assert environment._choose_protocol(connection, [b"imap"]) is SSL.NO_OVERLAPPING_PROTOCOLS
    certificate = crypto.X509.from_cryptography(x509.load_pem_x509_certificate(tls_files.cert.read_bytes()))
    assert environment._verify(connection, certificate, 20, 0, 0) is False
    environment._choose_certificate(connection)

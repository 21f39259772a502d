"""Keyrings: what opens, and that every problem names its file."""

import base64
import os

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from ktls import keyring as module
from ktls.errors import KeyringError
from ktls.keyring import Keyring, SniEntry, open_keyring
from tests.ktls.handshake_peer import DAY, Pair, make_crl, now, save

P256, UNKNOWN_CURVE = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f")
"""Object identifiers of one length."""
VERSION_3, VERSION_4 = bytes.fromhex("a003020102"), bytes.fromhex("a003020103")
"""RFC 5280 section 4.1: version [0], which counts from 0; there is no fourth."""


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(ca, tmp_path) -> Pair:
    return save(tmp_path, "leaf", ca.create_child_ca().issue_cert("a.example"))


def refused(**keys) -> str:
    with pytest.raises(KeyringError) as caught:
        open_keyring(Keyring("web", **{"trust": (), **keys}))
    assert str(caught.value).startswith("keyring 'web': ")
    return str(caught.value)


def test_a_chain_and_its_key(pair):
    opened = open_keyring(Keyring("web", pair.cert, pair.key, trust=("system",)))
    assert opened.credential is not None
    assert [certificate == pair.leaf for certificate in opened.credential.chain] == [True, False]
    assert (opened.system, opened.anchors, opened.crls, opened.sni) == (True, (), (), ())


def test_a_keyring_shows_no_key(pair):
    assert "PrivateKey" not in repr(open_keyring(Keyring("web", pair.cert, pair.key, trust=())))


def test_a_keyring_without_certificate_trusts_the_system():
    opened = open_keyring(Keyring("none"))
    assert (opened.credential, opened.system) == (None, True)


@pytest.mark.parametrize("password", [None, b"secret"])
def test_pkcs12(pair, tmp_path, password):
    key = load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    path, password_file = tmp_path / "leaf.p12", tmp_path / "password"
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"leaf", key, pair.leaf, None, encryption))
    password_file.write_bytes((password or b"") + b"\nsecond line")
    keys = {"pkcs12": path, "password_file": password_file if password else None}
    opened = open_keyring(Keyring("web", trust=(), **keys))
    assert opened.credential is not None
    assert opened.credential.chain == (pair.leaf,)
    if password:
        assert str(path) in refused(pkcs12=path)
    assert "either" in refused(certificate=pair.cert, private_key=pair.key, pkcs12=path)
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"leaf", None, pair.leaf, None, encryption))
    assert "no certificate with its private key" in refused(**keys)


def test_an_encrypted_key_needs_its_password(pair, tmp_path):
    key = load_pem_private_key(pair.key.read_bytes(), None)
    password_file = tmp_path / "password"
    password_file.write_text("secret\n")
    assert open_keyring(Keyring("web", pair.cert, pair.key, password_file=password_file, trust=())).credential
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    assert "encrypted" in refused(certificate=pair.cert, private_key=pair.key)
    assert open_keyring(Keyring("web", pair.cert, pair.key, password_file=password_file, trust=())).credential
    password_file.write_text("wrong")
    message = refused(certificate=pair.cert, private_key=pair.key, password_file=password_file)
    assert str(pair.key) in message
    assert "wrong" not in message


def test_every_problem_names_its_file(pair, ca, tmp_path):
    other = save(tmp_path, "other", ca.issue_cert("b.example"))
    empty, missing = tmp_path / "empty.pem", tmp_path / "missing.pem"
    empty.write_text("")
    for wrong in (empty, missing):
        for keys in (
            {"certificate": wrong, "private_key": pair.key},
            {"certificate": pair.cert, "private_key": wrong},
            {"trust": (str(wrong),)},
            {"crl": (wrong,)},
            {"sni": (SniEntry(("a.example",), wrong, pair.key),)},
        ):
            assert str(wrong) in refused(**keys)
    assert "No such file" in refused(trust=(str(missing),))
    assert "No such file" in refused(password_file=missing)
    assert f"{other.key}: is not the key" in refused(certificate=pair.cert, private_key=other.key)
    assert "go together" in refused(certificate=pair.cert)
    assert "go together" in refused(private_key=pair.key)


def test_an_own_certificate_outside_its_time_is_refused(ca, tmp_path):
    for days, words in (((-20, -10), "expired on"), ((10, 20), "not valid before")):
        leaf = ca.issue_cert("a.example", not_before=now() + days[0] * DAY, not_after=now() + days[1] * DAY)
        pair = save(tmp_path, "dated", leaf)
        message = refused(certificate=pair.cert, private_key=pair.key)
        assert str(pair.cert) in message
        assert words in message


def test_a_key_that_tls_does_not_use_is_refused(pair, tmp_path):
    path = tmp_path / "dsa.key"
    key = dsa.generate_private_key(1024)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "does not use" in refused(certificate=pair.cert, private_key=path)


def test_trust_is_files_and_directories(ca, tmp_path):
    folder = tmp_path / "trust"
    folder.mkdir()
    assert "no PEM certificate" in refused(trust=(str(folder),))
    ca.cert_pem.write_to_path(str(folder / "one.pem"))
    (folder / "a1b2c3d4.0").symlink_to("one.pem")
    (folder / "README").write_text("not a certificate")
    (folder / "sub").mkdir()
    anchor = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    assert open_keyring(Keyring("web", trust=(str(folder),))).anchors == (anchor,)
    opened = open_keyring(Keyring("web", trust=(str(folder / "one.pem"), "system")))
    assert (opened.anchors, opened.system) == ((anchor,), True)


def test_revocation_lists_are_pem_many_in_a_file_or_der(ca, tmp_path):
    path = tmp_path / "lists.crl"
    pem = make_crl(ca)
    path.write_bytes(pem + make_crl(trustme.CA()))
    assert len(open_keyring(Keyring("web", trust=(), crl=(path,))).crls) == 2
    path.write_bytes(x509.load_pem_x509_crl(pem).public_bytes(Encoding.DER))
    assert len(open_keyring(Keyring("web", trust=(), crl=(path,))).crls) == 1


def test_sni_entries_are_opened_with_lower_case_names(pair):
    entry = SniEntry(("A.Example", "*.B.example"), pair.cert, pair.key)
    ((names, credential),) = open_keyring(Keyring("web", trust=(), sni=(entry,))).sni
    assert names == ("a.example", "*.b.example")
    assert credential.chain[0] == pair.leaf


def test_files_and_folders_are_bounded(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILE", 100)
    assert "more than 100 bytes" in refused(certificate=pair.cert, private_key=pair.key)
    monkeypatch.setattr(module, "MAX_FILES", 1)
    assert "more than 1 files" in refused(trust=(str(tmp_path),))


def test_a_bundle_that_is_half_written_is_refused(ca, tmp_path):
    """Its first certificates are whole; cryptography would be content with them."""
    whole = ca.cert_pem.bytes() + trustme.CA().cert_pem.bytes()
    bundle = tmp_path / "bundle.pem"
    for missing in (1, 20, 300):
        bundle.write_bytes(whole.rstrip()[:-missing])
        with pytest.raises(KeyringError, match="is cut off"):
            open_keyring(Keyring("ring", trust=(str(bundle),)))
    bundle.write_bytes(whole)
    assert len(open_keyring(Keyring("ring", trust=(str(bundle),))).anchors) == 2


def test_a_loop_of_links_a_pipe_and_a_directory_are_no_files(pair, tmp_path):
    loop, pipe = tmp_path / "loop", tmp_path / "pipe"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path, words in ((loop, "its symbolic links form a loop"), (pipe, "is not a file"), (tmp_path, "directory")):
        for keys in (
            {"certificate": path, "private_key": pair.key},
            {"certificate": pair.cert, "private_key": path},
            {"crl": (path,)},
        ):
            message = refused(**keys)
            assert str(path) in message
            assert words in message
    assert "form a loop" in refused(trust=(str(loop),))


@pytest.mark.parametrize(
    ("was", "will_be", "words"),
    [
        (P256, UNKNOWN_CURVE, "of no use"),
        (VERSION_3, VERSION_4, "not a PEM certificate: 3 is not a valid X509 version"),
    ],
    ids=["curve", "version"],
)
def test_a_certificate_that_nobody_understands_is_refused(pair, was, will_be, words):
    der = pair.leaf.public_bytes(Encoding.DER)
    assert der.count(was) == 1
    body = base64.encodebytes(der.replace(was, will_be)).decode()
    pair.cert.write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    assert words in refused(certificate=pair.cert, private_key=pair.key)

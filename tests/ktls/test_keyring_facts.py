"""What a keyring holds, as `ktls keyring list` tells it."""

import getpass
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ktls.keyring import Keyring, SniEntry
from ktls.keyring_facts import key_words, keyring_facts, names_of, owner_facts, short_name
from ktls.keyring_parts import read_parts
from tests.ktls.certificates import NOW, make, make_list, write_chain, write_key


def test_everything_is_told_but_the_key(tmp_path):
    root = make("root")
    leaf = make("leaf", root, names=["a.example", "*.b.example"], days=(-1, 10.5))
    chain, key = write_chain(tmp_path / "c", leaf, root), write_key(tmp_path / "k", leaf)
    (tmp_path / "l").write_bytes(make_list(root, revoked=[leaf.certificate]))
    ring = Keyring(
        "web",
        chain,
        key,
        trust=("system", str(write_chain(tmp_path / "t", root, make("other"))), str(tmp_path / "gone")),
        crl=(tmp_path / "l",),
        sni=(SniEntry(("b.example",), chain, key),),
    )
    facts = json.loads(json.dumps(keyring_facts(read_parts(ring), NOW)))
    own, sni = facts["certificates"]
    assert (own["asked_for"], sni["asked_for"]) == ([], ["b.example"])
    assert (own["private_key"], own["mode"], own["owner"]) == (str(key), "0600", getpass.getuser())
    assert [one["subject"] for one in own["chain"]] == ["CN=leaf", "CN=root"]
    first = own["chain"][0]
    assert (first["issuer"], first["names"]) == ("CN=root", ["DNS:a.example", "DNS:*.b.example"])
    assert (first["key"], first["days_left"]) == ("EC secp256r1", 10)
    assert (facts["system"], facts["anchors"]) == (True, 2)
    assert [one["anchors"] for one in facts["trust"]] == [None, 2, None]
    assert [(one["issuer"], one["revoked"]) for one in facts["crls"]] == [("CN=root", 1)]
    secret = format(leaf.key.private_numbers().private_value, "x")
    assert secret not in json.dumps(facts)
    assert "PRIVATE" not in json.dumps(facts)


def test_what_has_expired_has_days_below_zero(tmp_path):
    old = make("old", names=["a.example"], days=(-20, -9.5))
    ring = Keyring("x", write_chain(tmp_path / "c", old), write_key(tmp_path / "k", old))
    (held,) = json.loads(json.dumps(keyring_facts(read_parts(ring), NOW)))["certificates"]
    assert held["chain"][0]["days_left"] == -10


def test_a_keyring_whose_files_are_gone_still_has_its_paths(tmp_path):
    ring = Keyring("x", tmp_path / "c", tmp_path / "k")
    (held,) = json.loads(json.dumps(keyring_facts(read_parts(ring), NOW)))["certificates"]
    assert (held["certificate"], held["chain"], held["owner"], held["mode"]) == (str(tmp_path / "c"), [], None, None)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "EC secp384r1"),
        (rsa.generate_private_key(65537, 2048), "RSA 2048"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
)
def test_keys_in_words(key, words):
    assert key_words(make("x", key=key).certificate) == words


def test_names_of_every_kind(server_certificate, client_certificate):
    from cryptography import x509

    def names(leaf):
        return names_of(x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()))

    assert names(server_certificate) == ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
    assert names(client_certificate) == ["EMAIL:client@example.test"]
    assert names_of(make("none").certificate) == []


def test_the_common_name_stands_for_the_subject(server_certificate):
    from cryptography import x509

    assert short_name(make("leaf").certificate, "subject") == "leaf"
    without = x509.load_pem_x509_certificate(server_certificate.cert_chain_pems[0].bytes())
    assert short_name(without, "subject") == without.subject.rfc4514_string()


def test_an_owner_without_a_name_is_a_number(tmp_path, monkeypatch):
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    (tmp_path / "k").touch(0o640)
    assert owner_facts(tmp_path / "k")["owner"] == str((tmp_path / "k").stat().st_uid)

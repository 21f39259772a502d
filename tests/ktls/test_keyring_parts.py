"""A keyring read part by part."""

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, pkcs12

from ktls.keyring import Keyring, SniEntry
from ktls.keyring_parts import read_parts
from tests.ktls.certificates import Made, make, make_list, write_chain, write_key


@pytest.fixture(scope="module")
def root() -> Made:
    return make("root")


@pytest.fixture
def leaf(root) -> Made:
    return make("leaf", root, names=["a.example"])


def test_all_of_a_keyring_is_there(root, leaf, tmp_path):
    chain, key = write_chain(tmp_path / "c", leaf, root), write_key(tmp_path / "k", leaf)
    trust, crl = write_chain(tmp_path / "t", root), tmp_path / "l"
    crl.write_bytes(make_list(root))
    sni = (SniEntry(("b.example",), chain, key),)
    parts = read_parts(Keyring("web", chain, key, trust=("system", str(trust)), crl=(crl,), sni=sni))
    assert parts.findings == ()
    assert [(held.key, held.names, held.at("certificate")) for held in parts.held] == [
        ((), (), ("certificate",)),
        (("sni", 0), ("b.example",), ("sni", 0, "certificate")),
    ]
    assert all(held.chain == (leaf.certificate, root.certificate) and held.private for held in parts.held)
    assert (parts.system, parts.trusted, len(parts.crls[0])) == (True, (root.certificate,), 1)
    assert "PrivateKey" not in repr(parts)


def test_what_has_expired_is_read_all_the_same(root, tmp_path):
    old = make("old", root, names=["a.example"], days=(-20, -10))
    parts = read_parts(Keyring("web", write_chain(tmp_path / "c", old), write_key(tmp_path / "k", old)))
    assert (parts.held[0].chain, parts.findings) == ((old.certificate,), ())


def test_each_file_that_is_wrong_is_told_and_hides_no_other(leaf, tmp_path):
    chain, loop = write_chain(tmp_path / "c", leaf), tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "empty").write_text("")
    keyring = Keyring(
        "web",
        chain,
        tmp_path / "gone",
        trust=("system", str(tmp_path / "empty"), str(loop)),
        crl=(tmp_path / "c", tmp_path),
        sni=(SniEntry(("b.example",), loop, write_key(tmp_path / "k", leaf)),),
    )
    parts = read_parts(keyring)
    found = {finding.key: finding.what for finding in parts.findings}
    assert found == {
        ("private_key",): f"{tmp_path}/gone: cannot be read: No such file or directory",
        ("sni", 0, "certificate"): f"{loop}: cannot be read: its symbolic links form a loop",
        ("trust", 1): found["trust", 1],
        ("crl", 0): found["crl", 0],
        ("crl", 1): f"{tmp_path}: cannot be read: Is a directory",
    }
    assert found["trust", 1].startswith(f"{tmp_path}/empty: not a PEM certificate")
    assert found["crl", 0].startswith(f"{tmp_path}/c: not a revocation list")
    assert {finding.level for finding in parts.findings} == {"error"}
    assert (parts.held[0].chain, parts.held[0].private) == ((leaf.certificate,), None)
    assert (parts.held[1].chain, parts.held[1].private is None) == ((), False)


def test_a_password_that_cannot_be_read_is_told_once(leaf, tmp_path):
    chain, key = write_chain(tmp_path / "c", leaf), write_key(tmp_path / "k", leaf)
    sni = (SniEntry(("b.example",), chain, key),)
    parts = read_parts(Keyring("web", chain, key, password_file=tmp_path / "gone", sni=sni))
    assert [finding.key for finding in parts.findings] == [("password_file",)]


def test_pkcs12_is_one_file_for_both(root, leaf, tmp_path):
    path, password = tmp_path / "p12", tmp_path / "password"
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"x", leaf.key, leaf.certificate, [root.certificate], BestAvailableEncryption(b"secret")
        )
    )
    password.write_text("secret")
    (held,) = read_parts(Keyring("web", pkcs12=path, password_file=password)).held
    assert (held.chain, held.at("private_key")) == ((leaf.certificate, root.certificate), ("pkcs12",))
    password.write_text("wrong")
    parts = read_parts(Keyring("web", pkcs12=path, password_file=password))
    assert [(finding.key, "wrong" in finding.what) for finding in parts.findings] == [(("pkcs12",), False)]
    assert parts.held[0].chain == ()


def test_an_encrypted_key_without_password_is_told(leaf, tmp_path):
    key = tmp_path / "k"
    key.write_bytes(leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    (finding,) = read_parts(Keyring("web", write_chain(tmp_path / "c", leaf), key)).findings
    assert finding.key == ("private_key",)
    assert finding.what == f"{key}: the key is encrypted and there is no password_file"


def test_a_keyring_of_halves_is_told(leaf, tmp_path):
    (finding,) = read_parts(Keyring("web", certificate=write_chain(tmp_path / "c", leaf))).findings
    assert "go together" in finding.what

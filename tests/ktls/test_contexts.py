"""OpenSSL has the last word about a keyring."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from ktls.contexts import try_keyring, vouched_for
from ktls.errors import KeyringError
from ktls.keyring import Credential, Keyring, OpenKeyring, open_keyring
from tests.ktls.certificates import make, write_chain


def test_a_keyring_in_order_is_taken(tls_files) -> None:
    keyring = Keyring("ring", tls_files.cert, tls_files.key, trust=(str(tls_files.ca),))
    try_keyring("ring", open_keyring(keyring))


@pytest.mark.parametrize("by_name", [False, True], ids=["own", "sni"])
def test_a_key_that_is_too_short_for_openssl_is_refused_by_the_keyrings_name(by_name: bool) -> None:
    key = rsa.generate_private_key(65537, 1024)
    name, now = x509.Name([]), datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    weak = Credential((builder.sign(key, hashes.SHA256()),), key)
    sni = ((("localhost",), weak),) if by_name else ()
    with pytest.raises(KeyringError, match="'ring': OpenSSL refuses it"):
        try_keyring("ring", OpenKeyring(None if by_name else weak, sni, (), False, ()))


def test_an_anchor_vouches_for_what_it_has_issued_whatever_the_time() -> None:
    root, other = make("root", days=(-20, -10)), make("other")
    leaf = make("leaf", root, names=["a.example"], days=(-20, -10))
    assert vouched_for(leaf.certificate, [other.certificate, root.certificate])
    assert vouched_for(leaf.certificate, [leaf.certificate], system=False)
    assert not vouched_for(leaf.certificate, [other.certificate])
    assert not vouched_for(leaf.certificate, [], system=False)


def test_the_systems_anchors_vouch_too(tmp_path, monkeypatch) -> None:
    root = make("root")
    leaf = make("leaf", root, names=["a.example"]).certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(write_chain(tmp_path / "store.pem", root)))
    assert vouched_for(leaf, [])
    assert not vouched_for(leaf, [], system=False)

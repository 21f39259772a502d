"""Parameters that contradict each other are refused before a connection meets them."""

import pytest

from ktls.ciphers import SUITES, Role, Version, by_iana
from ktls.errors import UsageError
from ktls.keyring import Keyring
from ktls.parameters import TlsParameters

RING = Keyring("ring")
PIN = "SHA256:" + "00" * 32


def client(**keys) -> TlsParameters:
    return TlsParameters(Role.CLIENT, RING, **keys)


def server(**keys) -> TlsParameters:
    return TlsParameters(Role.SERVER, RING, **keys)


def test_equal_parameters_are_one_key():
    assert {client(alpn=("h2",)): 1}[client(alpn=("h2",))] == 1
    assert client() != client(verify="none")


def test_every_suite_is_allowed_by_default_and_secure_checks_are_on():
    assert client().usable_suites() == SUITES
    assert client().checks_chain
    assert client().verify == "name"
    assert client().needs_certificate


def test_versions_narrow_the_suites():
    tls13 = client(min_version=Version.TLS13).usable_suites()
    assert tls13
    assert all(Version.TLS13 in suite.versions for suite in tls13)
    with pytest.raises(UsageError, match="TLS_AES_128_GCM_SHA256"):
        client(max_version=Version.TLS12, suites=(by_iana("TLS_AES_128_GCM_SHA256"),)).usable_suites()
    with pytest.raises(UsageError, match=r"TLSv1.3 to TLSv1.2"):
        client(min_version=Version.TLS13, max_version=Version.TLS12).usable_suites()


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_protocol_name_has_1_to_255_bytes(name):
    with pytest.raises(UsageError):
        client(alpn=(name,)).protocols()
    assert client(alpn=("h2", "x" * 255)).protocols() == (b"h2", b"x" * 255)


def test_names_that_could_be_forged_are_no_identities():
    for params in (client(verify="none"), server(client_auth="passthru")):
        with pytest.raises(UsageError, match="forged"):
            TlsParameters(**{**_keys(params), "peer_identities": ("DNS:a.example",)}).identities()
        assert TlsParameters(**{**_keys(params), "peer_identities": (PIN,)}).identities()
    with pytest.raises(UsageError, match="asks for no certificate"):
        server(peer_identities=(PIN,)).identities()
    assert len(client(verify="chain", peer_identities=("DNS:a.example", PIN)).identities()) == 2


def _keys(params: TlsParameters) -> dict:
    return {name: getattr(params, name) for name in params.__slots__}


@pytest.mark.parametrize(
    ("auth", "identities", "needed"),
    [("none", (), False), ("passthru", (), False), ("full", (), False), ("required", (), True), ("map", (), True),
     ("full", (PIN,), True), ("passthru", (PIN,), True)],
)  # fmt: skip
def test_identities_need_a_certificate(auth, identities, needed):
    assert server(client_auth=auth, peer_identities=identities).needs_certificate is needed

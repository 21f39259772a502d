"""Names and identities: who passes, and that a hostile certificate never does."""

import contextlib

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import CertificateRejected, NameMismatch, UsageError
from ktls.identity import check_identities, check_server_name, host_name, mapped_user, parse_certificate, parse_identity
from tests.ktls.handshake_peer import dns, ip, make_leaf, uri


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Call it with alternative names for a certificate."""
    ca, folder = trustme.CA(), tmp_path_factory.mktemp("identity")
    return lambda *names: make_leaf(folder, "leaf", ca, *names).leaf


def passes(check, *arguments) -> bool:
    try:
        check(*arguments)
    except NameMismatch:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a.example", True),
        ("A.Example.", True),
        ("b.a.example", False),
        ("x.wild.example", True),
        ("x.y.wild.example", False),
        ("wild.example", False),
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::1", True),
        ("2001:db8:0::1%eth0", True),
        ("2001:db8::2", False),
        ("", False),
        ("*.wild.example", False),
        ("b\u00fccher.example", False),
    ],
)
def test_a_server_name_is_checked_as_rfc_9525_says(make, name, good):
    names = dns("a.example"), dns("*.wild.example"), ip("192.0.2.7"), ip("2001:db8::1")
    assert passes(check_server_name, make(*names), name) is good


def test_an_address_as_dns_name_and_a_common_name_count_for_nothing(make):
    assert not passes(check_server_name, make(dns("192.0.2.7")), "192.0.2.7")
    assert not passes(check_server_name, make(), "a.example")


HOSTILE = [
    (uri("https://good.example:8443/"), dns("good.example")),
    (uri("not a uri"), dns("good.example")),
    (dns("*"), dns("good.example")),
    (dns("a*b.example"), dns("good.example")),
    (dns(""), dns("good.example")),
    (dns("\x00good.example"), dns("good.example")),
]


@pytest.mark.parametrize("names", HOSTILE)
def test_a_certificate_that_makes_the_check_stumble_is_not_verified(make, names):
    assert not passes(check_server_name, make(*names), "good.example")


def test_the_error_says_who_was_wanted_and_who_came_briefly(make):
    with pytest.raises(NameMismatch) as caught:
        check_server_name(make(*(dns(f"n{number}.example") for number in range(500))), "a.example")
    assert "'a.example'" in str(caught.value)
    assert "'n4.example' and 495 more" in str(caught.value)
    with pytest.raises(NameMismatch, match="no name"):
        check_server_name(make(), "a.example")


@pytest.mark.parametrize(
    ("wanted", "good"),
    [
        ("DNS:db.app.example", True),
        ("DNS:DB.app.Example.", True),
        ("DNS:*.app.example", True),
        ("DNS:app.example", False),
        ("DNS:*.example", False),
        ("DNS:one.wild.example", False),  # the certificate's wildcard is no proof of being this one
        ("DNS:*.wild.example", True),
        ("IP:192.0.2.7", True),
        ("IP:::ffff:192.0.2.7", True),
        ("IP:192.0.2.70", False),
        ("EMAIL:Ann@EXAMPLE.com", True),
        ("EMAIL:ann@example.com", False),
        ("EMAIL:ann@example.org", False),
        ("URI:spiffe://example.org/app", True),
        ("URI:spiffe://example.org/app2", False),
        ("URI:spiffe://example.org/*", False),
        ("URI:spiffe://EXAMPLE.org/app", False),
    ],
)
def test_an_identity_is_exact(make, wanted, good):
    names = dns("db.app.example"), dns("*.wild.example"), ip("192.0.2.7"), uri("spiffe://example.org/app")
    certificate = make(*names, x509.RFC822Name("Ann@Example.com"))
    assert passes(check_identities, certificate, (wanted,)) is good
    assert passes(check_identities, certificate, ("DNS:nobody.example", parse_identity(wanted))) is good


def test_a_certificate_with_two_uris_is_no_proof_of_a_spiffe_id(make):
    two = make(uri("spiffe://example.org/app"), uri("https://example.org/"))
    assert not passes(check_identities, two, ("URI:spiffe://example.org/app",))
    assert passes(check_identities, two, ("URI:https://example.org/",))


def test_a_digest_is_of_the_whole_certificate_with_or_without_colons(make):
    certificate, other = make(dns("a.example")), make(dns("a.example"))
    digest = certificate.fingerprint(SHA256())
    for text in (digest.hex(), digest.hex(":").upper()):
        assert passes(check_identities, certificate, (f"SHA256:{text}",))
        assert not passes(check_identities, other, (f"sha256:{text}",))


def test_nobody_wanted_is_everybody_allowed(make):
    assert passes(check_identities, make(), ())
    assert not passes(check_identities, make(), ("DNS:a.example",))


def test_the_first_mapping_that_fits_says_who_it_is(make):
    users = tuple((parse_identity(text), user) for text, user in (("DNS:*.a", "one"), ("DNS:x.a", "two")))
    assert mapped_user(make(dns("x.a")), users) == "one"
    assert mapped_user(make(dns("x.a")), users[::-1]) == "two"
    with pytest.raises(NameMismatch, match="no local user is mapped"):
        mapped_user(make(dns("x.b")), users)


BAD_IDENTITIES = [
    "", "a.example", "DNS:", "DNS:a..b", "DNS:*", "DNS:a.*.b", "DNS:a*.b", "DNS:*a.b", "IP:a.example", "IP:1.2.3",
    "SHA256:ab", "SHA256:" + "g" * 64, "SHA1:" + "0" * 40, "EMAIL:a", "EMAIL:*@b",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_IDENTITIES)
def test_a_text_that_is_no_identity_is_refused(text):
    with pytest.raises(UsageError):
        parse_identity(text)


@given(st.text())
def test_any_text_is_an_identity_or_a_usage_error(text):
    for parse in (parse_identity, host_name):
        with contextlib.suppress(UsageError):
            parse(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_certificate_or_rejected(data):
    with pytest.raises(CertificateRejected):
        parse_certificate(data)


def test_a_certificate_changed_anywhere_is_an_error_of_ours_or_is_checked(make):
    """Each byte of one, one at a time: parsers may stumble, our callers may not."""
    der = make(dns("a.example"), uri("spiffe://example.org/app")).public_bytes(Encoding.DER)
    for place in range(len(der)):
        changed = der[:place] + bytes([der[place] ^ 0x55]) + der[place + 1 :]
        with contextlib.suppress(CertificateRejected):
            certificate = parse_certificate(changed)
            passes(check_server_name, certificate, "a.example")
            passes(check_identities, certificate, ("URI:spiffe://example.org/app",))

"""Everything that is wrong with a keyring: one problem at a time, each with its place and nothing else."""

import base64
import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktls.errors import KeyringError
from ktls.keyring import Keyring, SniEntry, open_keyring
from ktls.keyring_check import LINKS_SHOWN, check_keyring
from ktls.keyring_facts import keyring_facts
from ktls.keyring_parts import read_parts
from tests.ktls.certificates import LATER, Made, make, make_list, make_sha1, write_chain, write_key


@pytest.fixture(scope="module")
def root() -> Made:
    return make("root")


@pytest.fixture(scope="module")
def leaf(root) -> Made:
    return make("leaf", root, names=["a.example", "*.b.example"])


@pytest.fixture
def ring(root, leaf, tmp_path) -> Keyring:
    """A keyring in order."""
    crl = tmp_path / "list.crl"
    crl.write_bytes(make_list(root))
    chain, key = write_chain(tmp_path / "web.pem", leaf), write_key(tmp_path / "web.key", leaf)
    sni = (SniEntry(("a.example", "x.b.example", "*.b.example"), chain, key),)
    trust = (str(write_chain(tmp_path / "trust.pem", root)),)
    return Keyring("web", chain, key, trust=trust, crl=(crl,), sni=sni)


def found(keyring: Keyring, days: int = 30) -> list[tuple[str, str, str]]:
    """The findings, without the directory that the files are in."""
    folder = str(keyring.certificate.parent if keyring.certificate else "-")
    return [
        (one.level, ".".join(map(str, one.key)), one.what.replace(f"{folder}/", ""))
        for one in check_keyring(read_parts(keyring), LATER, days)
    ]


def test_nothing_is_wrong_with_a_keyring_in_order(ring):
    assert found(ring) == []
    assert found(Keyring("client")) == []


def test_a_key_of_another_certificate(ring, root, tmp_path):
    ring = replace(ring, private_key=write_key(tmp_path / "other.key", root))
    assert found(ring) == [("error", "private_key", "other.key: is not the key of the first certificate in web.pem")]


def test_files_that_cannot_be_read_are_among_the_findings(ring, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert found(replace(ring, private_key=loop)) == [
        ("error", "private_key", "loop: cannot be read: its symbolic links form a loop")
    ]


def test_dates_and_strength_are_those_of_the_certificates_file(ring, root, tmp_path):
    old = make("old", root, names=["a.example"], days=(-20, -10), key=rsa.generate_private_key(65537, 1024))
    chain, key = write_chain(tmp_path / "old.pem", old), write_key(tmp_path / "old.key", old)
    assert found(replace(ring, certificate=chain, private_key=key)) == [
        ("error", "certificate", f"old.pem: expired on {old.certificate.not_valid_after_utc:%Y-%m-%d}"),
        ("error", "certificate", "old.pem: has an RSA key of 1024 bits: 2048 are the least"),
    ]
    weak = make_sha1(tmp_path, "weak", root)
    chain, key = write_chain(tmp_path / "weak.pem", weak), write_key(tmp_path / "weak.key", weak)
    assert found(replace(ring, certificate=chain, private_key=key)) == [
        ("error", "certificate", "weak.pem: is signed with SHA1, which is broken")
    ]
    young = make("young", root, names=["a.example"], days=(-1, 20.5))
    chain, key = write_chain(tmp_path / "young.pem", young), write_key(tmp_path / "young.key", young)
    ring = replace(ring, certificate=chain, private_key=key)
    assert [(level, key) for level, key, _ in found(ring)] == [("warning", "certificate")]
    assert found(ring, days=20) == []


def test_a_chain_that_reaches_no_anchor_is_a_warning(ring, root, tmp_path):
    """The peers may have the one that is missing."""
    below = make("below", make("middle", root), names=["a.example"])
    chain, key = write_chain(tmp_path / "below.pem", below), write_key(tmp_path / "below.key", below)
    ((level, place, what),) = found(replace(ring, certificate=chain, private_key=key))
    assert (level, place) == ("warning", "certificate")
    assert what.startswith('below.pem: ends at "CN=below", whose issuer "CN=middle" is no anchor')


def test_a_name_that_the_certificate_is_not_for(ring):
    (entry,) = ring.sni
    entry = replace(entry, names=("a.example", "c.example", "*.a.example", "y.x.b.example"))
    assert found(replace(ring, sni=(entry,))) == [
        ("error", "sni.0.names", f'web.pem: is not for "{name}"')
        for name in ("c.example", "*.a.example", "y.x.b.example")
    ]


def test_a_certificate_without_names_is_for_none(ring, root, tmp_path):
    bare = make("bare", root)
    entry = SniEntry(("*.b.example",), write_chain(tmp_path / "bare.pem", bare), write_key(tmp_path / "bare.key", bare))
    assert found(replace(ring, sni=(entry,))) == [("error", "sni.0.names", 'bare.pem: is not for "*.b.example"')]


def test_a_certificate_that_cannot_be_taken_apart_is_told(ring, leaf, tmp_path):
    """One of its names is not ASCII."""
    der = leaf.certificate.public_bytes(Encoding.DER).replace(b"*.b.example", b"*.b.exampl\xff")
    body = base64.encodebytes(der).decode()
    ring.certificate.write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    places = {(level, place) for level, place, what in found(ring) if "cannot be understood" in what}
    assert places == {("error", "sni.0.certificate")}


# --- trust -----------------------------------------------------------------------------------------------------------


def test_anchors_out_of_date_are_warned_of_and_only_those_are_an_error(ring, root, tmp_path):
    old = make("old", days=(-20, -10))
    both = replace(ring, trust=(*ring.trust, str(write_chain(tmp_path / "old.pem", old))), crl=())
    warning = ("warning", "trust.1", f'old.pem: "CN=old" expired on {old.certificate.not_valid_after_utc:%Y-%m-%d}')
    assert found(both) == [warning]
    alone = Keyring("x", trust=(str(tmp_path / "old.pem"),))
    assert [(level, place) for level, place, _ in found(alone)] == [("warning", "trust.0"), ("error", "trust")]
    assert found(alone)[1][2] == "trusts nobody: none of its anchors is valid now"


def test_an_anchor_that_expires_soon_is_a_warning(tmp_path):
    soon = write_chain(tmp_path / "soon.pem", make("soon", days=(-1, 5.5)))
    ((level, place, what),) = found(Keyring("x", trust=(str(soon),)))
    assert (level, place) == ("warning", "trust.0")
    assert what.endswith("in 5 days")


def test_no_trust_at_all_is_an_error():
    assert found(Keyring("x", trust=())) == [("error", "trust", "trusts nobody: there is no anchor")]


def test_links_to_nothing_in_a_directory_of_anchors_are_warned_of(root, tmp_path):
    folder = tmp_path / "anchors"
    folder.mkdir()
    write_chain(folder / "root.pem", root)
    (folder / "fine.0").symlink_to("root.pem")
    (folder / "gone.0").symlink_to("gone.pem")
    (folder / "loop.0").symlink_to("loop.0")
    ring = Keyring("x", trust=(str(folder),))
    assert found(ring) == [
        ("warning", "trust.0", f"{folder}/gone.0: is passed over: No such file or directory"),
        ("warning", "trust.0", f"{folder}/loop.0: is passed over: its symbolic links form a loop"),
    ]
    for number in range(10):
        (folder / f"more{number}.0").symlink_to("gone.pem")
    assert len(found(ring)) == LINKS_SHOWN


# --- revocation lists ------------------------------------------------------------------------------------------------


def test_a_list_that_has_expired_or_is_not_yet_valid(ring, root):
    for days, words in (((-20, -10), "expired on .*: every peer is refused"), ((1, 2), "is not valid before .*")):
        ring.crl[0].write_bytes(make_list(root, days=days))
        ((level, place, what),) = found(ring)
        assert (level, place) == ("error", "crl.0")
        assert re.fullmatch(f'list.crl: the list of "CN=root" {words}', what)


def test_a_list_of_somebody_unknown(ring, tmp_path):
    stranger = make("stranger")
    (tmp_path / "other.crl").write_bytes(make_list(stranger))
    lists = (*ring.crl, tmp_path / "other.crl")
    unknown = 'other.crl: the list of "CN=stranger" is by an unknown issuer: no anchor has that name'
    assert found(replace(ring, crl=lists)) == [("warning", "crl.1", unknown)]
    assert found(replace(ring, crl=lists, trust=("system", *ring.trust))) == []


def test_a_list_that_the_anchor_has_not_signed(ring, root):
    ring.crl[0].write_bytes(make_list(root, key=make("other").key))
    assert found(ring) == [
        ("error", "crl.0", 'list.crl: the list of "CN=root" is not signed by the anchor of that name')
    ]


def test_an_anchor_without_a_list_where_others_have_one(ring, tmp_path):
    more = str(write_chain(tmp_path / "more.pem", make("more")))
    what = '"CN=more" is trusted and has no list: whoever it vouches for is refused'
    assert found(replace(ring, trust=(*ring.trust, more))) == [("warning", "crl", what)]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "who"), [(0o640, "its group"), (0o604, "everybody"), (0o620, "its group")])
def test_a_key_that_others_can_read_or_write(ring, mode, who):
    ring.private_key.chmod(mode)
    assert found(replace(ring, sni=())) == [("warning", "private_key", f"web.key: is open to {who}: chmod 600 web.key")]


def test_a_password_that_others_can_read(ring, tmp_path):
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o644)
    places = [place for _, place, _ in found(replace(ring, password_file=password))]
    assert places == ["password_file"]


def test_what_openssl_alone_refuses_is_told_in_its_words(ring, root, monkeypatch, tmp_path):
    """A limit of ours below OpenSSL's shows that it is asked."""
    monkeypatch.setattr("ktls.chains.RSA_BITS", 1024)
    short = make("short", root, names=["a.example"], key=rsa.generate_private_key(65537, 1024))
    chain, key = write_chain(tmp_path / "short.pem", short), write_key(tmp_path / "short.key", short)
    ((level, place, what),) = found(replace(ring, certificate=chain, private_key=key))
    assert (level, place) == ("error", "")
    assert what.startswith("OpenSSL refuses it: ")


# --- any bytes -------------------------------------------------------------------------------------------------------

CHANGES = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3)
"""What to do to a file that is right: another byte here and there."""


def changed(der: bytes, changes: list[tuple[int, int]]) -> bytes:
    made = bytearray(der)
    for at, byte in changes:
        made[at % len(made)] = byte
    return bytes(made)


def pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"


def understood(ring: Keyring) -> None:
    """Whatever is in the files, there are findings and facts, and opening is refused with our error if at all."""
    parts = read_parts(ring)
    check_keyring(parts, LATER, 30)
    json.dumps(keyring_facts(parts, LATER))
    with contextlib.suppress(KeyringError):
        open_keyring(ring)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(one=CHANGES, two=CHANGES, three=CHANGES)
def test_files_that_are_nearly_right_have_findings(ring, root, leaf, one, two, three):
    ring.certificate.write_text(pem(changed(leaf.certificate.public_bytes(Encoding.DER), one)))
    Path(ring.trust[0]).write_text(pem(changed(root.certificate.public_bytes(Encoding.DER), two)))
    ring.crl[0].write_bytes(changed(x509.load_pem_x509_crl(make_list(root)).public_bytes(Encoding.DER), three))
    understood(ring)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary())
def test_files_of_any_bytes_have_findings(ring, data):
    for path in (ring.certificate, ring.private_key, Path(ring.trust[0]), *ring.crl):
        path.write_bytes(data)
    understood(ring)

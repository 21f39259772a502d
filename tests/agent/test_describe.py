"""What the report says about peers and failures."""

import ssl

import pytest
import trustme

from ktls.agent.describe import MAX_SANS, Failure, peer_facts
from ktls.errors import NameMismatch


def der(certificate: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())


def test_a_peer_is_named_by_subject_and_alternative_names(ca: trustme.CA) -> None:
    facts = peer_facts((der(ca.issue_cert("db.example", "192.0.2.1", common_name="db")),))
    assert "CN=db" in str(facts["peer"])
    assert facts["peer_names"] == ["db.example", "192.0.2.1"]


def test_a_peer_without_certificate_has_no_name() -> None:
    assert peer_facts(()) == {}


@pytest.mark.parametrize("garbage", [b"", b"0\x03\x02\x01\x01", b"\xff" * 100])
def test_a_certificate_that_cannot_be_parsed_is_called_so(garbage: bytes) -> None:
    assert peer_facts((garbage,)) == {"peer": "(cannot be parsed)"}


def test_a_certificate_with_a_thousand_names_is_cut(ca: trustme.CA) -> None:
    facts = peer_facts((der(ca.issue_cert(*[f"n{i}.example" for i in range(300)])),))
    assert len(facts["peer_names"]) == MAX_SANS  # type: ignore[arg-type]


def test_a_failure_carries_errno_by_number_and_name() -> None:
    facts = Failure.of(NameMismatch("certificate is for a.example, not b.example")).facts()
    assert (facts["error"], facts["errno"], facts["errno_name"]) == ("name-mismatch", 129, "EKEYREJECTED")
    assert Failure.tcp(111).facts()["errno_name"] == "ECONNREFUSED"


def test_of_what_nobody_foresaw_only_its_kind_is_told() -> None:
    facts = Failure.internal(ValueError("the key is 0123456789abcdef")).facts()
    assert (facts["error"], facts["errno_name"], facts["message"]) == ("internal", "EPROTO", "ValueError in the agent")

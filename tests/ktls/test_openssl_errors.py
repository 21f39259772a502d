"""OpenSSL's words in our tables. The rows that a real peer can provoke are provoked in
test_handshake_certificates.py and test_handshake_failures.py."""

import pytest
from OpenSSL import SSL

from ktls.errors import (
    BadRecord,
    CertificateExpired,
    CertificateMissing,
    CertificateRejected,
    PeerAlert,
    PeerClosed,
    PeerError,
    ProtocolError,
    RecordOverflow,
    UnknownIssuer,
)
from ktls.openssl_errors import _REASONS, _VERIFY, handshake_error, verify_error


def openssl(*reasons: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason) for reason in reasons])


@pytest.mark.parametrize("code", _VERIFY)
def test_every_verify_result_of_the_table_says_whose_certificate_and_why(code):
    leaf, words = _VERIFY[code]
    assert type(verify_error(code, 0)) is leaf
    assert str(verify_error(code, 0)) == f"the peer's certificate {words}"
    assert "certificate 2 of the peer's chain" in str(verify_error(code, 2))


def test_the_leaves_for_verify_results_are_those_programs_tell_apart():
    assert type(verify_error(10, 0)) is CertificateExpired
    assert type(verify_error(20, 0)) is UnknownIssuer


def test_other_verify_results_are_named_as_openssl_names_them():
    assert type(verify_error(SSL.X509VerificationCodes.ERR_INVALID_PURPOSE, 1)) is CertificateRejected
    assert "invalid purpose" in str(verify_error(SSL.X509VerificationCodes.ERR_INVALID_PURPOSE, 1))
    assert "X.509 error 9999" in str(verify_error(9999, 0))


@pytest.mark.parametrize("reason", _REASONS)
def test_every_reason_of_the_table_has_its_leaf_also_behind_others(reason):
    assert type(handshake_error(openssl(reason), alerted=False)) is _REASONS[reason]
    assert type(handshake_error(openssl("something else", reason), alerted=False)) is _REASONS[reason]


def test_some_reasons_by_hand():
    for reason, leaf in (
        ("peer did not return a certificate", CertificateMissing),
        ("decryption failed or bad record mac", BadRecord),
        ("packet length too long", RecordOverflow),
    ):
        assert type(handshake_error(openssl(reason), alerted=False)) is leaf


def test_an_unknown_reason_is_a_protocol_error_with_openssls_text():
    error = handshake_error(openssl("brand new reason"), alerted=False)
    assert type(error) is ProtocolError
    assert "brand new reason" in str(error)


def test_an_alert_from_the_peer_is_one_whatever_its_text():
    assert type(handshake_error(openssl("tlsv1 alert unknown ca"), alerted=True)) is PeerAlert


@pytest.mark.parametrize(
    "error", [SSL.Error(), SSL.Error("text"), SSL.Error([]), SSL.SysCallError(-1, "Unexpected EOF")]
)
def test_an_error_without_reasons_is_still_one_of_ours(error):
    assert isinstance(handshake_error(error, alerted=False), PeerError)


def test_close_notify_is_peer_closed():
    assert type(handshake_error(SSL.ZeroReturnError(), alerted=True)) is PeerClosed

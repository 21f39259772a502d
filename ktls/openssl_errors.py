"""OpenSSL's words for what went wrong, and ours: the one place that knows them.

What the tables do not have becomes a plain ProtocolError or CertificateRejected with OpenSSL's own text.
"""

from OpenSSL import SSL

from ktls.errors import (
    BadRecord,
    CertificateExpired,
    CertificateMissing,
    CertificateRejected,
    CertificateRevoked,
    ClearTextError,
    PeerAlert,
    PeerClosed,
    PeerError,
    ProtocolError,
    RecordOverflow,
    UnknownIssuer,
)

_Codes = SSL.X509VerificationCodes

_VERIFY: dict[int, tuple[type[PeerError], str]] = {
    _Codes.ERR_CERT_NOT_YET_VALID: (CertificateExpired, "is not valid yet"),
    _Codes.ERR_CERT_HAS_EXPIRED: (CertificateExpired, "has expired"),
    _Codes.ERR_CERT_REVOKED: (CertificateRevoked, "is revoked"),
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: (UnknownIssuer, "has an issuer that is not known"),
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: (UnknownIssuer, "has an issuer that is not trusted"),
    _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: (UnknownIssuer, "came without its issuer's"),
    _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: (UnknownIssuer, "is self-signed and not trusted"),
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: (UnknownIssuer, "is of a root that is not trusted"),
    _Codes.ERR_CERT_UNTRUSTED: (UnknownIssuer, "is not trusted for this purpose"),
    _Codes.ERR_UNABLE_TO_GET_CRL: (CertificateRejected, "has an issuer without revocation list in the keyring"),
    _Codes.ERR_CRL_HAS_EXPIRED: (CertificateRejected, "cannot be checked: the revocation list has expired"),
    _Codes.ERR_CRL_NOT_YET_VALID: (CertificateRejected, "cannot be checked: the revocation list is not valid yet"),
}

_VERIFY_NAMES = {
    value: name.removeprefix("ERR_").lower().replace("_", " ")
    for name, value in vars(_Codes).items()
    if name.startswith("ERR_")
}

_REASONS: dict[str, type[PeerError]] = {
    "peer did not return a certificate": CertificateMissing,
    "certificate verify failed": CertificateRejected,  # by itself; what the verify callback noted comes first
    "decryption failed or bad record mac": BadRecord,
    "encrypted length too long": RecordOverflow,
    "data length too long": RecordOverflow,
    "packet length too long": RecordOverflow,
    "http request": ClearTextError,
    "https proxy request": ClearTextError,
}


def verify_error(code: int, depth: int) -> PeerError:
    """Return what an X.509 verify result means.

    Args:
        code: of X509_STORE_CTX_get_error(3).
        depth: of the certificate in the chain; 0 is the peer's own.

    >>> verify_error(10, 0).message
    "the peer's certificate has expired"
    """
    whose = "the peer's certificate" if depth == 0 else f"certificate {depth} of the peer's chain"
    leaf, what = _VERIFY.get(
        code, (CertificateRejected, f"is refused: {_VERIFY_NAMES.get(code, f'X.509 error {code}')}")
    )
    return leaf(f"{whose} {what}")


def handshake_error(error: SSL.Error, *, alerted: bool) -> PeerError:
    """Return what an error of do_handshake() means.

    Args:
        error: pyOpenSSL's.
        alerted: whether OpenSSL has noted an alert from the peer: SSL_RECEIVED_SHUTDOWN.
    """
    if isinstance(error, SSL.ZeroReturnError):
        return PeerClosed("the peer sent close_notify during the handshake")
    reasons = _reasons(error)
    text = "; ".join(reasons) or repr(error)
    if alerted:
        return PeerAlert(f"the peer refused the handshake: {text}")
    leaf = next((_REASONS[reason] for reason in reasons if reason in _REASONS), ProtocolError)
    return leaf(f"the handshake failed: {text}")


def _reasons(error: SSL.Error) -> list[str]:
    """The reasons in OpenSSL's queue, oldest first: (library, function, reason) each."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return [str(entry[-1]) for entry in queue]

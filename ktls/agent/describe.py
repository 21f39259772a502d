"""What the report says about a session and a failure. Names and numbers only; no key, no secret, no object's repr."""

import errno as _errno
import os
from dataclasses import dataclass

from cryptography import x509

from ktls.errors import InternalFault, KtlsError
from ktls.session import Session

MAX_SANS = 20
"""Alternative names reported of one certificate; a hostile one may carry thousands."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed, as the report and the program are told.

    Args:
        reason: one stable word.
        errno: what the program's calls fail with.
        message: one sentence.
        hint: what to do about it; may be empty.
    """

    reason: str
    errno: int
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: KtlsError) -> "Failure":
        """Tell of one of our own errors."""
        return cls(error.reason, error.errno, error.message, error.hint)

    @classmethod
    def internal(cls, error: Exception) -> "Failure":
        """Tell of one that nobody foresaw, by its kind: what it says might be a secret."""
        return cls.of(InternalFault(f"{type(error).__name__} in the agent"))

    @classmethod
    def tcp(cls, number: int) -> "Failure":
        """Tell of a TCP connect that failed: the program sees what it would have seen without us."""
        return cls("tcp", number, f"TCP connect: {os.strerror(number)}")

    def facts(self) -> dict[str, object]:
        """Return what the report says."""
        return {
            "error": self.reason,
            "errno": self.errno,
            "errno_name": _errno.errorcode.get(self.errno),
            "message": self.message,
            "hint": self.hint or None,
        }


def session_facts(session: Session) -> dict[str, object]:
    """Return what the report says about a session."""
    return {
        "version": session.version.label,
        "cipher": session.suite.iana_name,
        "server_name": session.server_name,
        "alpn": session.alpn,
        "resumed": session.resumed,
        "peer_user": session.peer_user,
        **peer_facts(session.peer_chain),
    }


def peer_facts(chain: tuple[bytes, ...]) -> dict[str, object]:
    """Return who the peer's certificate says it is. Of a certificate that cannot be taken apart, that it cannot."""
    if not chain:
        return {}
    try:
        certificate = x509.load_der_x509_certificate(chain[0])
        subject = certificate.subject.rfc4514_string()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        sans = [str(name.value) for name in list(names)[:MAX_SANS]]
    except x509.ExtensionNotFound:
        return {"peer": subject}
    except ValueError:  # cryptography's word for a certificate that breaks the rules of X.509 or ASN.1
        return {"peer": "(cannot be parsed)"}
    return {"peer": subject, "peer_names": sans}

"""The one error hierarchy: every failure has a reason, an errno, a hint and, where TLS has one, an alert.

`KtlsError` is never raised itself. Its three children say whose fault it is: the peer's (`PeerError`), the caller's or
the operator's (`ConfigError`), or the system's (`SystemFault`). Every leaf fixes, as class attributes:

- ``reason``: one stable word for logs, JSON and metrics;
- ``errno``: what the protected program sees from connect(), read() or getsockopt(SO_ERROR), as docs/design.md has it;
- ``alert``: the TLS alert number we send (RFC 8446 section 6), or None where none is sent.

An instance adds the message (what happened, with the offending value, never a secret) and a hint (what to do next).
"""

import errno as _errno
from typing import ClassVar


class KtlsError(Exception):
    """Base of every error this project raises. Cannot be instantiated itself.

    Args:
        message: one sentence; names the place and the offending value, never key material.
        hint: what the reader can do about it; defaults to the class's own hint.
    """

    reason: ClassVar[str] = ""
    errno: ClassVar[int] = _errno.EPROTO
    alert: ClassVar[int | None] = None
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        if not self.reason:
            raise TypeError(f"{type(self).__name__} is a category, raise one of its leaves")
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    def __str__(self) -> str:
        return self.message


# --- the peer's fault ------------------------------------------------------------------------------------------------


class PeerError(KtlsError):
    """The other end did something we refuse."""


class ProtocolError(PeerError):
    """The peer broke TLS: malformed record, unexpected message, no shared version or cipher."""

    reason = "protocol"
    errno = _errno.EPROTO
    alert = 80  # internal_error; the precise alert, where OpenSSL chose one, has already been sent


class BadRecord(ProtocolError):
    """A record that does not decrypt: tampered with, of another session, or out of order."""

    reason = "bad-record"
    alert = 20  # bad_record_mac


class RecordOverflow(ProtocolError):
    """A record longer than the protocol allows."""

    reason = "record-overflow"
    alert = 22  # record_overflow


class ClearTextError(PeerError):
    """The peer spoke clear text where TLS is due."""

    reason = "clear-text"
    errno = _errno.EPROTO
    alert = 10  # unexpected_message
    default_hint = "the peer does not speak TLS on this port: protect it too, or write a rule with verdict clear"


class PeerAlert(PeerError):
    """The peer sent a fatal alert during the handshake."""

    reason = "peer-alert"
    errno = _errno.EPROTO


class PeerClosed(PeerError):
    """The peer closed or reset the connection before the handshake was done."""

    reason = "peer-closed"
    errno = _errno.ECONNRESET


class Truncated(PeerError):
    """End of file without close_notify (RFC 8446 section 6.1)."""

    reason = "truncated"
    errno = _errno.ECONNRESET


class HandshakeTimeout(PeerError):
    """The handshake did not end within its deadline."""

    reason = "timeout"
    errno = _errno.ETIMEDOUT


class CertificateRejected(PeerError):
    """The peer's certificate is not trusted, not for this name, or missing where one is required."""

    reason = "certificate-rejected"
    errno = _errno.EKEYREJECTED
    alert = 42  # bad_certificate


class NameMismatch(CertificateRejected):
    """The peer's certificate is valid, but for somebody else."""

    reason = "name-mismatch"


class CertificateMissing(CertificateRejected):
    """The peer gave no certificate where one is required."""

    reason = "certificate-missing"
    alert = 116  # certificate_required


class UnknownIssuer(CertificateRejected):
    """No trust anchor vouches for the peer's certificate."""

    reason = "unknown-issuer"
    alert = 48  # unknown_ca
    default_hint = "add the issuer's certificate to the keyring's trust"


class CertificateExpired(PeerError):
    """The peer's certificate is outside its validity period."""

    reason = "certificate-expired"
    errno = _errno.EKEYEXPIRED
    alert = 45  # certificate_expired


class CertificateRevoked(PeerError):
    """The peer's certificate is on the issuer's revocation list."""

    reason = "certificate-revoked"
    errno = _errno.EKEYREVOKED
    alert = 44  # certificate_revoked


# --- the caller's or the operator's fault ----------------------------------------------------------------------------


class ConfigError(KtlsError):
    """What we were told cannot be done."""


class UsageError(ConfigError):
    """A command line, an argument or a call that cannot be right."""

    reason = "usage"
    errno = _errno.EINVAL


class PolicyError(ConfigError):
    """A policy that cannot be loaded. The message holds one problem a line, each with file, line and key."""

    reason = "policy"
    errno = _errno.EINVAL


class KeyringError(ConfigError):
    """A keyring that cannot be opened: missing, unreadable, mismatched or expired files."""

    reason = "keyring"
    errno = _errno.ENOKEY
    alert = 80  # internal_error


class Denied(ConfigError):
    """Policy refuses this connection."""

    reason = "denied"
    errno = _errno.EACCES


class AlreadyTls(Denied):
    """The program speaks TLS itself, inside ours, and its rule says `already_tls = "deny"`.

    The program finds its connection reset: OpenSSL takes EPROTO from a socket for something that will pass.
    """

    reason = "already-tls"
    errno = _errno.ECONNRESET


class EngineUnavailable(ConfigError):
    """The rule demands an engine that cannot serve this session here."""

    reason = "engine-unavailable"
    errno = _errno.EPROTONOSUPPORT
    alert = 80  # internal_error


class Uncovered(ConfigError):
    """A program the shim cannot cover (static, setuid): refused rather than run in clear."""

    reason = "uncovered"
    errno = _errno.ENOEXEC


# --- the system's fault ----------------------------------------------------------------------------------------------


class SystemFault(KtlsError):
    """The machine could not do its part."""


class AgentUnreachable(SystemFault):
    """No agent answers on the socket."""

    reason = "no-agent"
    errno = _errno.ECONNREFUSED
    default_hint = "start the program with `ktls run`, or an agent with `ktls agent`"


class AgentProtocolError(SystemFault):
    """A malformed message on the agent's socket."""

    reason = "agent-protocol"
    errno = _errno.EBADMSG


class ResourceExhausted(SystemFault):
    """A bound was reached: descriptors, connections, queue."""

    reason = "exhausted"
    errno = _errno.EMFILE


class InternalFault(SystemFault):
    """A mistake of ours: something came that the code did not foresee. It fails closed."""

    reason = "internal"
    errno = _errno.EPROTO
    alert = 80  # internal_error
    default_hint = "this is a bug: please report it, with the traceback in the agent's log"


class KernelError(SystemFault):
    """Linux refused a kTLS call. The leaves (ktls/kernel.py) name each errno of setsockopt(SOL_TLS)."""

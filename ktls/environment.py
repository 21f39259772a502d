"""The TLS environment: what all connections under one action share, made once by the first of them.

1. An environment is one OpenSSL context (on a server one more for each SNI certificate), made complete before its first
   connection and never changed after. Tickets are sealed with the first context's keys, so all its connections resume
   each other's sessions, and no other environment's.
2. OpenSSL's callbacks belong to contexts, what they tell belongs to connections: each connection carries `Notes`, and
   the callbacks do nothing but write there. They never raise: pyOpenSSL would hand the exception to whichever
   connection looks next, or print it and go on.
3. Here is the clock and the key-log file that the handshake driver must not have.
"""

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from OpenSSL import SSL, crypto

from ktls.ciphers import Role, Version
from ktls.contexts import fill
from ktls.errors import CertificateExpired, KeyringError, KtlsError, ProtocolError
from ktls.keyring import Credential, Keyring, OpenKeyring, open_keyring
from ktls.parameters import TlsParameters

__all__ = ["Environment", "EnvironmentCache", "Notes", "TlsParameters"]

MAX_ENVIRONMENTS = 256
"""Environments kept. A policy has as many as it has actions; the one used longest ago goes first."""
MAX_SESSIONS = 1024
"""Client sessions kept for resumption in one environment, some 2 KiB each."""
MAX_SECRETS = 32
"""Key-log lines of one connection. OpenSSL writes 5 in TLS 1.3 and 1 in 1.2; a flood would be a defect."""
MAX_CA_NAMES = 64
"""Above so many anchors a server does not list them in its CertificateRequest: clients then show what they have."""
SESSION_ID_CONTEXT = b"ktls"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Notes:
    """What OpenSSL's callbacks told about one connection.

    Args:
        secrets: key-log lines.
        verify_error: X.509 verify result and depth of the first certificate that was refused.
        objection: why the connection must not go on, though OpenSSL would.
        alert: what to tell the peer then.
    """

    secrets: list[bytes] = field(default_factory=list, repr=False)
    verify_error: tuple[int, int] | None = None
    objection: KtlsError | None = None
    alert: int | None = None


class _Connection(SSL.Connection):
    """Leaves its session usable when it goes, as it does when the kernel takes over.

    SSL_free(3) takes a connection that was not shut down for a broken one and makes its session one that is never
    offered again. A rule of TLS 1.0; from 1.1 on only a fatal alert does that, and OpenSSL sees to it itself.
    """

    def __del__(self) -> None:
        self.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)


class Environment:
    """What the connections under one action share. Any thread may use it.

    Args:
        params: what it is made of.
        clock: seconds, for the age of client sessions.
        keyring: that of `params`, if it has been opened already.

    Raises:
        KeyringError: the keyring cannot be opened, or a server's has no certificate.
        UsageError: parameters that contradict each other.
    """

    def __init__(
        self,
        params: TlsParameters,
        clock: Callable[[], float] = time.monotonic,
        keyring: OpenKeyring | None = None,
    ) -> None:
        self.params = params
        self.identities, self.users = params.identities(), params.mapping()
        self._suites = params.usable_suites()
        self._alpn = params.protocols()
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, tuple[float, SSL.Session]] = OrderedDict()
        keyring = keyring or open_keyring(params.keyring)
        if params.role is Role.SERVER and keyring.credential is None and not keyring.sni:
            raise KeyringError(f"keyring {params.keyring.name!r} has no certificate, and a server needs one")
        self._has_default = keyring.credential is not None
        by_name = [(names, self._make_context(keyring, credential)) for names, credential in keyring.sni]
        self._by_name = {name: context for names, context in by_name for name in names}
        self.context = self._make_context(keyring, keyring.credential)
        if params.keylog is not None:
            _log.warning("SESSION SECRETS ARE WRITTEN TO %s: whoever reads it can read the traffic", params.keylog)

    # --- making contexts -----------------------------------------------------------------------------------------

    def _make_context(self, keyring: OpenKeyring, credential: Credential | None) -> SSL.Context:
        params = self.params
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        if not params.tickets:
            context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # a server's tickets hold all; a client's are kept here
        context.set_session_id(SESSION_ID_CONTEXT)
        context.set_timeout(params.ticket_lifetime)
        self._set_suites(context)
        fill(context, params.keyring.name, keyring, credential)
        self._set_callbacks(context, keyring)
        return context

    def _set_suites(self, context: SSL.Context) -> None:
        names = {v: ":".join(s.openssl_name for s in self._suites if v in s.versions).encode() for v in Version}
        if names[Version.TLS13]:
            context.set_tls13_ciphersuites(names[Version.TLS13])
        if names[Version.TLS12]:
            context.set_cipher_list(names[Version.TLS12])
        offered = [version for version in Version if names[version]]
        context.set_min_proto_version(min(offered))
        context.set_max_proto_version(max(offered))

    def _set_callbacks(self, context: SSL.Context, keyring: OpenKeyring) -> None:
        params = self.params
        context.set_keylog_callback(_note_secret)
        mode = SSL.VERIFY_PEER
        if params.role is Role.SERVER:
            if params.client_auth == "none":
                mode = SSL.VERIFY_NONE
            elif params.needs_certificate:
                mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            if params.checks_chain and mode and len(keyring.anchors) <= MAX_CA_NAMES:
                for anchor in keyring.anchors:
                    context.add_client_ca(anchor)
            context.set_tlsext_servername_callback(self._choose_certificate)
            if self._alpn:
                context.set_alpn_select_callback(self._choose_protocol)
        elif self._alpn:
            context.set_alpn_protos(list(self._alpn))
        context.set_verify(mode, self._verify)

    # --- callbacks -----------------------------------------------------------------------------------------------

    def _verify(self, connection: SSL.Connection, _: crypto.X509, code: int, depth: int, ok: int) -> bool:
        if ok or not self.params.checks_chain:
            return True
        if code == SSL.X509VerificationCodes.ERR_UNABLE_TO_GET_CRL and depth > 0:
            return True  # lists of intermediates count where they are given; only the leaf must have one
        notes = connection.get_app_data()
        if notes is not None and notes.verify_error is None:
            notes.verify_error = (code, depth)
        return False

    def _choose_certificate(self, connection: SSL.Connection) -> None:
        """Chooses by the client's server name (RFC 6066 section 3)."""
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower().rstrip(".")
        context = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
        if context is not None:
            connection.set_context(context)
        elif not self._has_default and (notes := connection.get_app_data()) is not None:
            notes.objection = ProtocolError(f"no certificate for the server name {name!r} that the client asks for")
            notes.alert = 112  # unrecognized_name

    def _choose_protocol(
        self, connection: SSL.Connection, offered: list[bytes]
    ) -> "bytes | SSL._NoOverlappingProtocols":
        """Chooses by our order of preference (RFC 7301 section 3.2)."""
        chosen = next((protocol for protocol in self._alpn if protocol in offered), None)
        if chosen is not None:
            return chosen
        if (notes := connection.get_app_data()) is not None:
            notes.objection = ProtocolError(f"the client offers the protocols {offered[:8]!r}, and we {self._alpn!r}")
            notes.alert = 120  # no_application_protocol
        return SSL.NO_OVERLAPPING_PROTOCOLS

    # --- for the handshake driver --------------------------------------------------------------------------------

    def connect(self, notes: Notes) -> SSL.Connection:
        """Return a new connection over memory BIOs, whose callbacks write to `notes`."""
        connection = _Connection(self.context, None)
        connection.set_app_data(notes)
        if self.params.role is Role.CLIENT:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        return connection

    def keep_session(self, server: str, session: SSL.Session) -> None:
        """Remember a client's session with a server, until its lifetime or room ends."""
        with self._lock:
            self._sessions[server] = (self._clock() + self.params.ticket_lifetime, session)
            self._sessions.move_to_end(server)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def session_with(self, server: str) -> SSL.Session | None:
        """Return a session to offer to that server."""
        with self._lock:
            deadline, session = self._sessions.get(server, (0.0, None))
            return session if self._clock() < deadline else None

    def forget_session(self, server: str) -> None:
        """Drop what is kept for that server."""
        with self._lock:
            self._sessions.pop(server, None)

    def check_dates(self, certificate: x509.Certificate) -> None:
        """Check what may have changed since the session was made that is resumed now.

        Raises:
            CertificateExpired: the certificate has expired meanwhile.
        """
        if datetime.now(UTC) > certificate.not_valid_after_utc:
            raise CertificateExpired(f"the resumed session's certificate expired {certificate.not_valid_after_utc}")

    def log_secrets(self, lines: list[bytes]) -> None:
        """Append to the key log, if there is one. A file that cannot be written is told and harms no connection."""
        if self.params.keylog is None or not lines:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self.params.keylog, flags, 0o600), "ab") as file:
                os.fchmod(file.fileno(), 0o600)  # it may have been there before
                file.write(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            _log.warning("cannot write the key log %s: %s", self.params.keylog, error.strerror)


class EnvironmentCache:
    """The environments in use, made when first asked for. Any thread may use it.

    Keyrings are opened once and kept as they were then: what happens to their files changes nothing here until `renew`.

    Args:
        limit: environments kept; connections hold on to theirs even when it is dropped here.
    """

    def __init__(self, limit: int = MAX_ENVIRONMENTS) -> None:
        self.created = 0
        """How many were made so far."""
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[TlsParameters, Environment] = OrderedDict()
        self._opened: dict[Keyring, OpenKeyring] = {}

    def get(self, params: TlsParameters) -> Environment:
        """Return the environment of these parameters.

        Raises:
            KeyringError: it cannot be made, and nothing is remembered.
            UsageError: likewise.
        """
        with self._lock:
            if params not in self._kept:
                keyring = self._opened.get(params.keyring) or open_keyring(params.keyring)
                self._kept[params] = Environment(params, keyring=keyring)
                self._opened[params.keyring] = keyring
                self.created += 1
                if len(self._kept) > self._limit:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(params)
            return self._kept[params]

    def renew(self, keyring: Keyring, opened: OpenKeyring) -> None:
        """Use this content of a keyring for connections to come."""
        with self._lock:
            self._opened[keyring] = opened
            for params in [params for params in self._kept if params.keyring == keyring]:
                del self._kept[params]

    def keep(self, keyrings: Collection[Keyring]) -> None:
        """Let go of all keyrings but these."""
        with self._lock:
            self._opened = {keyring: opened for keyring, opened in self._opened.items() if keyring in keyrings}
            for params in [params for params in self._kept if params.keyring not in self._opened]:
                del self._kept[params]


def _note_secret(connection: SSL.Connection, line: bytes) -> None:
    notes = connection.get_app_data()
    if notes is not None and len(notes.secrets) < MAX_SECRETS:
        notes.secrets.append(line)

"""The handshake driver, sans-IO: feed it bytes and it says what to send, how much to read next, and how it ended.

1. It holds no socket, no clock and no thread. OpenSSL works on memory; whoever has the socket executes the events.
2. It takes the peer's bytes record by record and not one past the handshake, since what stays in the socket the kernel
   can still decrypt. `NeedBytes` is exact: five bytes of header, then the body. Who feeds more finds it in `leftover`.
3. What OpenSSL has written leaves only after our own checks: a server of another name gets no client certificate and no
   Finished, a client of another identity no Finished and no ticket.
4. Whatever goes wrong becomes `Failed`, with the alert before it. Alerts for what we found are made here, because
   OpenSSL has no alert for a certificate that is good and somebody else's.
5. `Established` comes with keys that have been proven (`ktls.handshake_keys`).

What may happen when is the table of `ktls.handshake_table`, and nowhere else.
"""

from cryptography import x509
from OpenSSL import SSL, crypto

from ktls.alerts import Alert, AlertLevel
from ktls.ciphers import Role, Version
from ktls.environment import Environment, Notes
from ktls.errors import (
    CertificateMissing,
    ClearTextError,
    HandshakeTimeout,
    KtlsError,
    NameMismatch,
    PeerClosed,
    ProtocolError,
)
from ktls.handshake_keys import HandshakeKeys
from ktls.handshake_table import Established, Event, Failed, Input, NeedBytes, SendBytes, State, next_state
from ktls.identity import check_identities, check_server_name, host_name, mapped_user, parse_certificate
from ktls.openssl_errors import handshake_error, verify_error
from ktls.records import ContentType, RecordHeader, RecordProtection, RecordReader
from ktls.session import Session

__all__ = ["Established", "Event", "Failed", "Handshake", "NeedBytes", "SendBytes", "State"]

MAX_HANDSHAKE = 512 * 1024
"""Bytes the peer may send before its handshake is done. OpenSSL takes certificate chains of 100 KiB."""
_FLIGHT = 1 << 20  # more than OpenSSL ever has to say in one step
_CONTENT_TYPES = frozenset(ContentType)


class Handshake:
    """One handshake. Call `start` once, then do what the events say until `Established` or `Failed`.

    Args:
        environment: of the connection's action.
        server_name: a client's: the name that the program resolved; sent as SNI unless it is an address.
        peer_address: the peer's IP address, for a certificate check when no name is known.

    Raises:
        UsageError: a server name that cannot be one.
    """

    def __init__(
        self, environment: Environment, *, server_name: str | None = None, peer_address: str | None = None
    ) -> None:
        self.state = State.IDLE
        self.leftover = b""
        """What was fed past the handshake's last record: the first bytes of the session, for `Session.rx`."""
        self._environment = environment
        self._role = environment.params.role
        self._notes = Notes()
        self.connection = environment.connect(self._notes)
        """OpenSSL's connection. Once established it is the caller's to go on with, instead of the session's keys."""
        self._keys = HandshakeKeys(self.connection, self._role, self._notes)
        self._reader = RecordReader()
        self._received = 0
        self._head = b""  # the first two bytes
        self._checked: bytes | None = None  # the leaf, in DER, that has passed our checks
        self._peer_user: str | None = None
        self._error: KtlsError | None = None
        self._sni = host_name(server_name) if server_name and self._role is Role.CLIENT else None
        self._expected_name = environment.params.peer_name or self._sni or server_name or peer_address
        self._cached_as = self._sni or peer_address or ""

    # --- what may happen -----------------------------------------------------------------------------------------

    def start(self) -> list[Event]:
        """Begin; a client's first flight is in the events.

        Raises:
            UsageError: it has begun before.
        """
        self._move(Input.START)
        if self._role is Role.CLIENT:
            if self._sni is not None:
                self.connection.set_tlsext_host_name(self._sni.encode())
            session = self._environment.session_with(self._cached_as) if self._environment.params.tickets else None
            if session is not None:
                self.connection.set_session(session)
        events = self._step()
        return events if self.state is State.FAILED else [*events, NeedBytes(self._reader.want)]

    def receive(self, data: bytes) -> list[Event]:
        """Take what was read. It may be more or less than `NeedBytes` said; what is past the end is in `leftover`.

        Raises:
            UsageError: it has not begun or is over; nothing is taken.
        """
        self._move(Input.BYTES)
        events: list[Event] = []
        rest = memoryview(data)
        try:
            self._refuse_clear_text(data)
            while rest:
                # No more than is wanted at a time, so that nothing past the last record is swallowed.
                want = self._reader.want
                self._reader.feed(bytes(rest[:want]))
                rest = rest[want:]
                if (record := self._reader.next_record()) is None:
                    continue
                events += self._take(record)
                if self.state is not State.NEGOTIATING:
                    self.leftover = bytes(rest)
                    return events
        except KtlsError as error:
            return events + self._refuse(error, self._alert(error.alert))
        return [*events, NeedBytes(self._reader.want)]

    def receive_eof(self) -> list[Event]:
        """Take the end of file.

        Raises:
            UsageError: it has not begun or is over.
        """
        silent = self.state is not State.NEGOTIATING and self._reader.between_records
        self._move(Input.END_OF_FILE)
        when = "before it said anything" if silent else "during the handshake"
        return self._fail(PeerClosed(f"the peer closed the connection {when}"))

    def time_out(self) -> list[Event]:
        """Give up; always allowed. What has failed before stays failed for its own reason."""
        failed_before = self.state is State.FAILED
        self._move(Input.TIME_OUT)
        if failed_before and self._error is not None:
            return [Failed(self._error)]
        return self._fail(HandshakeTimeout("the handshake did not end within its deadline"))

    # --- steps ---------------------------------------------------------------------------------------------------

    def _move(self, what: Input) -> None:
        """The only place where the state changes."""
        self.state = next_state(self._role, self.state, what)

    def _refuse_clear_text(self, data: bytes) -> None:
        """Until the first record is whole: two bytes that it cannot begin with are no TLS."""
        if self.state is State.NEGOTIATING:
            return
        self._head = (self._head + data[:2])[:2]
        if (self._head[:1] and self._head[0] not in _CONTENT_TYPES) or self._head[1:] not in (b"", b"\x03"):
            raise ClearTextError(f"the peer's first bytes are no TLS record: {data[:5]!r}")

    def _take(self, record: bytes) -> list[Event]:
        self._move(Input.RECORD)
        self._received += len(record)
        if self._received > MAX_HANDSHAKE:
            raise ProtocolError(f"a handshake of more than {MAX_HANDSHAKE} bytes")
        self._keys.received(record)
        self.connection.bio_write(record)
        return self._step()

    def _step(self) -> list[Event]:
        """Let OpenSSL go on. Nothing that it has written leaves before the peer has passed our checks."""
        try:
            self.connection.do_handshake()
            done = True
        except SSL.WantReadError:
            done = False
        except SSL.Error as error:
            return self._refuse_with_openssl(error)
        flight = self._drain()
        try:
            self._check_peer(done)
        except KtlsError as error:
            return self._refuse(error, self._alert(error.alert if self._notes.alert is None else self._notes.alert))
        self._keys.sent(flight)
        events: list[Event] = [SendBytes(flight)] if flight else []
        if not done:
            return events
        try:
            session = self._session()
        except KtlsError as error:
            return self._refuse(error, b"")  # keys that are not proven cannot seal an alert either
        self._move(Input.FINISH)
        self._clean_up()
        return [*events, Established(session)]

    def _drain(self) -> bytes:
        try:
            return self.connection.bio_read(_FLIGHT)
        except SSL.WantReadError:
            return b""

    # --- checking the peer ---------------------------------------------------------------------------------------

    def _check_peer(self, done: bool) -> None:
        """Check what OpenSSL does not: names and identities, and all of it again when the certificate changes.

        A client that offers a session has that session's certificate before the server has shown one.
        """
        if self._notes.objection is not None:
            raise self._notes.objection
        if self.state is not State.NEGOTIATING:
            return
        params = self._environment.params
        leaf = self.connection.get_peer_certificate()
        if leaf is not None and (der := _der(leaf)) != self._checked:
            self._check_certificate(parse_certificate(der))
            self._checked = der
        if not done:
            return
        if self._checked is None and params.needs_certificate:
            raise CertificateMissing("the peer has shown no certificate")
        if self._checked is not None and params.checks_chain and self._keys.resumed():
            self._environment.check_dates(parse_certificate(self._checked))

    def _check_certificate(self, certificate: x509.Certificate) -> None:
        params = self._environment.params
        if self._role is Role.CLIENT and params.verify == "name":
            if not self._expected_name:
                raise NameMismatch("no name and no address is known to check the server's certificate against")
            check_server_name(certificate, self._expected_name)
        check_identities(certificate, self._environment.identities)
        if self._environment.users:
            self._peer_user = mapped_user(certificate, self._environment.users)

    # --- the end -------------------------------------------------------------------------------------------------

    def _session(self) -> Session:
        connection, keys = self.connection, self._keys
        tx, rx, tickets = keys.derive()
        if self._role is Role.CLIENT and keys.version is Version.TLS12 and self._environment.params.tickets:
            self._keep_session()
        name = self._sni.encode() if self._sni else connection.get_servername()
        chain = [_der(certificate) for certificate in connection.get_peer_cert_chain() or ()]
        leaf = () if self._checked is None else (self._checked,)
        return Session(
            role=self._role,
            version=keys.version,
            suite=keys.suite,
            tx=tx,
            rx=rx,
            peer_chain=(*leaf, *(der for der in chain if der not in leaf)),  # a server's chain is without the leaf
            server_name=name.decode("ascii", "backslashreplace") if name else None,
            alpn=connection.get_alpn_proto_negotiated().decode("utf-8", "backslashreplace") or None,
            resumed=keys.resumed(),
            tickets_sent=tickets,
            peer_user=self._peer_user,
        )

    def _keep_session(self) -> None:
        if self._cached_as and (session := self.connection.get_session()) is not None:
            self._environment.keep_session(self._cached_as, session)

    def _refuse_with_openssl(self, error: SSL.Error) -> list[Event]:
        flight = self._drain()
        if self._notes.objection is not None:
            return self._refuse(self._notes.objection, self._alert(self._notes.alert))
        if self._notes.verify_error is not None:
            refused = verify_error(*self._notes.verify_error)
            return self._refuse(refused, self._alert(refused.alert))  # OpenSSL's may be another
        alerted = bool(self.connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN)
        return self._refuse(handshake_error(error, alerted=alerted), flight)

    def _refuse(self, error: KtlsError, alert: bytes) -> list[Event]:
        self._move(Input.REFUSE)
        return [*([SendBytes(alert)] if alert else []), *self._fail(error)]

    def _fail(self, error: KtlsError) -> list[Event]:
        self._error = error
        self._environment.forget_session(self._cached_as)
        self._clean_up()
        return [Failed(error)]

    def _alert(self, description: int | None) -> bytes:
        """A record with this fatal alert, protected if our records are by now."""
        if description is None:
            return b""
        content = Alert(AlertLevel.FATAL, description).pack()
        try:
            tx = self._keys.current_tx()
        except KtlsError:
            return b""  # better none than one that cannot be opened
        if tx is None:
            return RecordHeader(ContentType.ALERT, Version.TLS12, len(content)).pack() + content
        return RecordProtection(tx).seal(ContentType.ALERT, content)

    def _clean_up(self) -> None:
        """Let no secret live longer than the handshake."""
        self._environment.log_secrets(self._notes.secrets)
        self._notes.secrets.clear()
        self._keys.forget()
        self.connection.set_app_data(None)


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

"""Peers for the handshake driver that are not ours, certificates of every kind, and a wire between them."""

import datetime
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ktls.ciphers import Version
from ktls.errors import KtlsError
from ktls.handshake import Established, Event, Failed, Handshake, NeedBytes, SendBytes
from ktls.records import ContentType, RecordProtection, RecordReader
from ktls.session import Session

FLIGHT = 1 << 20
DAY = datetime.timedelta(days=1)


# --- certificates ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A chain and its key as files."""

    cert: Path
    key: Path

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.cert.read_bytes())


def save(folder: Path, name: str, leaf: trustme.LeafCert) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    pair.key.write_bytes(leaf.private_key_pem.bytes())
    return pair


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def make_leaf(folder: Path, name: str, ca: trustme.CA, *names: x509.GeneralName) -> Pair:
    """A certificate with just these subject alternative names, which trustme would not make."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - DAY)
        .not_valid_after(now() + DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    certificate = builder.sign(ca_key(ca), hashes.SHA256())
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair


def ca_key(ca: trustme.CA):
    return serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)


def make_crl(ca: trustme.CA, *revoked: x509.Certificate, next_update: datetime.datetime | None = None) -> bytes:
    """A revocation list of this authority, PEM."""
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now() - 10 * DAY)
        .next_update(next_update or now() + DAY)
    )
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now() - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(ca_key(ca), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def dns(name: str) -> x509.DNSName:
    return x509.DNSName(name)


def uri(name: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(name)


def ip(address: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(address))


# --- peers -----------------------------------------------------------------------------------------------------------


class Peer(Protocol):
    """The other end: bytes in, bytes out."""

    error: Exception | None

    def step(self, data: bytes) -> bytes: ...
    def write(self, data: bytes) -> bytes: ...
    def read(self, data: bytes) -> bytes: ...


@dataclass
class StdlibPeer:
    """The standard library's ssl, which is on another OpenSSL than ours."""

    context: ssl.SSLContext
    server_side: bool
    hostname: str | None = None
    session: ssl.SSLSession | None = None
    done: bool = False
    error: Exception | None = None

    def __post_init__(self) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self._in, self._out, self.server_side, self.hostname, self.session)

    def step(self, data: bytes) -> bytes:
        """Take bytes, go on with the handshake, and return what is to be sent."""
        self._in.write(data)
        try:
            if not self.done:
                self.tls.do_handshake()
                self.done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error
        return self._out.read()

    def write(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self._out.read()

    def read(self, data: bytes) -> bytes:
        self._in.write(data)
        return self.tls.read(65536)


@dataclass
class PyPeer:
    """pyOpenSSL, for what the standard library cannot be told."""

    connection: SSL.Connection
    done: bool = False
    error: Exception | None = None

    def step(self, data: bytes) -> bytes:
        if data:
            self.connection.bio_write(data)
        try:
            if not self.done:
                self.connection.do_handshake()
                self.done = True
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.error = error
        return self._out()

    def write(self, data: bytes) -> bytes:
        self.connection.sendall(data)
        return self._out()

    def read(self, data: bytes) -> bytes:
        self.connection.bio_write(data)
        return self.connection.recv(65536)

    def _out(self) -> bytes:
        try:
            return self.connection.bio_read(FLIGHT)
        except SSL.WantReadError:
            return b""


def stdlib_client(ca: Path | None, hostname: str | None = "localhost", version: Version | None = None, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = hostname is not None
    if ca is not None:
        context.load_verify_locations(ca)
    session = options.pop("session", None)
    _tune(context, version, options)
    return StdlibPeer(context, server_side=False, hostname=hostname, session=session)


def stdlib_server(pair: Pair, version: Version | None = None, **options) -> StdlibPeer:
    return StdlibPeer(server_context(pair, version, **options), server_side=True)


def server_context(pair: Pair, version: Version | None = None, **options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    _tune(context, version, options)
    return context


def _tune(context: ssl.SSLContext, version: Version | None, options: dict) -> None:
    if version is not None:
        context.minimum_version = context.maximum_version = ssl.TLSVersion(int(version))
    if ciphers := options.pop("ciphers", None):
        context.set_ciphers(ciphers)
    if alpn := options.pop("alpn", None):
        context.set_alpn_protocols(alpn)
    if pair := options.pop("pair", None):
        context.load_cert_chain(pair.cert, pair.key)
    if client_ca := options.pop("client_ca", None):
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    assert not options


def py_peer(*, server: bool, suite, pair: Pair | None = None) -> PyPeer:
    context = SSL.Context(SSL.TLS_METHOD)
    if Version.TLS13 in suite.versions:
        context.set_min_proto_version(Version.TLS13)
        context.set_tls13_ciphersuites(suite.openssl_name.encode())
    else:
        context.set_max_proto_version(Version.TLS12)
        context.set_cipher_list(suite.openssl_name.encode())
    if pair is not None:
        context.use_certificate_chain_file(str(pair.cert))
        context.use_privatekey_file(str(pair.key))
    connection = SSL.Connection(context, None)
    connection.set_accept_state() if server else connection.set_connect_state()
    return PyPeer(connection)


def peer_names(peer: StdlibPeer) -> tuple[object, ...]:
    return tuple((peer.tls.getpeercert() or {})["subjectAltName"])


def told(peer: StdlibPeer) -> str:
    """The alert the peer has been sent, in its own words; a TLS 1.3 client meets it when it reads."""
    if peer.error is None:
        try:
            peer.tls.read(1)
        except ssl.SSLError as error:
            peer.error = error
    assert isinstance(peer.error, ssl.SSLError), "the peer was told nothing"
    return str(peer.error)


# --- the wire --------------------------------------------------------------------------------------------------------

Feed = Callable[[int, bytes], int]


def exact(count: int, wire: bytes) -> int:
    """As the agent reads: no more than was asked for."""
    return min(count, len(wire))


def byte_by_byte(count: int, wire: bytes) -> int:
    return 1


def all_at_once(count: int, wire: bytes) -> int:
    return len(wire)


def sent(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, SendBytes))


def wanted(events: list[Event]) -> int:
    """How much it asks for last; 0 when it has ended."""
    last = events[-1]
    return last.count if isinstance(last, NeedBytes) else 0


def failure(events: list[Event]) -> KtlsError:
    last = events[-1]
    assert isinstance(last, Failed), events
    return last.error


def records(data: bytes) -> list[bytes]:
    reader = RecordReader()
    reader.feed(data)
    return list(iter(reader.next_record, None))


@dataclass
class Outcome:
    """What became of a handshake: a session or an error, and what was left unread on the wire."""

    session: Session | None = None
    error: KtlsError | None = None
    wire: bytes = b""
    sent: bytes = b""
    events: list[Event] = field(default_factory=list)

    @property
    def established(self) -> Session:
        assert self.session is not None, self.error
        return self.session

    @property
    def failed(self) -> KtlsError:
        assert self.error is not None, "it did not fail"
        return self.error


def run(driver: Handshake, peer: Peer, feed: Feed = exact, change: Callable[[bytes], bytes] = bytes) -> Outcome:
    """Let the two talk until the driver is done. `change` is what happens to the peer's bytes on their way."""
    outcome = Outcome()
    events = driver.start()
    while True:
        to_peer = sent(events)
        outcome.sent += to_peer
        outcome.events += events
        outcome.wire += change(peer.step(to_peer))
        match events[-1]:
            case Established(session):
                outcome.session = session
                outcome.wire = driver.leftover + outcome.wire
                return outcome
            case Failed(error):
                outcome.error = error
                return outcome
            case NeedBytes(count):
                assert count > 0
            case other:
                raise AssertionError(f"{other} cannot be the last event")
        if not outcome.wire:  # both wait: such a peer goes away
            outcome.error = failure(driver.receive_eof())
            return outcome
        size = feed(count, outcome.wire)
        data, outcome.wire = outcome.wire[:size], outcome.wire[size:]
        events = driver.receive(data)


def check_keys(outcome: Outcome, peer: Peer) -> None:
    """Speak with the peer in both directions, with nothing but the session's keys."""
    session = outcome.established
    seal, unseal = RecordProtection(session.tx), RecordProtection(session.rx)
    for text in (b"one", b"two" * 5000):
        assert peer.read(seal.seal(ContentType.APPLICATION_DATA, text)) == text
    reader = RecordReader()
    reader.feed(outcome.wire)
    for text in (b"three", b"four" * 4000):
        reader.feed(peer.write(text))
        got = b""
        while (record := reader.next_record()) is not None:
            opened = unseal.open(record)
            if opened.content_type is ContentType.APPLICATION_DATA:
                got += opened.data
            else:
                assert (opened.content_type, opened.data[0]) == (ContentType.HANDSHAKE, 4)  # NewSessionTicket
        assert got == text


def shake(driver: Handshake, sock: socket.socket) -> Session:
    """The smallest I/O shell: the driver over a blocking socket."""
    events = driver.start()
    while True:
        for event in events:
            match event:
                case SendBytes(data):
                    sock.sendall(data)
                case Established(session):
                    return session
                case Failed(error):
                    raise error
                case NeedBytes(count):
                    data = sock.recv(count)
        events = driver.receive(data) if data else driver.receive_eof()

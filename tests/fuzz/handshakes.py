"""Targets that speak TLS: real flights changed on their way to the handshake driver, and records to the relay that the
peer has sealed itself, whatever is in them."""

import contextlib
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trustme

from ktls.ciphers import Role, Version
from ktls.environment import Environment, TlsParameters
from ktls.errors import KtlsError, PeerAlert, PeerClosed, ProtocolError
from ktls.handshake import MAX_HANDSHAKE, Established, Event, Failed, Handshake, NeedBytes, SendBytes
from ktls.keyring import Keyring
from ktls.records import ContentType, RecordProtection
from ktls.relay import MAX_HELD, RelayCore
from ktls.session import Session, TxKeys
from tests.fuzz.script import Script
from tests.ktls import handshake_peer as hp

VERSIONS = (Version.TLS13, Version.TLS12)
RECORD_MOST = 5 + 16384 + 2048
ROUNDS_MOST = 40


@dataclass(frozen=True)
class World:
    """Certificates, and the environments that use them."""

    ca: Path
    server: hp.Pair
    client: hp.Pair
    environments: dict[Role, Environment]


@cache
def world() -> World:
    """Made once: keys take their time."""
    folder = Path(tempfile.mkdtemp(prefix="ktls-fuzz-"))
    ca = trustme.CA()
    path = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    server = hp.save(folder, "server", ca.issue_cert("localhost"))
    client = hp.save(folder, "client", ca.issue_cert("client.example"))
    trust = (str(path),)
    keyrings = Keyring("c", trust=trust), Keyring("s", certificate=server.cert, private_key=server.key, trust=trust)
    environments = {
        Role.CLIENT: Environment(TlsParameters(Role.CLIENT, keyrings[0], alpn=("h2",))),
        Role.SERVER: Environment(TlsParameters(Role.SERVER, keyrings[1], client_auth="full", alpn=("h2",))),
    }
    return World(path, server, client, environments)


def _peer(role: Role, version: Version) -> hp.StdlibPeer:
    if role is Role.CLIENT:
        return hp.stdlib_server(world().server, version)
    return hp.stdlib_client(world().ca, version=version, pair=world().client)


# --- the handshake ---------------------------------------------------------------------------------------------------


def handshake(data: bytes) -> None:
    """Flights changed, cut, doubled, reordered and too long end in a session or in one of our errors, with an alert."""
    script = Script(data)
    role, version = script.pick(list(Role)), script.pick(VERSIONS)
    peer, driver = _peer(role, version), Handshake(world().environments[role], server_name="localhost")
    events, wire, received = driver.start(), b"", 0
    for _ in range(ROUNDS_MOST):
        _check(events, driver)
        if isinstance(events[-1], Established | Failed):
            return
        wire += b"".join(_change(script, hp.records(peer.step(hp.sent(events)))))
        if not wire:
            _check(driver.receive_eof(), driver)
            return
        size = script.pick([len(wire), hp.wanted(events), script.below(2000) + 1])
        received += len(wire[:size])
        events, wire = driver.receive(wire[:size]), wire[size:]
    assert received < MAX_HANDSHAKE, "so much is refused"
    _check(driver.time_out(), driver)


def _change(script: Script, flight: list[bytes]) -> list[bytes]:
    changed: list[bytes] = []
    for record in flight:
        at = script.below(len(record))
        match script.below(12):
            case 1:
                changed.append(record[:at] + bytes([script.byte()]) + record[at + 1 :])
            case 2:
                changed.append(record[:at])
            case 3:
                changed += [record, record]
            case 4:
                changed.insert(0, record)
            case 5:
                pass
            case 6:
                changed += [_made(script), record]
            case 7:
                changed += [record[:3] + struct.pack(">H", script.below(65536)) + record[5:]]
            case 8:
                changed += _cut_in_two(record, at)
            case 9:
                changed += [_made(script)] * (script.below(64) + 1)
            case 10:
                changed.append(record[:at] + script.some(60) + record[at:])
            case _:
                changed.append(record)
    return changed


def _made(script: Script) -> bytes:
    """A record that is well-formed outside: a handshake message, an alert, anything."""
    kind, message, body = script.pick([22, 21, 20, 23]), script.byte(), script.some(200)
    said = script.pick([len(body), script.below(65536)])
    content = script.pick([bytes([message]) + said.to_bytes(3) + body, body, bytes([2, message]), b"\1", bytes(16000)])
    return struct.pack(">BHH", kind, 0x0303, len(content)) + content


def _cut_in_two(record: bytes, at: int) -> list[bytes]:
    head, body = record[:3], record[5:]
    return [head + struct.pack(">H", len(part)) + part for part in (body[:at], body[at:])]


def _check(events: list[Event], driver: Handshake) -> None:
    *before, last = events
    assert all(isinstance(event, SendBytes) and event.data for event in before), events
    assert len(driver._reader._buffer) <= RECORD_MOST, "no more than a record is kept"
    match last:
        case NeedBytes(count):
            assert 0 < count <= RECORD_MOST
        case Established(session):
            assert session.peer_chain
        case Failed(error):
            assert isinstance(error, KtlsError)
            if not isinstance(error, PeerClosed | PeerAlert) and error.alert is not None:
                _check_alert(hp.sent(events), error)
        case other:
            raise AssertionError(f"{other} cannot be the last event")


def _check_alert(sent: bytes, error: KtlsError) -> None:
    """In clear, or behind the protection of either version: the last record, of whatever version OpenSSL makes it."""
    kind = 0
    while sent:
        kind, sent = sent[0], sent[5 + int.from_bytes(sent[3:5]) :]
    assert kind in (ContentType.ALERT, ContentType.APPLICATION_DATA), f"{error!r} is told without an alert: {kind}"


# --- the relay -------------------------------------------------------------------------------------------------------


def relay(data: bytes) -> None:
    """Records the peer has sealed, whatever is in them, and any bytes besides, never end in another error than ours."""
    script = Script(data)
    core, session = _relayed(script.pick(list(Role)), script.pick(VERSIONS))
    peer = _Peer(session)
    fed = given = 0
    while script:
        over = core.ended or core.broken is not None
        match script.below(8):
            case 0:
                records = script.some(60)
            case 1:
                _seal(core, script.some(100))
                continue
            case 2:
                assert len(core.seal_end()) <= MAX_HELD
                continue
            case _:
                records = peer.next_record(script)
        clear = core.open(memoryview(records))
        fed, given = fed + len(records), given + sum(map(len, clear))
        assert not (over and clear), "nothing is given after the end"
        assert given <= fed, "no more is given than came"
        assert not (core.ended and core.broken), "one end is enough"
        assert len(core.pending()) <= MAX_HELD


def _seal(core: RelayCore, clear: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert len(core.seal(memoryview(clear))) <= MAX_HELD


def _relayed(role: Role, version: Version) -> tuple[RelayCore, Session]:
    driver, peer = Handshake(world().environments[role], server_name="localhost"), _peer(role, version)
    outcome = hp.run(driver, peer)
    core = RelayCore(driver.connection)
    assert core.open(memoryview(outcome.wire)) == []  # tickets
    return core, outcome.established


class _Peer:
    """Seals as the peer, with its keys."""

    def __init__(self, session: Session) -> None:
        rx = session.rx
        self._tx = TxKeys(
            suite=rx.suite, version=rx.version, secret=rx.secret, key=rx.key, iv=rx.iv, sequence=rx.sequence,
            explicit_nonce=bytes(rx.suite.explicit_nonce_length),
        )  # fmt: skip
        self._protection = RecordProtection(self._tx)

    def next_record(self, script: Script) -> bytes:
        kind = script.pick([ContentType.APPLICATION_DATA, ContentType.HANDSHAKE, ContentType.ALERT, *ContentType])
        message = bytes([script.pick([24, 4, 0, 11, script.byte()])])
        body = script.some(100)
        content = script.pick([body, message + len(body).to_bytes(3) + body, b"\1\0", b"\2" + message, b"\1\x5a", b""])
        padding = script.below(200) if self._protection.version is Version.TLS13 else 0
        record = self._protection.seal(kind, content, padding=padding)
        return record[: len(record) - script.below(4)] if script.below(32) == 31 else record

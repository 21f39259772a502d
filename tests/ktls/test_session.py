"""Session keys: the kernel's struct, byte for byte, and a real TLS library's records.

The second half is the proof of the whole library part: two OpenSSLs shake hands over memory BIOs, and with nothing but
the key log and the bytes that crossed, `TxKeys` and `RxKeys` open every protected record and seal ones they accept.
"""

import socket
import ssl
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import SSL

from ktls.alerts import CLOSE_NOTIFY, Alert
from ktls.ciphers import SUITES, CipherSuite, Role, Version, by_iana, by_openssl
from ktls.errors import BadRecord, UsageError
from ktls.keyschedule import hash_length, key_block12, next_traffic_secret, traffic_keys
from ktls.records import ContentType, Plaintext, RecordProtection, RecordReader
from ktls.session import MAX_SEQUENCE, RxKeys, Session, TxKeys

FINISHED = 20
NEW_SESSION_TICKET = 4


def only_version(suite: CipherSuite) -> Version:
    (version,) = suite.versions
    return version


def tx_keys(suite: CipherSuite, **changes) -> TxKeys:
    fields = {
        "suite": suite,
        "version": only_version(suite),
        "secret": b"S" * hash_length(suite.hash_name) if only_version(suite) is Version.TLS13 else None,
        "key": b"K" * suite.key_length,
        "iv": bytes(range(1, suite.fixed_iv_length + 1)),
        "sequence": 0x0102,
        "explicit_nonce": b"explicit"[: suite.explicit_nonce_length],
    }
    return TxKeys(**{**fields, **changes})


def rx_keys(suite: CipherSuite, **changes) -> RxKeys:
    tx = tx_keys(suite)
    fields = {"suite": suite, "version": tx.version, "secret": tx.secret, "key": tx.key, "iv": tx.iv, "sequence": 3}
    return RxKeys(**{**fields, **changes})


# --- crypto_info -----------------------------------------------------------------------------------------------------

# suite, iv and salt of TxKeys as above; struct tls12_crypto_info_*: version, cipher_type, iv, key, salt, rec_seq
LAYOUT = [
    ("TLS_AES_128_GCM_SHA256", 0x0304, 51, "05060708090a0b0c", 16, "01020304"),
    ("TLS_AES_256_GCM_SHA384", 0x0304, 52, "05060708090a0b0c", 32, "01020304"),
    ("TLS_AES_128_CCM_SHA256", 0x0304, 53, "05060708090a0b0c", 16, "01020304"),
    ("TLS_CHACHA20_POLY1305_SHA256", 0x0304, 54, "0102030405060708090a0b0c", 32, ""),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0x0303, 51, b"explicit".hex(), 16, "01020304"),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0x0303, 52, b"explicit".hex(), 32, "01020304"),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CCM", 0x0303, 53, b"explicit".hex(), 16, "01020304"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0x0303, 54, "0102030405060708090a0b0c", 32, ""),
]


@pytest.mark.parametrize(("name", "version", "cipher_type", "iv", "key_length", "salt"), LAYOUT)
def test_crypto_info_is_the_kernels_struct(name, version, cipher_type, iv, key_length, salt):
    expected = struct.pack("=HH", version, cipher_type)
    expected += bytes.fromhex(iv) + b"K" * key_length + bytes.fromhex(salt) + bytes.fromhex("0000000000000102")
    assert tx_keys(by_iana(name)).crypto_info() == expected


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_crypto_info_to_read_with_differs_in_the_explicit_nonce_alone(suite: CipherSuite):
    tx = tx_keys(suite, sequence=3, explicit_nonce=bytes(suite.explicit_nonce_length))
    assert rx_keys(suite).crypto_info() == tx.crypto_info()
    assert len(tx.crypto_info()) == suite.kernel.size


# --- construction, update, secrecy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"version": Version.TLS12},
        {"key": b"K" * 32},
        {"iv": b"I" * 4},
        {"secret": b"S" * 48},
        {"sequence": -1},
        {"sequence": MAX_SEQUENCE + 1},
        {"explicit_nonce": b"explicit"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_keys_that_do_not_fit_their_suite_are_refused_without_showing_them(changes):
    with pytest.raises(UsageError) as caught:
        tx_keys(by_iana("TLS_AES_128_GCM_SHA256"), **changes)
    assert "KKK" not in str(caught.value)
    assert "SSS" not in str(caught.value)


def test_1_2_keys_to_write_with_need_an_explicit_nonce():
    with pytest.raises(UsageError, match="explicit nonce of 8 bytes, not 0"):
        tx_keys(by_iana("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), explicit_nonce=b"")


@pytest.mark.parametrize("suite", [suite for suite in SUITES if only_version(suite) is Version.TLS13], ids=str)
@pytest.mark.parametrize("kind", [TxKeys, RxKeys])
def test_an_update_moves_to_the_next_secret_and_to_sequence_zero(suite: CipherSuite, kind: type[TxKeys] | type[RxKeys]):
    secret = b"S" * hash_length(suite.hash_name)
    updated = kind.from_secret(secret, suite, sequence=99).updated()
    following = next_traffic_secret(secret, suite.hash_name)
    expected = traffic_keys(following, suite)
    assert isinstance(updated, kind)
    assert (updated.secret, updated.key, updated.iv, updated.sequence) == (following, expected.key, expected.iv, 0)


@pytest.mark.parametrize("name", ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"])
def test_keys_without_a_traffic_secret_cannot_be_updated(name: str):
    with pytest.raises(UsageError, match="cannot be updated"):
        tx_keys(by_iana(name), secret=None).updated()


def test_keys_can_be_moved_to_another_sequence_number():
    keys = tx_keys(SUITES[0])
    assert (keys.at(7).sequence, keys.at(7).key, keys.sequence) == (7, keys.key, 0x0102)


def session(suite: CipherSuite, **changes) -> Session:
    version = only_version(suite)
    fields = {"role": Role.CLIENT, "version": version, "suite": suite, "tx": tx_keys(suite), "rx": rx_keys(suite)}
    return Session(**{**fields, **changes})


def test_a_session_takes_keys_of_its_own_suite_only():
    with pytest.raises(UsageError, match=r"keys that are not of TLSv1\.3 with TLS_AES_256_GCM_SHA384"):
        session(by_iana("TLS_AES_256_GCM_SHA384"), rx=rx_keys(by_iana("TLS_CHACHA20_POLY1305_SHA256")))


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_neither_keys_nor_session_show_a_secret(suite: CipherSuite):
    shown = repr(session(suite))
    for secret in (b"KKK", b"SSS", bytes(range(1, 5))):
        assert repr(secret)[2:-1] not in shown
    assert "sequence=258" in shown


def test_keys_are_not_compared_by_value():
    assert tx_keys(SUITES[0]) != tx_keys(SUITES[0])


# --- against OpenSSL -------------------------------------------------------------------------------------------------


class Party:
    """One end of a handshake over memory BIOs: pyOpenSSL (cryptography's OpenSSL) or stdlib ssl (the system's)."""

    def __init__(self, connection: SSL.Connection | None, incoming: ssl.MemoryBIO, tls: ssl.SSLObject | None) -> None:
        self.connection, self.incoming, self.tls = connection, incoming, tls
        self.outgoing = ssl.MemoryBIO()

    @classmethod
    def of_stdlib(cls, context: ssl.SSLContext) -> "Party":
        party = cls(None, ssl.MemoryBIO(), None)
        party.tls = context.wrap_bio(party.incoming, party.outgoing, server_side=True)
        return party

    @classmethod
    def of_pyopenssl(cls, context: SSL.Context, role: Role) -> "Party":
        connection = SSL.Connection(context, None)
        if role is Role.CLIENT:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        return cls(connection, ssl.MemoryBIO(), None)

    def handshake(self) -> bool:
        try:
            (self.tls or self.connection).do_handshake()  # type: ignore[union-attr]
        except (ssl.SSLWantReadError, SSL.WantReadError):
            return False
        return True

    def take(self) -> bytes:
        """Bytes for the wire."""
        if self.connection is None:
            return self.outgoing.read()
        try:
            return self.connection.bio_read(1 << 20)
        except SSL.WantReadError:
            return b""

    def put(self, data: bytes) -> None:
        """Bytes off the wire."""
        if self.connection is None:
            self.incoming.write(data)
        elif data:
            self.connection.bio_write(data)

    def write(self, data: bytes) -> None:
        if self.tls is not None:
            assert self.tls.write(data) == len(data)
        else:
            assert self.connection is not None
            self.connection.sendall(data)

    def read(self) -> bytes:
        try:
            return self.tls.read(1 << 15) if self.tls else self.connection.recv(1 << 15)  # type: ignore[union-attr]
        except (ssl.SSLWantReadError, SSL.WantReadError):
            return b""

    def close(self) -> None:
        """Say close_notify. The peer's is not awaited."""
        try:
            if self.tls is not None:
                self.tls.unwrap()
            else:
                assert self.connection is not None
                self.connection.shutdown()
        except (ssl.SSLWantReadError, SSL.WantReadError):
            pass


@dataclass(slots=True)
class Conversation:
    """Two parties, what they said on the wire, and the key log."""

    client: Party
    server: Party
    key_log: Callable[[], str]
    wire: dict[Role, bytes] = field(default_factory=lambda: dict.fromkeys(Role, b""))

    def carry(self) -> None:
        for sender, role, receiver in (
            (self.client, Role.CLIENT, self.server),
            (self.server, Role.SERVER, self.client),
        ):
            data = sender.take()
            self.wire[role] += data
            receiver.put(data)

    def shake_hands(self) -> None:
        done = [False, False]
        for _ in range(20):
            done = [party.handshake() or finished for party, finished in zip(self.parties, done, strict=True)]
            self.carry()
            if all(done):
                return
        pytest.fail("no handshake after 20 rounds")

    @property
    def parties(self) -> tuple[Party, Party]:
        return self.client, self.server


def secrets_of(key_log: str) -> dict[str, bytes]:
    """Label -> secret, of a key log with one connection in it."""
    lines = (line.split() for line in key_log.splitlines() if not line.startswith("#"))
    return {label: bytes.fromhex(secret) for label, _, secret in lines}


@dataclass(slots=True)
class Opened:
    """What one direction's protected records held, in order, and the keys after the last."""

    handshake: list[Plaintext]
    application: list[Plaintext]
    explicit_nonces: list[int]
    protection: RecordProtection
    keys: TxKeys

    def next_keys(self) -> TxKeys:
        """The keys to go on with in this side's place, as they would be installed."""
        nonce = struct.pack(">Q", self.explicit_nonces[-1] + 1) if self.explicit_nonces else b""
        return replace(self.keys, sequence=self.protection.sequence, explicit_nonce=nonce)


def records_of(wire: bytes) -> list[bytes]:
    reader = RecordReader()
    reader.feed(wire)
    records = list(iter(reader.next_record, None))
    assert reader.between_records
    return records


def open_13(records: list[bytes], role: Role, secrets: dict[str, bytes], suite: CipherSuite) -> Opened:
    name = role.value.upper()
    handshake, application = (
        TxKeys.from_secret(secrets[label], suite)
        for label in (f"{name}_HANDSHAKE_TRAFFIC_SECRET", f"{name}_TRAFFIC_SECRET_0")
    )
    protected = [record for record in records if record[0] == ContentType.APPLICATION_DATA]
    length = hash_length(suite.hash_name)
    opener, flight, rest = RecordProtection(handshake), [], iter(protected)
    for record in rest:
        flight.append(opener.open(record))
        if flight[-1].data[-4 - length :][:4] == bytes([FINISHED, 0, 0, length]):  # the flight's last message
            break
    opener = RecordProtection(application)
    return Opened(flight, [opener.open(record) for record in rest], [], opener, application)


def open_12(records: list[bytes], role: Role, hellos: tuple[bytes, bytes], master: bytes, suite: CipherSuite) -> Opened:
    client_random, server_random = (hello[11:43] for hello in hellos)  # behind both headers and the version
    written = key_block12(master, client_random, server_random, suite).written_by(role)
    protected = records[next(at for at, record in enumerate(records) if record[0] == 20) + 1 :]
    start = protected[0][5 : 5 + suite.explicit_nonce_length]
    keys = TxKeys(suite=suite, version=Version.TLS12, key=written.key, iv=written.iv, explicit_nonce=start)
    opener = RecordProtection(keys)
    opened = [opener.open(record) for record in protected]
    nonces = [int.from_bytes(record[5:13]) for record in protected] if suite.explicit_nonce_length else []
    return Opened(opened[:1], opened[1:], nonces, opener, keys)


def open_all(conversation: Conversation, suite: CipherSuite) -> dict[Role, Opened]:
    records = {role: records_of(conversation.wire[role]) for role in Role}
    secrets = secrets_of(conversation.key_log())
    if only_version(suite) is Version.TLS13:
        return {role: open_13(records[role], role, secrets, suite) for role in Role}
    hellos = (records[Role.CLIENT][0], records[Role.SERVER][0])
    return {role: open_12(records[role], role, hellos, secrets["CLIENT_RANDOM"], suite) for role in Role}


@pytest.fixture(scope="module")
def leaves(ca: trustme.CA) -> dict[str, trustme.LeafCert]:
    kinds = {"RSA": trustme.KeyType.RSA, "ECDSA": trustme.KeyType.ECDSA}
    return {name: ca.issue_cert("peer.test", key_type=kind) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def dh_parameters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dh") / "ffdhe2048.pem"
    command = ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def pyopenssl_context(suite: CipherSuite, log: Callable[[bytes], None]) -> SSL.Context:
    version = only_version(suite)
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if version is Version.TLS13:
        context.set_tls13_ciphersuites(suite.openssl_name.encode())
    else:
        context.set_cipher_list(suite.openssl_name.encode())
    context.set_keylog_callback(lambda _connection, line: log(line))
    return context


def stdlib_server(suite: CipherSuite, leaf: trustme.LeafCert, dh_parameters: Path, log: Path) -> Party:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion(only_version(suite))
    if only_version(suite) is Version.TLS12:
        context.set_ciphers(suite.openssl_name)
    context.keylog_filename = str(log)
    context.load_dh_params(str(dh_parameters))
    leaf.configure_cert(context)
    return Party.of_stdlib(context)


def pyopenssl_server(suite: CipherSuite, leaf: trustme.LeafCert, log: Callable[[bytes], None]) -> Party:
    context = pyopenssl_context(suite, log)
    context.use_certificate(load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()))
    context.use_privatekey(load_pem_private_key(leaf.private_key_pem.bytes(), None))  # type: ignore[arg-type]
    return Party.of_pyopenssl(context, Role.SERVER)


@pytest.fixture
def converse(
    leaves: dict[str, trustme.LeafCert], dh_parameters: Path, tmp_path: Path
) -> Callable[[CipherSuite], Conversation]:
    """Make a conversation whose handshake is done."""

    def start(suite: CipherSuite) -> Conversation:
        leaf = leaves["ECDSA" if "ECDSA" in suite.iana_name else "RSA"]
        log = tmp_path / "keys"
        client = Party.of_pyopenssl(pyopenssl_context(suite, lambda _line: None), Role.CLIENT)
        if suite.iana_name == "TLS_AES_128_CCM_SHA256":  # off by default, and stdlib ssl cannot turn it on
            lines: list[bytes] = []
            conversation = Conversation(
                client, pyopenssl_server(suite, leaf, lines.append), lambda: b"\n".join(lines).decode()
            )
        else:
            server = stdlib_server(suite, leaf, dh_parameters, log)
            conversation = Conversation(client, server, log.read_text)
        conversation.shake_hands()
        return conversation

    return start


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_keys_from_the_key_log_open_every_record_of_a_real_conversation(suite: CipherSuite, converse):
    conversation = converse(suite)
    said = {Role.CLIENT: b"c" * 40_000, Role.SERVER: b"s" * 20_000}
    conversation.client.write(said[Role.CLIENT])
    conversation.carry()
    conversation.server.read()
    conversation.server.write(said[Role.SERVER][:10_000])
    conversation.server.write(said[Role.SERVER][10_000:])
    conversation.carry()
    while conversation.client.read():
        pass
    while conversation.server.read():
        pass
    for party in conversation.parties:
        party.close()
    conversation.carry()

    assert conversation.client.connection is not None
    assert by_openssl(conversation.client.connection.get_cipher_name() or "", only_version(suite)) is suite
    for role, opened in open_all(conversation, suite).items():
        data = [text.data for text in opened.application if text.content_type is ContentType.APPLICATION_DATA]
        assert b"".join(data) == said[role]
        assert len(data) >= 2
        assert opened.handshake[0].content_type is ContentType.HANDSHAKE
        last = opened.application[-1]
        assert (last.content_type, Alert.parse(last.data)) == (ContentType.ALERT, CLOSE_NOTIFY)


@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite.explicit_nonce_length], ids=str)
def test_openssls_next_explicit_nonce_is_that_of_its_finished_plus_one(suite: CipherSuite, converse):
    conversation = converse(suite)
    conversation.client.write(b"one")
    conversation.client.write(b"two")
    conversation.carry()
    nonces = open_all(conversation, suite)[Role.CLIENT].explicit_nonces
    assert nonces == [nonces[0], nonces[0] + 1, nonces[0] + 2]


@pytest.mark.parametrize("suite", [suite for suite in SUITES if only_version(suite) is Version.TLS13], ids=str)
def test_a_1_3_server_starts_at_the_number_of_tickets_it_wrote(suite: CipherSuite, converse):
    opened = open_all(converse(suite), suite)
    tickets = opened[Role.SERVER].application
    assert [ticket.data[0] for ticket in tickets] == [NEW_SESSION_TICKET] * opened[Role.SERVER].protection.sequence
    assert len(tickets) == 2  # OpenSSL's default
    assert opened[Role.CLIENT].protection.sequence == 0


@pytest.mark.parametrize("suite", [suite for suite in SUITES if only_version(suite) is Version.TLS12], ids=str)
def test_both_sides_of_1_2_go_on_at_sequence_number_one(suite: CipherSuite, converse):
    opened = open_all(converse(suite), suite)
    assert [opened[role].protection.sequence for role in Role] == [1, 1]


@pytest.mark.parametrize("suite", SUITES, ids=str)
@pytest.mark.parametrize("role", Role)
def test_openssl_takes_records_that_we_seal_in_its_peers_place(suite: CipherSuite, role: Role, converse):
    conversation = converse(suite)
    sealer = RecordProtection(open_all(conversation, suite)[role].next_keys())
    receiver = conversation.server if role is Role.CLIENT else conversation.client
    for text in (b"x" * 16384, b"and more"):
        receiver.put(sealer.seal(ContentType.APPLICATION_DATA, text))
        assert receiver.read() == text


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_one_directions_keys_do_not_open_the_other(suite: CipherSuite, converse):
    conversation = converse(suite)
    opened = open_all(conversation, suite)
    conversation.client.write(b"data")
    record = conversation.client.take()
    with pytest.raises(BadRecord):
        opened[Role.SERVER].protection.open(record)
    assert opened[Role.CLIENT].protection.open(record).data == b"data"


# --- KeyUpdate: neither stdlib ssl nor pyOpenSSL can ask for one, `openssl s_client` can (its command K) --------------

KEY_UPDATE_REQUESTED = bytes([24, 0, 0, 1, 1])
KEY_UPDATE_NOT_REQUESTED = bytes([24, 0, 0, 1, 0])


def receive(connection: socket.socket, count: int) -> list[bytes]:
    """Read this many records and not a byte more."""
    reader, records = RecordReader(), list[bytes]()
    while len(records) < count:
        while (record := reader.next_record()) is None:
            data = connection.recv(reader.want)
            assert data, "the peer closed"
            reader.feed(data)
        records.append(record)
    return records


@pytest.mark.parametrize("suite", ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_updated_keys_open_what_both_sides_send_after_a_key_update(suite, leaves, dh_parameters, tmp_path):
    log = tmp_path / "keys"
    server = stdlib_server(by_iana(suite), leaves["RSA"], dh_parameters, log)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", address, "-tls1_3", "-ciphersuites", suite]
        with (
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as client,
            listener.accept()[0] as connection,
        ):
            assert client.stdin is not None
            assert client.stderr is not None
            connection.settimeout(30)
            while not server.handshake():
                connection.sendall(server.take())
                server.put(receive(connection, 1)[0])
            connection.sendall(server.take())

            client.stdin.write(b"K\n")  # told to the peer in front of the next data
            client.stdin.flush()
            assert any(b"KEYUPDATE" in line for line in client.stderr)  # taken, so "hello" is not part of it
            client.stdin.write(b"hello\n")
            client.stdin.flush()
            from_client = receive(connection, 2)
            server.put(b"".join(from_client))
            assert server.read() == b"hello\n"
            server.write(b"back")
            from_server = records_of(server.take())
            client.kill()

    secrets = secrets_of(log.read_text())
    client_keys = RxKeys.from_secret(secrets["CLIENT_TRAFFIC_SECRET_0"], by_iana(suite))
    server_keys = TxKeys.from_secret(secrets["SERVER_TRAFFIC_SECRET_0"], by_iana(suite), sequence=2)  # two tickets
    for keys, (update, data), message, text in (
        (client_keys, from_client, KEY_UPDATE_REQUESTED, b"hello\n"),
        (server_keys, from_server, KEY_UPDATE_NOT_REQUESTED, b"back"),
    ):
        before = RecordProtection(keys)
        assert before.open(update) == Plaintext(ContentType.HANDSHAKE, message)
        with pytest.raises(BadRecord):
            before.open(data)
        assert RecordProtection(keys.updated()).open(data) == Plaintext(ContentType.APPLICATION_DATA, text)

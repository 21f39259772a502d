"""The session's keys, derived beside OpenSSL and proven against what OpenSSL itself wrote.

OpenSSL does not give its traffic keys away. It gives secrets: the key log's in TLS 1.3, the master secret in 1.2.
`HandshakeKeys` watches the records of a handshake in both directions, so that it can tell how far the sequence numbers
are, derives the keys, and opens our own records with them. Keys that do not open them are never handed out.

                        sequence of the next record            proven by opening
   TLS 1.3 client       0, 0                                   our Finished, with the handshake secret
   TLS 1.3 server       tickets written, 0                     the same, and the tickets, with the application secret
   TLS 1.2              1, 1                                   both Finished, which were number 0

The peer's TLS 1.3 keys cannot be proven before it sends data; they come out of the same log as ours.
"""

from OpenSSL import SSL

from ktls.ciphers import CipherSuite, Role, Version, by_openssl
from ktls.environment import Notes
from ktls.errors import KtlsError, ProtocolError
from ktls.keyschedule import KeyBlock, key_block12
from ktls.records import HEADER_LENGTH, ContentType, RecordProtection, RecordReader
from ktls.session import MAX_SEQUENCE, RxKeys, TxKeys

SERVER_HELLO, FINISHED = 2, 20  # HandshakeType, RFC 8446 section 4
PRE_SHARED_KEY = 41  # ExtensionType, RFC 8446 section 4.2.11


class HandshakeKeys:
    """Watches one handshake.

    Args:
        connection: whose handshake it is.
        role: our side.
        notes: where the key log's lines arrive.
    """

    def __init__(self, connection: SSL.Connection, role: Role, notes: Notes) -> None:
        self._connection = connection
        self._role = role
        self._notes = notes
        self._reader = RecordReader()
        self._protected: list[bytes] = []
        """Our records after change_cipher_spec, and all of type application data."""
        self._last_flight = 0  # where it starts in _protected
        self._peer_finished: bytes | None = None  # TLS 1.2
        self._server_hello = b""  # ours, TLS 1.3
        self._first_change: Role | None = None  # who sent change_cipher_spec first
        self._changed: set[Role] = set()

    # --- watching ------------------------------------------------------------------------------------------------

    def sent(self, data: bytes) -> None:
        """Take note of a flight of ours: whole records, all that one step of the handshake made, which may be none."""
        self._last_flight = len(self._protected)
        self._reader.feed(data)
        while (record := self._reader.next_record()) is not None:
            if record[0] == ContentType.CHANGE_CIPHER_SPEC:
                self._change(self._role)
                continue
            if record[0] == ContentType.APPLICATION_DATA or self._role in self._changed:
                self._protected.append(record)
            # Also behind a change_cipher_spec, which in TLS 1.3 a HelloRetryRequest may bring; never in a protected
            # record, whose first byte may be any.
            is_hello = record[0] == ContentType.HANDSHAKE and record[HEADER_LENGTH:][:1] == bytes([SERVER_HELLO])
            if is_hello:
                self._server_hello = record[HEADER_LENGTH:]

    def received(self, record: bytes) -> None:
        """Take note of a record of the peer, before OpenSSL sees it."""
        if record[0] == ContentType.CHANGE_CIPHER_SPEC:
            self._change(self._role.peer)
        elif self._peer_finished is None and self._role.peer in self._changed:
            self._peer_finished = record

    def _change(self, role: Role) -> None:
        self._first_change = self._first_change or role
        self._changed.add(role)

    # --- telling -------------------------------------------------------------------------------------------------

    @property
    def version(self) -> Version:
        """The negotiated version, once there is one."""
        return Version(self._connection.get_protocol_version())

    @property
    def suite(self) -> CipherSuite:
        """The negotiated suite, once there is one."""
        return by_openssl(self._connection.get_cipher_name() or "", self.version)

    def resumed(self) -> bool:
        """Whether the finished handshake went on from an earlier session.

        A resumed TLS 1.2 handshake is one in which the server changes its cipher first (RFC 5246 section 7.3); in 1.3
        the server says so with pre_shared_key. A client of ours resumes 1.2 only: tickets of 1.3 come after its end.
        """
        if self.version is Version.TLS12:
            return self._first_change is Role.SERVER
        return self._role is Role.SERVER and PRE_SHARED_KEY in _extensions(self._server_hello)

    def current_tx(self) -> TxKeys | None:
        """Return the keys of our next record in a handshake that is not finished; None while that goes in clear.

        OpenSSL logs a client's secret when it is to write its first protected record, and sends alerts in clear until
        then; so do we.

        Raises:
            KtlsError: they cannot be derived.
        """
        if self._secret(self._role, handshake=True) is not None:
            sealed = self._protected13()
            if self._role is Role.CLIENT:
                return self._keys13(handshake=True, sequence=len(sealed))
            # A server changes to its application keys with its Finished, which ends its first sealed flight.
            return self._keys13(handshake=False, sequence=0) if sealed else None
        return self._keys12(1) if self._role in self._changed else None

    def derive(self) -> tuple[TxKeys, RxKeys, int]:
        """Return the finished handshake's keys, proven, and how many tickets we sent under them.

        Raises:
            ProtocolError: they are not the keys that OpenSSL uses, or OpenSSL logged no secrets.
        """
        try:
            return self._derive13() if self.version is Version.TLS13 else self._derive12()
        except KtlsError as error:
            raise ProtocolError(f"the session's keys cannot be proven: {error}") from error

    def forget(self) -> None:
        """Let go of the records."""
        self._protected.clear()
        self._peer_finished = None

    # --- TLS 1.3 -------------------------------------------------------------------------------------------------

    def _protected13(self) -> list[bytes]:
        return [record for record in self._protected if record[0] == ContentType.APPLICATION_DATA]

    def _derive13(self) -> tuple[TxKeys, RxKeys, int]:
        tickets = self._protected[self._last_flight :] if self._role is Role.SERVER else []
        handshake = self._protected13()
        if tickets:
            handshake = handshake[: -len(tickets)]
        _prove(self._keys13(handshake=True, sequence=0), handshake, FINISHED)
        tx = self._keys13(handshake=False, sequence=0)
        if tickets:
            _prove(tx, tickets)
        rx = RxKeys.from_secret(self._required(self._role.peer, handshake=False), self.suite)
        return tx.at(len(tickets)), rx, len(tickets)

    def _keys13(self, *, handshake: bool, sequence: int) -> TxKeys:
        return TxKeys.from_secret(self._required(self._role, handshake=handshake), self.suite, sequence=sequence)

    def _required(self, role: Role, *, handshake: bool) -> bytes:
        secret = self._secret(role, handshake=handshake)
        if secret is None:
            raise ProtocolError(f"OpenSSL logged no {_label(role, handshake)} for this connection")
        return secret

    def _secret(self, role: Role, *, handshake: bool) -> bytes | None:
        """The key log's line: label, client random, secret (the SSLKEYLOGFILE format, RFC 9850)."""
        client_random = (self._connection.client_random() or b"").hex()
        wanted = f"{_label(role, handshake)} {client_random} ".encode()
        found = [line[len(wanted) :] for line in self._notes.secrets if line.startswith(wanted)]
        return bytes.fromhex(found[-1].decode()) if found else None

    # --- TLS 1.2 -------------------------------------------------------------------------------------------------

    def _derive12(self) -> tuple[TxKeys, RxKeys, int]:
        ours, theirs = self._keys12(0), self._peer_keys12()
        _prove(ours, self._protected[:1], FINISHED)
        _prove(theirs, [self._peer_finished or b""], FINISHED)
        return self._keys12(1), theirs.at(1), 0

    def _keys12(self, sequence: int) -> TxKeys:
        """Our keys at a record whose explicit nonce is as far from our Finished's, number 0, as the record is."""
        suite = self.suite
        keys = self._key_block().written_by(self._role)
        length = suite.explicit_nonce_length
        first = int.from_bytes(b"".join(self._protected[:1])[HEADER_LENGTH : HEADER_LENGTH + length])
        nonce = ((first + sequence) & MAX_SEQUENCE).to_bytes(8)[:length]
        version = Version.TLS12
        return TxKeys(suite=suite, version=version, key=keys.key, iv=keys.iv, sequence=sequence, explicit_nonce=nonce)

    def _peer_keys12(self) -> RxKeys:
        keys = self._key_block().written_by(self._role.peer)
        return RxKeys(suite=self.suite, version=Version.TLS12, key=keys.key, iv=keys.iv)

    def _key_block(self) -> KeyBlock:
        c = self._connection
        return key_block12(c.master_key() or b"", c.client_random() or b"", c.server_random() or b"", self.suite)


def _label(role: Role, handshake: bool) -> str:
    return f"{role.name}_HANDSHAKE_TRAFFIC_SECRET" if handshake else f"{role.name}_TRAFFIC_SECRET_0"


def _prove(keys: TxKeys | RxKeys, records: list[bytes], last: int | None = None) -> None:
    """Open records one after the other; all are of the handshake, and the last is this message if one is named."""
    protection = RecordProtection(keys)
    opened = [protection.open(record) for record in records]
    if not opened or any(one.content_type is not ContentType.HANDSHAKE for one in opened):
        raise ProtocolError("there are no records of the handshake where they should be")
    if last is not None and opened[-1].data[:1] != bytes([last]):
        raise ProtocolError("the last record of the handshake is not Finished")


def _extensions(server_hello: bytes) -> set[int]:
    """The types of a ServerHello's extensions. It is ours, so it is well-formed."""
    # type 1, length 3, version 2, random 32, session id 1 + n, suite 2, compression 1, length of extensions 2
    rest = server_hello[38:]
    rest = rest[1 + rest[0] + 5 :] if rest else b""
    found = set()
    while rest:
        found.add(int.from_bytes(rest[:2]))
        rest = rest[4 + int.from_bytes(rest[2:4]) :]
    return found

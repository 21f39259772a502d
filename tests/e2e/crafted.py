"""A TLS 1.3 peer whose records can be anything: OpenSSL's handshake, then records sealed with its keys."""

import socket
import ssl
from pathlib import Path

from ktls.ciphers import Version, by_openssl
from ktls.records import ContentType, Plaintext, RecordProtection, RecordReader
from ktls.session import RxKeys, TxKeys
from tests.e2e.peer import TlsPeer

KEY_UPDATE = b"\x18\x00\x00\x01\x00"  # section 4.6.3, update_not_requested
KEY_UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"
CLOSE_NOTIFY = b"\x01\x00"


def ticket(size: int) -> bytes:
    """A NewSessionTicket (RFC 8446 section 4.6.1) whose ticket has `size` bytes."""
    body = (7200).to_bytes(4) + bytes(4) + b"\x01\x00" + size.to_bytes(2) + bytes(size) + b"\x00\x00"
    return b"\x04" + len(body).to_bytes(3) + body


TICKET = ticket(100)


class CraftedPeer:
    """After the handshake: seal() makes a record, send() sends some in one segment, receive() opens what comes."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, keylog: Path, *, server_side: bool) -> None:
        context.keylog_filename = str(keylog)
        if server_side:
            context.num_tickets = 0
        peer = TlsPeer(sock, context, server_side=server_side, hostname=None if server_side else "localhost")
        peer.handshake()
        self.sock = sock
        name, _, _ = peer.tls.cipher() or ("none", "", 0)
        suite = by_openssl(name, Version.TLS13)
        secrets = {
            line.split()[0]: bytes.fromhex(line.split()[2])
            for line in keylog.read_text().splitlines()
            if not line.startswith("#")
        }
        ours, theirs = ("SERVER", "CLIENT") if server_side else ("CLIENT", "SERVER")
        self.tx_keys = TxKeys.from_secret(secrets[f"{ours}_TRAFFIC_SECRET_0"], suite)
        self.rx_keys = RxKeys.from_secret(secrets[f"{theirs}_TRAFFIC_SECRET_0"], suite)
        self.tx, self.rx = RecordProtection(self.tx_keys), RecordProtection(self.rx_keys)
        self.reader = RecordReader()
        self.reader.feed(peer.incoming.read())

    def seal(self, content_type: int, data: bytes) -> bytes:
        return self.tx.seal(ContentType(content_type), data)

    def data(self, data: bytes) -> bytes:
        return self.seal(23, data)

    def key_update(self, *, requested: bool) -> bytes:
        """A KeyUpdate record; what is sealed after it is under the next secret."""
        record = self.seal(22, KEY_UPDATE_REQUESTED if requested else KEY_UPDATE)
        self.tx_keys = self.tx_keys.updated()
        self.tx = RecordProtection(self.tx_keys)
        return record

    def send(self, *records: bytes) -> None:
        self.sock.sendall(b"".join(records))

    def receive(self) -> Plaintext | None:
        """The next record, whatever it is; None at the end of file. A KeyUpdate changes the keys for what follows."""
        while (record := self.reader.next_record()) is None:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.reader.feed(data)
        opened = self.rx.open(record)
        if opened.content_type is ContentType.HANDSHAKE and opened.data[0] == 24:
            self.rx_keys = self.rx_keys.updated()
            self.rx = RecordProtection(self.rx_keys)
        return opened

    def receive_data(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            opened = self.receive()
            if opened is None:
                break
            if opened.content_type is ContentType.APPLICATION_DATA:
                data += opened.data
        return data

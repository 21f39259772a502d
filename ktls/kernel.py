"""The binding to Linux kTLS: attach, install keys, control records, rekey, query.

1. The socket's file flags belong to the program: every call here is non-blocking by MSG_DONTWAIT, never by O_NONBLOCK.
2. Attach at once after connect or accept: it needs ESTABLISHED, and is transparent until keys come.
3. Only keys make TLS. `sendmsg` with a record type on a socket without keys sends clear text and succeeds (the control
   message is of a level that TCP does not look at), so `send_record` asks the kernel for the keys first.
4. A record that is not data stops every plain read with EIO, for good. `read_record` takes whatever comes;
   `drain_control_records` takes what is not data, and leaves data for whose it is.
5. Errors of TLS are leaves of `KtlsError` (ktls/kernel_errors.py). TCP's, BlockingIOError first, pass as OSError.

Names and numbers: include/uapi/linux/tls.h and tcp.h. Behaviour by kernel version is held in tests/lab.
"""

import errno
import socket
import struct
from dataclasses import dataclass, field

from ktls.alerts import Alert
from ktls.ciphers import KERNEL_CIPHERS, REC_SEQ_LENGTH, KernelCipher, Version
from ktls.errors import UsageError
from ktls.kernel_errors import ATTACH, INSTALL, QUERY, RECEIVE, SEND, NotAttached, NotKeyed, RekeyNeeded, translate
from ktls.records import MAX_PLAINTEXT, ContentType
from ktls.session import RxKeys, Session, TxKeys

TCP_ULP = 31
SOL_TLS = 282
TLS_TX = 1
TLS_RX = 2
TLS_SET_RECORD_TYPE = 1
TLS_GET_RECORD_TYPE = 2

ULP_NAME = b"tls"
CONTROL_SPACE = 24
"""CMSG_SPACE(1). The kernel wants 17 bytes at least; with 16 it gives EIO."""
RECORD_SPACE = MAX_PLAINTEXT + 256
"""Bytes that hold any record's content."""
DRAIN_MAX = 64
"""Control records taken in one go. A peer can send them as fast as we take them, so somebody must stop; servers send 2
to 4 tickets."""

_HEADER = struct.Struct("=HH")  # struct tls_crypto_info: version, cipher_type
_BY_ID = {cipher.id: cipher for cipher in KERNEL_CIPHERS}


@dataclass(frozen=True, slots=True)
class Record:
    """What one read gave.

    Args:
        content_type: of the record; an int where the number is not one of TLS's. None at the end of file, and for bytes
            of a connection that has no RX keys.
        data: content, decrypted; not shown, it is the user's.
        end_of_record: whether this is the record's last part.
    """

    content_type: ContentType | int | None
    data: bytes = field(repr=False)
    end_of_record: bool

    @property
    def is_end(self) -> bool:
        """Whether this is the end of file. A record of no bytes, which TLS 1.3 allows, is not."""
        return self.content_type is None and not self.data


@dataclass(frozen=True, slots=True)
class KernelState:
    """What the kernel holds for a socket.

    Args:
        attached: whether it has the upper layer protocol "tls".
        version: of the keys; None without.
        cipher: of the keys; None without, or where it is not one of ours.
        transmits: whether there are keys to send with.
        receives: whether there are keys to receive with.
        tx_sequence: number of the next record sent; None without keys, or if it was not asked for.
        rx_sequence: likewise received.
    """

    attached: bool
    version: Version | None = None
    cipher: KernelCipher | None = None
    transmits: bool = False
    receives: bool = False
    tx_sequence: int | None = None
    rx_sequence: int | None = None


def attach(sock: socket.socket) -> None:
    """Attach the upper layer protocol "tls". Nothing changes for who reads and writes until keys are installed.

    Raises:
        UlpUnavailable: no such protocol here.
        NotEstablished: still connecting, or half-closed.
        AlreadyAttached: it was done before; `is_attached` asks.
        NotTcp, AttachConflict, OutOfMemory, KernelRefused: as their names say.
    """
    with translate("attaching TLS to the socket", ATTACH):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, ULP_NAME)


def is_attached(sock: socket.socket) -> bool:
    """Ask whether the socket has the upper layer protocol "tls". Any process with a copy gets the same answer."""
    try:
        name = sock.getsockopt(socket.IPPROTO_TCP, TCP_ULP, 16)
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):  # not TCP
            return False
        raise
    return name.rstrip(b"\0") == ULP_NAME


def install_tx(sock: socket.socket, keys: TxKeys) -> None:
    """Encrypt what is sent from here on. Called again with TLS 1.3 keys it rekeys (Linux 6.14 and later).

    No thread may be in send() meanwhile: it would go on sending clear text.

    Raises:
        KeysRefused: a version or cipher that this kernel does not take.
        CipherUnavailable: the cipher's module is missing.
        RekeyUnsupported: there are keys already, and they cannot be changed.
        NotAttached, NotTcp, OutOfMemory, KernelRefused: as their names say. Nothing has changed; it may be tried again.
    """
    with translate(f"installing {keys.version.label} {keys.suite} keys for sending", INSTALL):
        sock.setsockopt(SOL_TLS, TLS_TX, keys.crypto_info())  # no variable: tracebacks can show those


def install_rx(sock: socket.socket, keys: RxKeys) -> None:
    """Decrypt what is received from here on, what is queued included. Called again it rekeys, as `install_tx` does.

    What is queued must begin with a record's first byte. No thread may be in recv() now: it would get ciphertext.

    Raises:
        KernelError: as from `install_tx`.
    """
    with translate(f"installing {keys.version.label} {keys.suite} keys for receiving", INSTALL):
        sock.setsockopt(SOL_TLS, TLS_RX, keys.crypto_info())


def install(sock: socket.socket, session: Session) -> None:
    """Install both directions' keys.

    Raises:
        KernelError: as from `install_tx`. If it was the receiving direction that failed, sending is encrypted already
            and the connection can only be closed.
    """
    install_tx(sock, session.tx)
    install_rx(sock, session.rx)


def read_record(sock: socket.socket, size: int = RECORD_SPACE, flags: int = socket.MSG_DONTWAIT) -> Record:
    """Read from the record at the head, whatever its type; of data records, from as many as there are.

    Args:
        sock: a socket with RX keys.
        size: the most bytes to take.
        flags: of recv(2); MSG_PEEK leaves it for the next read.

    Raises:
        BadRecord: what came does not decrypt; so it will be for every later read.
        RecordOverflow, ProtocolError: what came is not a TLS record. Told once; later reads find nothing.
        RekeyNeeded: the record before was a KeyUpdate.
        OSError: of TCP; BlockingIOError when there is nothing.
    """
    with translate("receiving", RECEIVE, total=False):
        data, control, message_flags, _ = sock.recvmsg(size, CONTROL_SPACE, flags)
    content_type: ContentType | int | None = None
    for level, kind, value in control:
        if (level, kind) == (SOL_TLS, TLS_GET_RECORD_TYPE):
            content_type = _content_type(value[0])
    return Record(content_type, data, bool(message_flags & socket.MSG_EOR))


def send_record(sock: socket.socket, content_type: ContentType, data: bytes) -> int:
    """Send one record; MSG_MORE data that waits in an open record goes first.

    Args:
        sock: a socket with TX keys.
        content_type: what `data` is.
        data: 1 to 16384 bytes. The kernel sends nothing for none.

    Returns:
        How many bytes it took: all, unless memory was short in between.

    Raises:
        NotKeyed: it would have gone out in clear.
        SendBroken: the connection is dead.
        UsageError: no data, or too much.
        OSError: of TCP; BlockingIOError when there is no room.
    """
    if not 1 <= len(data) <= MAX_PLAINTEXT:
        raise UsageError(f"{len(data)} bytes; a record takes 1..{MAX_PLAINTEXT}")
    _header(sock, TLS_TX)
    control = [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([content_type]))]
    with translate(f"sending a record of type {content_type:d}", SEND, total=False):
        return sock.sendmsg([data], control, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def send_alert(sock: socket.socket, alert: Alert) -> None:
    """Send an alert; close_notify too. kTLS never sends one by itself.

    Raises:
        NotKeyed, SendBroken: as from `send_record`.
        OSError: of TCP; BlockingIOError when there is no room: wait until it is writable and call again.
    """
    send_record(sock, ContentType.ALERT, alert.pack())


def drain_control_records(sock: socket.socket) -> tuple[Record, ...]:
    """Take the control records at the head, and nothing behind the first that is data.

    Before close(): one unread record makes it a RST, which destroys what we sent and the peer has not read yet. Nobody
    else may read meanwhile: a record is looked at, then taken.

    Returns:
        The records, or parts of them, in order; at most `DRAIN_MAX`.

    Raises:
        BadRecord, RecordOverflow, ProtocolError: what comes next is no record; control records before it are lost.
        OSError: of TCP, but not BlockingIOError.
    """
    drained: list[Record] = []
    while len(drained) < DRAIN_MAX:
        try:
            head = read_record(sock, 1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            if head.content_type in (None, ContentType.APPLICATION_DATA):
                break
            drained.append(read_record(sock))
        except (BlockingIOError, RekeyNeeded):
            break
    return tuple(drained)


def query(sock: socket.socket, *, sequences: bool = False) -> KernelState:
    """Ask what the kernel holds.

    Args:
        sock: any TCP socket.
        sequences: also ask for the sequence numbers. The kernel hands out the live keys with them: they are wiped here.

    Raises:
        KernelRefused: it does not answer.
    """
    if not is_attached(sock):
        return KernelState(attached=False)
    tx, rx = _header_or_none(sock, TLS_TX), _header_or_none(sock, TLS_RX)
    either = tx or rx
    if either is None:
        return KernelState(attached=True)
    version, cipher = Version(either[0]), _BY_ID.get(either[1])
    numbers = [
        _sequence(sock, option, cipher) if sequences and header and cipher else None
        for option, header in ((TLS_TX, tx), (TLS_RX, rx))
    ]
    return KernelState(True, version, cipher, tx is not None, rx is not None, *numbers)


def _content_type(number: int) -> ContentType | int:
    return ContentType(number) if number in ContentType.__members__.values() else number


def _header(sock: socket.socket, option: int) -> tuple[int, int]:
    """Version and cipher of a direction's keys, without the keys."""
    with translate("asking for the connection's cipher", QUERY):
        version, cipher = _HEADER.unpack(sock.getsockopt(SOL_TLS, option, _HEADER.size))
    return version, cipher


def _header_or_none(sock: socket.socket, option: int) -> tuple[int, int] | None:
    try:
        return _header(sock, option)
    except (NotKeyed, NotAttached):
        return None


def _sequence(sock: socket.socket, option: int, cipher: KernelCipher) -> int:
    """The next record's number. By way of C, since Python's own bytes could not be wiped."""
    import ctypes  # noqa: PLC0415 - only here, and not cheap

    libc = ctypes.CDLL(None, use_errno=True)
    buffer, size = ctypes.create_string_buffer(cipher.size), ctypes.c_uint32(cipher.size)
    try:
        with translate("asking for the sequence number", QUERY):
            if libc.getsockopt(sock.fileno(), SOL_TLS, option, buffer, ctypes.byref(size)) != 0:
                raise OSError(ctypes.get_errno(), "getsockopt")
        return int.from_bytes(memoryview(buffer)[cipher.size - REC_SEQ_LENGTH :])  # rec_seq is the last field
    finally:
        ctypes.memset(buffer, 0, cipher.size)

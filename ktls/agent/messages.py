"""The words of docs/protocol.md, version 1: request, verdict, outcome name and leash message, as bytes and as values.

Nothing here touches a socket. Every parser turns any bytes into a value or AgentProtocolError, never anything else.
"""

import socket
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address

from ktls.errors import AgentProtocolError

MAGIC = b"KTLS"
VERSION = 1
MAX_REQUEST = 512
"""Bytes of the longest request; a longer message is malformed."""
MAX_NAME = 253
"""Bytes of the longest host name (RFC 1035 section 2.3.4, without the root's dot)."""
MAX_FILLER = 4096
"""Far above the 6 bytes that fill a minimal send buffer; more is a lie that would make us wait."""
DESCRIPTORS = 2
"""R, then B, in one SCM_RIGHTS."""
LEASH_MESSAGE = 4
"""Bytes of one message on the leash."""
PASSED_ON = b"P\0\0\0"
"""The other message on the leash: the program has sent the socket to another process (SCM_RIGHTS)."""
SPEAKS_TLS = b"T\0\0\0"
"""And another: the first bytes that the program wrote were a ClientHello."""
OPEN_BYTE = b"!"
"""What makes A readable for outcomes K, C and F. It is never consumed."""

_REQUEST = struct.Struct("=4sBBHIHH28s")
_VERDICT = struct.Struct("=cc2xi")
_IN_PROGRESS = 1
_NOTICE_KIND, _NOTICE_ALLOWED = 3, 2
_SOCKADDR_IN, _SOCKADDR_IN6 = 16, 28
_HOST_NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:%")

Address = tuple[str, int]
"""IP address and port. An IPv4-mapped IPv6 address is given as the IPv4 address it is."""


class RequestKind(IntEnum):
    """What the program did."""

    CONNECT = 1
    ACCEPT = 2


class VerdictCode(Enum):
    """What policy says, as the shim reads it."""

    CLEAR = b"C"
    TLS = b"T"
    SECONDARY = b"S"  # TLS, and connect() does not wait for the handshake
    DENY = b"D"


class Outcome(Enum):
    """How the gate opened."""

    KERNEL = "K"
    RELAY = "R"
    CLEAR = "C"
    FAILED = "F"


@dataclass(frozen=True, slots=True)
class Request:
    """One connection the shim asks about.

    Args:
        kind: connect() or accept().
        in_progress: the TCP connect has not finished.
        filler: bytes to drain from B when the gate opens.
        address: the remote end as the program gave it, or None: ask R.
        name: the host name the program resolved to that address, or None.
    """

    kind: RequestKind
    in_progress: bool
    filler: int
    address: Address | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Notice:
    """A program was to be started that the shim does not reach.

    Args:
        text: its path and why.
        allowed: it was started all the same, as --allow-uncovered says.
    """

    text: str
    allowed: bool


def parse_message(data: bytes, descriptors: int) -> Request | Notice:
    """Read what a shim sent: `parse_request`, or a notice of docs/protocol.md.

    Raises:
        AgentProtocolError: anything in it is not version 1; nothing has been kept.
    """
    if len(data) < _REQUEST.size or data[:6] != MAGIC + bytes((VERSION, _NOTICE_KIND)):
        return parse_request(data, descriptors)
    *_, flags, filler, address_length, length, _ = _REQUEST.unpack_from(data)
    if descriptors or flags & ~_NOTICE_ALLOWED or filler or address_length:
        raise AgentProtocolError("notice with descriptors or fields that only a request has")
    if len(data) != _REQUEST.size + length or len(data) > MAX_REQUEST:
        raise AgentProtocolError(f"notice of {len(data)} bytes with a text of {length}: lengths do not add up")
    return Notice(data[_REQUEST.size :].decode(errors="replace"), bool(flags))


def pack_notice(notice: Notice) -> bytes:
    """Write a notice, as the shim does. For tests."""
    text = notice.text.encode()
    flags = _NOTICE_ALLOWED if notice.allowed else 0
    return _REQUEST.pack(MAGIC, VERSION, _NOTICE_KIND, flags, 0, 0, len(text), b"") + text


def parse_request(data: bytes, descriptors: int) -> Request:
    """Read a request.

    Args:
        data: the whole message.
        descriptors: how many file descriptors came with it.

    Raises:
        AgentProtocolError: anything in it is not version 1; nothing has been kept.
    """
    if descriptors != DESCRIPTORS:
        raise AgentProtocolError(f"request carries {descriptors} descriptors, must be {DESCRIPTORS}")
    if not _REQUEST.size <= len(data) <= MAX_REQUEST:
        raise AgentProtocolError(f"request of {len(data)} bytes, must be {_REQUEST.size} to {MAX_REQUEST}")
    magic, version, kind, flags, filler, address_length, name_length, address = _REQUEST.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise AgentProtocolError(f"request starts {magic!r} version {version}, must be {MAGIC!r} version {VERSION}")
    if kind not in tuple(RequestKind):
        raise AgentProtocolError(f"request of kind {kind}, must be 1 or 2")
    if flags & ~_IN_PROGRESS or (flags and kind != RequestKind.CONNECT):
        raise AgentProtocolError(f"request with flags {flags:#x}, not known for kind {kind}")
    if filler > MAX_FILLER:
        raise AgentProtocolError(f"request with {filler} bytes of filler, at most {MAX_FILLER}")
    if name_length > MAX_NAME or len(data) != _REQUEST.size + name_length:
        raise AgentProtocolError(f"request of {len(data)} bytes with a name of {name_length}: lengths do not add up")
    return Request(
        RequestKind(kind),
        bool(flags & _IN_PROGRESS),
        filler,
        _parse_address(address, address_length),
        _parse_name(data[_REQUEST.size :]),
    )


def pack_request(request: Request) -> bytes:
    """Write a request, as the shim does. For tests and for programs that speak to the agent without the shim."""
    address, length = (b"", 0) if request.address is None else _pack_address(request.address)
    name = (request.name or "").encode("ascii")
    flags = _IN_PROGRESS if request.in_progress else 0
    head = _REQUEST.pack(MAGIC, VERSION, request.kind, flags, request.filler, length, len(name), address)
    return head + name


def plain_address(host: str) -> str:
    """Return an address without zone, and an IPv4-mapped IPv6 address as IPv4, as policies write them.

    >>> plain_address("::ffff:192.0.2.1")
    '192.0.2.1'
    """
    host = host.partition("%")[0]
    if ":" not in host:
        return host
    address = IPv6Address(host)
    return str(address.ipv4_mapped or address)


def _parse_address(data: bytes, length: int) -> Address | None:
    if length == 0:
        return None
    family, port = struct.unpack_from("=H", data)[0], struct.unpack_from("!H", data, 2)[0]
    if (family, length) == (socket.AF_INET, _SOCKADDR_IN):
        return str(IPv4Address(data[4:8])), port
    if (family, length) == (socket.AF_INET6, _SOCKADDR_IN6):
        return plain_address(str(IPv6Address(data[8:24]))), port
    raise AgentProtocolError(f"request with an address of family {family} and {length} bytes")


def _pack_address(address: Address) -> tuple[bytes, int]:
    host, port = address
    if ":" in host:
        rest = struct.pack("!H4x16s4x", port, IPv6Address(host).packed)
        return struct.pack("=H", socket.AF_INET6) + rest, _SOCKADDR_IN6
    return struct.pack("=HH", socket.AF_INET, socket.htons(port)) + IPv4Address(host).packed, _SOCKADDR_IN


def _parse_name(data: bytes) -> str | None:
    # A program may resolve anything. What cannot be a host name cannot be in a certificate: as good as no name.
    return data.decode("ascii") if data and _HOST_NAME_BYTES.issuperset(data) else None


def pack_verdict(verdict: VerdictCode, errno: int = 0) -> bytes:
    """Write a verdict; `errno` only with DENY.

    >>> pack_verdict(VerdictCode.TLS)[:2]
    b'VT'
    """
    return _VERDICT.pack(b"V", verdict.value, errno)


def parse_verdict(data: bytes) -> tuple[VerdictCode, int]:
    """Read a verdict and its errno.

    Raises:
        AgentProtocolError: it is none.
    """
    if len(data) != _VERDICT.size:
        raise AgentProtocolError(f"verdict of {len(data)} bytes, must be {_VERDICT.size}")
    magic, code, errno = _VERDICT.unpack(data)
    if magic != b"V" or code not in {v.value for v in VerdictCode}:
        raise AgentProtocolError(f"verdict {magic + code!r}")
    return VerdictCode(code), errno


@dataclass(frozen=True, slots=True)
class GateName:
    """The name that B is bound to: the state of the gate, for whoever holds A.

    Args:
        outcome: how the gate opened.
        errno: what every call of the program fails with; 0 unless FAILED.
        flags: letters of docs/protocol.md: s (strict end of file), p (confirm poll), k (kernel can rekey),
            t (tickets may come first), n (TCP did not connect).
        token: 64 bits that make the name unique in the abstract name space of the network namespace.
    """

    outcome: Outcome
    errno: int
    flags: str
    token: int

    def pack(self) -> bytes:
        """Return the abstract socket name.

        >>> GateName(Outcome.RELAY, 0, "s", 255).pack()
        b'\\x00ktls/R/0/s/00000000000000ff'
        """
        return f"\0ktls/{self.outcome.value}/{self.errno}/{self.flags or '-'}/{self.token:016x}".encode("ascii")


def parse_gate_name(name: bytes) -> GateName:
    """Read what getpeername(A) gives.

    Raises:
        AgentProtocolError: it is no gate name.
    """
    try:
        start, outcome, errno, flags, token = name.decode("ascii").split("/")
        parsed = GateName(Outcome(outcome), int(errno), "" if flags == "-" else flags, int(token, 16))
    except ValueError as error:
        raise AgentProtocolError(f"no gate name: {name[:108]!r}") from error
    if start != "\0ktls":
        raise AgentProtocolError(f"no gate name: {name[:108]!r}")
    return parsed


class UpdateRequest(IntEnum):
    """Whether the peer's KeyUpdate wants ours (RFC 8446 section 4.6.3)."""

    NOT_REQUESTED = 0
    REQUESTED = 1
    UNKNOWN = 2


def parse_update(data: bytes) -> UpdateRequest:
    """Read one message of the leash: a KeyUpdate has been taken from the socket.

    Args:
        data: LEASH_MESSAGE bytes.

    Raises:
        AgentProtocolError: the leash carries something else; it is of no use any more.
    """
    if len(data) != LEASH_MESSAGE or data[:1] != b"U" or data[1] not in tuple(UpdateRequest) or data[2:] != b"\0\0":
        raise AgentProtocolError(f"leash message {data[:LEASH_MESSAGE]!r}")
    return UpdateRequest(data[1])

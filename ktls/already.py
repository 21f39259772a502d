"""Does a program speak TLS itself? Its first bytes tell: a client begins with a ClientHello.

The shim has the same test in C (call_write.c), for connections whose bytes only the kernel sees.
"""

NEEDED = 6
"""Bytes that tell."""


def is_client_hello(data: bytes | memoryview) -> bool:
    """Tell whether a stream begins with a ClientHello.

    A handshake record (22) of SSL 3.0 to TLS 1.3 (RFC 8446 section 5.1: legacy_record_version 3.0 to 3.4, at most 2**14
    bytes) whose first message is a client_hello (1; section 4).

    Args:
        data: its first bytes; NEEDED are enough, fewer are none.

    >>> is_client_hello(bytes.fromhex("160301020001"))
    True
    >>> is_client_hello(b"GET / HTTP/1.1")
    False
    """
    if len(data) < NEEDED:
        return False
    length = int.from_bytes(data[3:5], "big")
    return data[0] == 22 and data[1] == 3 and data[2] <= 4 and 4 <= length <= 1 << 14 and data[5] == 1

"""Which network devices encrypt or decrypt TLS: the features that `ethtool -k` shows, asked with its ioctl.

No netlink library: this is three small structs of include/uapi/linux/ethtool.h, and importing one takes longer than the
whole probe. A device that has the features still takes only TLS 1.2 with AES-GCM (net/tls/tls_device.c), and the kernel
falls back to software without a word.
"""

import array
import fcntl
import socket
import struct
from enum import Flag, auto

SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS = 0x1B
ETHTOOL_GSSET_INFO = 0x37
ETHTOOL_GFEATURES = 0x3A
ETH_SS_FEATURES = 4
ETH_GSTRING_LEN = 32
FEATURES_MAX = 1024
"""Linux 7 has 65 features; this only keeps a wrong answer from taking memory."""

_SSET_INFO = struct.Struct("=IIQI")  # cmd, reserved, sset_mask, data[1]
_GSTRINGS = struct.Struct("=III")  # cmd, string_set, len; then the strings
_GFEATURES = struct.Struct("=II")  # cmd, size; then blocks
_BLOCK = struct.Struct("=IIII")  # available, requested, active, never_changed
_IFREQ = struct.Struct("@16sP16x")


class TlsOffload(Flag):
    """What a device does."""

    TX = auto()
    RX = auto()


FEATURES = {b"tls-hw-tx-offload": TlsOffload.TX, b"tls-hw-rx-offload": TlsOffload.RX}


def tls_offload() -> dict[str, TlsOffload]:
    """List the devices of this network namespace that have an offload switched on. Needs no privilege.

    Returns:
        What each does, by the device's name; devices that do nothing, or do not answer, are left out.
    """
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            try:
                active = _active_features(sock, name)
            except OSError:  # it has no ethtool, or has gone meanwhile
                continue
            does = TlsOffload(0)
            for feature, offload in FEATURES.items():
                does |= offload if feature in active else TlsOffload(0)
            if does:
                found[name] = does
    return found


def _active_features(sock: socket.socket, device: str) -> set[bytes]:
    info = _ask(sock, device, _SSET_INFO.pack(ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    *_, mask, count = _SSET_INFO.unpack(info)
    if not mask or count > FEATURES_MAX:
        return set()
    strings = _ask(
        sock, device, _GSTRINGS.pack(ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count) + bytes(count * ETH_GSTRING_LEN)
    )
    blocks = -(-count // 32)
    answer = _ask(sock, device, _GFEATURES.pack(ETHTOOL_GFEATURES, blocks) + bytes(blocks * _BLOCK.size))
    active = [_BLOCK.unpack_from(answer, _GFEATURES.size + index * _BLOCK.size)[2] for index in range(blocks)]
    return {
        strings[offset : offset + ETH_GSTRING_LEN].rstrip(b"\0")
        for index in range(count)
        if active[index // 32] >> index % 32 & 1
        for offset in (_GSTRINGS.size + index * ETH_GSTRING_LEN,)
    }


def _ask(sock: socket.socket, device: str, command: bytes) -> bytes:
    """Run one ethtool command; the kernel answers in the same memory."""
    buffer = array.array("B", command)
    address, _ = buffer.buffer_info()
    fcntl.ioctl(sock, SIOCETHTOOL, _IFREQ.pack(device.encode(), address))
    return buffer.tobytes()

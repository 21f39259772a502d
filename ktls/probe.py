"""What this kernel can do, found by doing it on a connection over loopback.

Never by version: distributions carry features back and compile them out. Every answer starts as "no" and only the call
that works makes it "yes"; nothing here raises, since a kernel without kTLS is an ordinary kernel.
"""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ktls.ciphers import SUITES, CipherSuite, Version
from ktls.errors import KernelError
from ktls.ethtool import TlsOffload, tls_offload
from ktls.kernel import SOL_TLS, attach, install_rx, install_tx
from ktls.kernel_errors import CipherUnavailable
from ktls.records import MAX_PLAINTEXT, ContentType, RecordProtection
from ktls.session import RxKeys, TxKeys

TLS_TX_MAX_PAYLOAD_LEN = 5
"""Since Linux 6.19: how long the records are that the kernel makes, as record_size_limit demands (RFC 8449)."""
ARRIVAL = 1000
"""Milliseconds for what was sent over loopback to be there: it is at once, unless the kernel is very busy."""

CipherNames = Mapping[Version, tuple[str, ...]]
"""`KernelCipher` names by version."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the kernel can do.

    Args:
        kernel_tls: it has kTLS, with at least one cipher both ways.
        reason: why not; empty if it does.
        hint: what to do about it.
        tx_ciphers: ciphers it encrypts with.
        rx_ciphers: ciphers it decrypts with.
        rekey: it can follow a TLS 1.3 KeyUpdate (Linux 6.14).
        max_payload_option: the length of its records can be limited (Linux 6.19).
        poll_partial_record: poll reports IN before a whole record is there, so that a read may find nothing after all
            (before Linux 6.5).
        tx_devices: network devices that encrypt, by name.
        rx_devices: network devices that decrypt.
    """

    kernel_tls: bool = False
    reason: str = ""
    hint: str = ""
    tx_ciphers: CipherNames = field(default_factory=dict)
    rx_ciphers: CipherNames = field(default_factory=dict)
    rekey: bool = False
    max_payload_option: bool = False
    poll_partial_record: bool = False
    tx_devices: tuple[str, ...] = ()
    rx_devices: tuple[str, ...] = ()

    def supports(self, version: Version, suite: CipherSuite) -> bool:
        """Tell whether the kernel does this suite's records in both directions."""
        return _has(self.tx_ciphers, version, suite) and _has(self.rx_ciphers, version, suite)

    def to_json(self) -> dict[str, Any]:
        """Return the same as what JSON can hold; versions by their label."""
        return {
            "kernel_tls": self.kernel_tls,
            "reason": self.reason,
            "hint": self.hint,
            "tx_ciphers": {version.label: list(names) for version, names in self.tx_ciphers.items()},
            "rx_ciphers": {version.label: list(names) for version, names in self.rx_ciphers.items()},
            "rekey": self.rekey,
            "max_payload_option": self.max_payload_option,
            "poll_partial_record": self.poll_partial_record,
            "tx_devices": list(self.tx_devices),
            "rx_devices": list(self.rx_devices),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Capabilities":
        """Read what `to_json` gave.

        >>> Capabilities.from_json(Capabilities(reason="no TLS").to_json()).reason
        'no TLS'
        """
        ciphers = {
            key: {version: tuple(data[key][version.label]) for version in Version if version.label in data[key]}
            for key in ("tx_ciphers", "rx_ciphers")
        }
        devices = {key: tuple(data[key]) for key in ("tx_devices", "rx_devices")}
        return cls(**{**data, **ciphers, **devices})


def probe() -> Capabilities:
    """Try everything. Takes some milliseconds; the caller keeps the answer.

    The first time after boot it may take a second: the kernel loads its ciphers' modules.
    """
    try:
        with contextlib.closing(_Loopback()) as loopback:
            return _probe(loopback)
    except OSError as error:
        return Capabilities(reason=f"kTLS cannot be tried over loopback: {error.strerror}", hint="ip link set lo up")
    except KernelError as error:  # it has none; or, once, no memory: the caller keeps the answer and not the error
        return Capabilities(reason=f"no kTLS: {error.message}", hint=error.hint)


def _probe(loopback: "_Loopback") -> Capabilities:
    with loopback.pair() as (end, _):
        attach(end)
    tx_ciphers, rx_ciphers = _ciphers(loopback)
    common = [s for s in SUITES for v in s.versions if _has(tx_ciphers, v, s) and _has(rx_ciphers, v, s)]
    if not common:
        return Capabilities(
            reason="kTLS has no cipher that works both ways",
            hint=CipherUnavailable.default_hint,
            tx_ciphers=tx_ciphers,
            rx_ciphers=rx_ciphers,
        )
    devices = tls_offload()
    return Capabilities(
        kernel_tls=True,
        tx_ciphers=tx_ciphers,
        rx_ciphers=rx_ciphers,
        rekey=_can_rekey(loopback, common),
        max_payload_option=_has_max_payload_option(loopback, common[0]),
        poll_partial_record=_polls_partial_record(loopback, common[0]),
        tx_devices=tuple(name for name, does in devices.items() if TlsOffload.TX in does),
        rx_devices=tuple(name for name, does in devices.items() if TlsOffload.RX in does),
    )


class _Loopback:
    """Makes connections to ourselves, over whichever family there is."""

    def __init__(self) -> None:
        try:
            self._server = socket.create_server(("127.0.0.1", 0))
        except OSError:
            self._server = socket.create_server(("::1", 0), family=socket.AF_INET6)

    @contextlib.contextmanager
    def pair(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        with socket.create_connection(self._server.getsockname()[:2], timeout=1) as end:
            # The port is open to everybody on this machine: take ours.
            while True:
                peer, address = self._server.accept()
                with peer:
                    if address == end.getsockname():
                        yield end, peer
                        return

    def close(self) -> None:
        self._server.close()


def _tx_keys(suite: CipherSuite, version: Version) -> TxKeys:
    key, iv, nonce = map(os.urandom, (suite.key_length, suite.fixed_iv_length, suite.explicit_nonce_length))
    return TxKeys(suite=suite, version=version, key=key, iv=iv, explicit_nonce=nonce)


def _rx_keys(keys: TxKeys) -> RxKeys:
    return RxKeys(suite=keys.suite, version=keys.version, key=keys.key, iv=keys.iv)


def _ciphers(loopback: _Loopback) -> tuple[CipherNames, CipherNames]:
    """Try each cipher of the kernel's in each version and direction. Suites that share a cipher share the answer."""
    tx: dict[Version, tuple[str, ...]] = {}
    rx: dict[Version, tuple[str, ...]] = {}
    for version in Version:
        for suite in {suite.kernel: suite for suite in SUITES if version in suite.versions}.values():
            keys = _tx_keys(suite, version)
            with loopback.pair() as (end, _):
                attach(end)
                with contextlib.suppress(KernelError):
                    install_tx(end, keys)
                    tx[version] = (*tx.get(version, ()), suite.kernel.name)
                with contextlib.suppress(KernelError):
                    install_rx(end, _rx_keys(keys))
                    rx[version] = (*rx.get(version, ()), suite.kernel.name)
    return tx, rx


def _has(ciphers: CipherNames, version: Version, suite: CipherSuite) -> bool:
    return suite.kernel.name in ciphers.get(version, ())


def _can_rekey(loopback: _Loopback, suites: list[CipherSuite]) -> bool:
    """Set keys a second time, each way. In TLS 1.2 no kernel takes them."""
    suite = next((suite for suite in suites if Version.TLS13 in suite.versions), None)
    if suite is None:
        return False
    keys = [_tx_keys(suite, Version.TLS13) for _ in range(2)]
    with loopback.pair() as (end, _):
        attach(end)
        try:
            for each in keys:
                install_tx(end, each)
                install_rx(end, _rx_keys(each))
        except KernelError:
            return False
    return True


def _has_max_payload_option(loopback: _Loopback, suite: CipherSuite) -> bool:
    with loopback.pair() as (end, _):
        attach(end)
        install_tx(end, _tx_keys(suite, min(suite.versions)))
        try:
            end.setsockopt(SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN, struct.pack("=H", MAX_PLAINTEXT))
        except OSError:
            return False
    return True


def _polls_partial_record(loopback: _Loopback, suite: CipherSuite) -> bool:
    """Put half a record into the queue, then keys: does poll tell of what cannot be read?"""
    keys = _tx_keys(suite, min(suite.versions))
    record = RecordProtection(keys).seal(ContentType.APPLICATION_DATA, b"half of this")
    with loopback.pair() as (end, peer):
        attach(end)
        peer.sendall(record[: len(record) // 2])
        poller = select.poll()
        poller.register(end, select.POLLIN)
        if not poller.poll(ARRIVAL):
            return True  # it did not arrive: take the careful way
        install_rx(end, _rx_keys(keys))
        return bool(poller.poll(0))

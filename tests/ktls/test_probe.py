"""The probe on this machine, and where there is nothing to find. tests/lab has it on kernels with kTLS."""

import errno
import json
import socket

import pytest

from ktls import probe as module
from ktls.ciphers import SUITES, Version, by_iana
from ktls.kernel_errors import KeysRefused, UlpUnavailable
from ktls.probe import Capabilities, probe

GCM, CHACHA = by_iana("TLS_AES_128_GCM_SHA256"), by_iana("TLS_CHACHA20_POLY1305_SHA256")
EVERYTHING = Capabilities(
    kernel_tls=True,
    tx_ciphers={Version.TLS13: ("AES_GCM_128", "CHACHA20_POLY1305"), Version.TLS12: ("AES_GCM_128",)},
    rx_ciphers={Version.TLS13: ("AES_GCM_128",)},
    rekey=True,
    max_payload_option=True,
    poll_partial_record=True,
    tx_devices=("eth0",),
    rx_devices=("eth0", "eth1"),
)


def refuse(number):
    def create(*args, **kwargs):
        raise OSError(number, "as the kernel says")

    return create


def test_a_kernel_without_ktls_is_an_answer():
    capabilities = probe()
    if capabilities.kernel_tls:
        pytest.skip("this kernel has kTLS")
    assert "TLS" in capabilities.reason
    assert capabilities.hint
    assert capabilities == Capabilities(reason=capabilities.reason, hint=capabilities.hint)
    assert not any(capabilities.supports(version, suite) for suite in SUITES for version in suite.versions)


def test_nothing_is_left_open(fd_count):
    probe()
    before = fd_count()
    probe()
    assert fd_count() == before


def test_without_loopback_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(socket, "create_server", refuse(errno.EADDRNOTAVAIL))
    capabilities = probe()
    assert not capabilities.kernel_tls
    assert "loopback" in capabilities.reason
    assert capabilities.hint == "ip link set lo up"


def test_the_reason_says_what_the_kernel_said(monkeypatch):
    def attach(sock):
        raise UlpUnavailable("attaching: ENOENT")

    monkeypatch.setattr(module, "attach", attach)
    assert "ENOENT" in probe().reason
    assert "modprobe tls" in probe().hint


def test_a_kernel_that_fails_half_way_has_nothing(monkeypatch):
    """An agent asks once: an error instead of an answer would end every connection that it ever has."""

    def fail(loopback, suites):
        raise KeysRefused("TLS_TX: ENOMEM")

    monkeypatch.setattr(module, "attach", lambda sock: None)
    monkeypatch.setattr(module, "_ciphers", lambda loopback: (EVERYTHING.tx_ciphers, EVERYTHING.tx_ciphers))
    monkeypatch.setattr(module, "_can_rekey", fail)
    assert probe() == Capabilities(reason="no kTLS: TLS_TX: ENOMEM", hint=KeysRefused.default_hint)


def test_a_connection_of_somebody_else_is_not_taken_for_ours():
    loopback = module._Loopback()
    with socket.create_connection(loopback._server.getsockname()) as stranger, loopback.pair() as (end, peer):
        assert peer.getpeername() == end.getsockname()
        assert stranger.recv(1) == b""
    loopback.close()


@pytest.mark.parametrize("capabilities", [EVERYTHING, Capabilities(), Capabilities(reason="no", hint="do")])
def test_json_holds_all_of_it(capabilities):
    assert Capabilities.from_json(json.loads(json.dumps(capabilities.to_json()))) == capabilities


def test_a_suite_needs_both_directions():
    assert EVERYTHING.supports(Version.TLS13, GCM)
    assert not EVERYTHING.supports(Version.TLS13, CHACHA)  # it cannot be received
    assert not EVERYTHING.supports(Version.TLS12, GCM)

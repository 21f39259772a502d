"""Devices and their TLS features, asked of this machine's real ones."""

import socket

import pytest

from ktls import ethtool
from ktls.ethtool import TlsOffload


@pytest.fixture
def features():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield lambda name: ethtool._active_features(sock, name)


def test_loopbacks_features_are_read_under_their_names(features):
    assert b"loopback" in features("lo")  # drivers/net/loopback.c has it on, and fixed


def test_a_device_that_is_not_there_is_an_error_of_the_system(features):
    with pytest.raises(OSError, match="No such device"):
        features("no-such-dev")


def test_loopback_offloads_nothing():
    assert "lo" not in ethtool.tls_offload()


def test_a_device_with_the_feature_is_listed(monkeypatch):
    # No device on earth that tests run on has it, so another feature stands for it.
    monkeypatch.setattr(ethtool, "FEATURES", {b"loopback": TlsOffload.RX})
    assert ethtool.tls_offload()["lo"] is TlsOffload.RX


def test_devices_that_do_not_answer_are_left_out(monkeypatch):
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(99, "no-such-dev")])
    assert ethtool.tls_offload() == {}

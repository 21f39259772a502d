"""Query and probe on a kernel that has kTLS."""

import errno
from dataclasses import replace

import pytest

from ktls import kernel, kernel_errors
from ktls.ciphers import SUITES
from ktls.probe import probe
from tests.lab.harness import DATA, drop_privileges_and

pytestmark = pytest.mark.qemu


def test_query_counts_records(cipher_link):
    link = cipher_link
    for _ in range(3):
        link.end.send(b"x")
    link.put(DATA, b"y")
    link.recv()
    state = kernel.query(link.end, sequences=True)
    assert state == kernel.KernelState(True, link.version, link.suite.kernel, True, True, 3, 1)
    assert kernel.query(link.end) == replace(state, tx_sequence=None, rx_sequence=None)


def test_query_tells_directions_apart(connect):
    link = connect(keyed=False)
    kernel.install_rx(link.end, link.rx.at(7))
    state = kernel.query(link.end, sequences=True)
    assert (state.transmits, state.receives, state.tx_sequence, state.rx_sequence) == (False, True, None, 7)


def test_the_probe_finds_what_the_kernel_does():
    found = probe()
    assert found.kernel_tls
    assert all(found.supports(version, suite) for suite in SUITES for version in suite.versions)
    assert found.poll_partial_record == (not found.rekey)  # 6.1 and 7.3; both are false on 6.5 to 6.13


def test_the_probe_does_not_need_privileges_and_leaves_nothing(fd_count):
    before = fd_count()
    expected = probe()

    def compare() -> None:
        if probe() != expected:
            raise OSError(errno.EINVAL, "another answer")

    assert drop_privileges_and(compare) == 0
    assert fd_count() == before


def test_the_probe_says_so_where_no_cipher_works(monkeypatch):
    def refuse(sock, keys):
        raise kernel_errors.CipherUnavailable("installing")

    monkeypatch.setattr("ktls.probe.install_rx", refuse)
    found = probe()
    assert not found.kernel_tls
    assert found.tx_ciphers
    assert "modprobe" in found.hint

"""TLS 1.3 KeyUpdate in the kernel, since Linux 6.14 (and in kernels that carry it back)."""

import errno
import select

import pytest

from ktls import kernel
from ktls.ciphers import Version
from tests.lab.harness import (
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    ONE_EACH,
    Blocked,
    counter,
    error_of,
    make_keys,
    needs_rekey,
    no_rekey,
    poll,
    receiving,
)

pytestmark = pytest.mark.qemu
COUNTERS = ("TlsRxRekeyOk", "TlsRxRekeyError", "TlsTxRekeyOk", "TlsTxRekeyError", "TlsRxRekeyReceived")


@no_rekey
def test_without_rekey_there_are_no_counters_of_it():
    for name in COUNTERS:
        with pytest.raises(KeyError):
            counter(name)


@needs_rekey
def test_counters_tell_of_rekeys(link13):
    before = {name: counter(name) for name in COUNTERS}
    link13.put(HANDSHAKE, KEY_UPDATE)
    link13.record()
    kernel.install_rx(link13.end, link13.updated_from_peer())
    kernel.install_tx(link13.end, link13.tx.updated())
    grown = {name for name in COUNTERS if counter(name) == before[name] + 1}
    assert grown == {"TlsRxRekeyOk", "TlsTxRekeyOk", "TlsRxRekeyReceived"}


@needs_rekey
def test_the_whole_sequence_of_a_key_update(link13):
    link13.put(HANDSHAKE, KEY_UPDATE)
    rx = link13.updated_from_peer()
    link13.put(DATA, b"under the next keys")
    assert poll(link13.end) == select.POLLIN
    assert error_of(link13.recv) == errno.EIO
    assert poll(link13.end) == 0
    assert error_of(link13.recv) == errno.EIO
    assert link13.record() == (HANDSHAKE, KEY_UPDATE)
    assert error_of(link13.recv) == errno.EKEYEXPIRED
    assert poll(link13.end) == 0
    kernel.install_rx(link13.end, rx)
    assert poll(link13.end) == select.POLLIN
    assert link13.recv() == b"under the next keys"


@needs_rekey
def test_a_blocking_read_does_not_wait_for_keys(link13):
    link13.put(HANDSHAKE, KEY_UPDATE)
    link13.record()
    assert Blocked(lambda: link13.end.recv(10), "recvmsg").join() == errno.EKEYEXPIRED


@needs_rekey
def test_the_next_keys_wake_a_sleeping_poll(link13):
    link13.put(HANDSHAKE, KEY_UPDATE)
    link13.record()
    rx = link13.updated_from_peer()
    link13.put(DATA, b"data")
    sleeper = Blocked(lambda: poll(link13.end, 20_000), "poll")
    kernel.install_rx(link13.end, rx)
    assert sleeper.join() == select.POLLIN


@needs_rekey
def test_keys_may_change_many_times(link13):
    for number in range(5):
        link13.put(HANDSHAKE, KEY_UPDATE)
        assert link13.record() == (HANDSHAKE, KEY_UPDATE)
        kernel.install_rx(link13.end, link13.updated_from_peer())
        kernel.send_record(link13.end, HANDSHAKE, KEY_UPDATE)
        assert link13.take().data == KEY_UPDATE
        kernel.install_tx(link13.end, link13.tx.updated())
        link13.end_was_updated()
        link13.put(DATA, b"in %d" % number)
        assert link13.recv() == b"in %d" % number
        link13.end.send(b"out %d" % number)
        assert link13.take().data == b"out %d" % number


@needs_rekey
def test_keys_to_send_with_may_change_without_a_key_update(link13):
    kernel.install_tx(link13.end, link13.tx.updated())  # nobody checks: it is on whoever does it
    link13.end_was_updated()
    link13.end.send(b"data")
    assert link13.take().data == b"data"


@needs_rekey
def test_a_rekey_cannot_change_cipher_or_version(link13):
    for version, suite in ONE_EACH:
        if suite.kernel is not link13.suite.kernel or version is not link13.version:
            info = make_keys(suite, version).crypto_info()
            assert error_of(link13.end.setsockopt, kernel.SOL_TLS, kernel.TLS_TX, info) == errno.EINVAL
    link13.end.send(b"the old keys are still good")
    assert link13.take().data == b"the old keys are still good"


@needs_rekey
def test_the_wrong_next_keys_are_a_bad_record(link13):
    link13.put(HANDSHAKE, KEY_UPDATE)
    link13.record()
    link13.updated_from_peer()
    link13.put(DATA, b"data")
    kernel.install_rx(link13.end, receiving(make_keys(link13.suite, Version.TLS13)))
    assert error_of(link13.recv) == errno.EBADMSG


@needs_rekey
def test_only_a_first_message_is_looked_at(link13):
    # A KeyUpdate behind another message of its record breaks RFC 8446 section 5.1, and the kernel does not see it.
    link13.put(HANDSHAKE, bytes((4, 0, 0, 1, 0)) + KEY_UPDATE)
    link13.put(DATA, b"data")
    assert link13.record()[0] == HANDSHAKE
    assert link13.recv() == b"data"


def test_tls12_takes_no_second_keys_on_any_kernel(link12):
    info = make_keys(link12.suite, Version.TLS12).crypto_info()
    for option in (kernel.TLS_TX, kernel.TLS_RX):
        assert error_of(link12.end.setsockopt, kernel.SOL_TLS, option, info) == errno.EBUSY
    link12.end.send(b"the old keys are still good")
    assert link12.take().data == b"the old keys are still good"

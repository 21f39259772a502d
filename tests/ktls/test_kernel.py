"""The kernel binding where there is no kTLS, or it does not matter; tests/lab/test_kernel_binding.py has the rest."""

import os
import socket
from contextlib import closing

import pytest

from ktls import kernel
from ktls.alerts import CLOSE_NOTIFY
from ktls.ciphers import Version, by_iana
from ktls.errors import KernelError, UsageError
from ktls.kernel_errors import NotAttached, NotTcp, UlpUnavailable
from ktls.probe import probe
from ktls.records import ContentType
from ktls.session import RxKeys, TxKeys

SUITE = by_iana("TLS_AES_128_GCM_SHA256")
KEY, IV = os.urandom(16), os.urandom(12)
TX = TxKeys(suite=SUITE, version=Version.TLS13, key=KEY, iv=IV)
RX = RxKeys(suite=SUITE, version=Version.TLS13, key=KEY, iv=IV)

without_ktls = pytest.mark.skipif("TLS" not in probe().reason or probe().kernel_tls, reason="this kernel has kTLS")


@pytest.fixture
def pair():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as end,
        closing(server.accept()[0]) as peer,
    ):
        yield end, peer


@without_ktls
def test_attach_says_how_to_get_ktls(pair):
    with pytest.raises(UlpUnavailable) as caught:
        kernel.attach(pair[0])
    assert "modprobe tls" in caught.value.hint
    assert not kernel.is_attached(pair[0])


@pytest.mark.parametrize("kind", [(socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)])
def test_what_is_not_tcp_cannot_be_attached(kind):
    with socket.socket(*kind) as sock:
        with pytest.raises(NotTcp):
            kernel.attach(sock)
        assert not kernel.is_attached(sock)
        assert not kernel.query(sock).attached


@pytest.mark.parametrize(("install", "keys"), [(kernel.install_tx, TX), (kernel.install_rx, RX)], ids=["tx", "rx"])
def test_keys_need_the_protocol_first(pair, install, keys):
    with pytest.raises(NotAttached):
        install(pair[0], keys)


def test_no_error_shows_a_key(pair):
    with pytest.raises(KernelError) as caught:
        kernel.install_tx(pair[0], TX)
    shown = repr(caught.value) + str(caught.value.args) + str(caught.value.__cause__)
    assert "AES_128_GCM" in shown
    assert KEY.hex() not in shown
    assert repr(KEY) not in shown


def test_a_plain_connection_has_nothing_in_the_kernel(pair):
    assert kernel.query(pair[0]) == kernel.KernelState(attached=False)


def test_nothing_is_sent_in_clear_by_mistake(pair):
    end, peer = pair
    with pytest.raises(NotAttached):
        kernel.send_alert(end, CLOSE_NOTIFY)
    with pytest.raises(BlockingIOError):
        peer.recv(1, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("length", [0, 16385])
def test_a_record_that_cannot_be_is_not_sent(pair, length):
    with pytest.raises(UsageError, match=f"^{length} bytes"):
        kernel.send_record(pair[0], ContentType.HANDSHAKE, bytes(length))


def test_reading_from_a_plain_connection_tells_bytes_from_the_end(pair):
    end, peer = pair
    peer.sendall(b"clear")
    peer.shutdown(socket.SHUT_WR)
    record = kernel.read_record(end)
    assert (record.content_type, record.data, record.is_end) == (None, b"clear", False)
    assert kernel.read_record(end).is_end


def test_reading_does_not_wait(pair):
    with pytest.raises(BlockingIOError):
        kernel.read_record(pair[0])
    assert pair[0].getblocking()


def test_draining_leaves_clear_bytes(pair):
    end, peer = pair
    peer.sendall(b"clear")
    assert kernel.drain_control_records(end) == ()
    assert end.recv(10) == b"clear"


def test_a_record_does_not_show_its_data():
    assert "secret" not in repr(kernel.Record(ContentType.APPLICATION_DATA, b"secret", end_of_record=True))

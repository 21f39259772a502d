"""What the watcher of a handshake makes of records; that its keys work is shown in test_handshake.py."""

import pytest

from ktls.ciphers import Role, by_iana
from ktls.environment import Environment, Notes, TlsParameters
from ktls.errors import ProtocolError
from ktls.handshake import Handshake
from ktls.handshake_keys import _extensions, _prove
from ktls.keyring import Keyring
from ktls.records import ContentType, RecordProtection
from ktls.session import TxKeys


@pytest.fixture
def driver(tls_files) -> Handshake:
    keyring = Keyring("ring", trust=(str(tls_files.ca),))
    return Handshake(Environment(TlsParameters(Role.CLIENT, keyring)), server_name="localhost")


@pytest.fixture
def tx() -> TxKeys:
    return TxKeys.from_secret(bytes(48), by_iana("TLS_AES_256_GCM_SHA384"))


def test_records_prove_keys_only_if_they_open_and_are_what_they_should_be(tx):
    seal = RecordProtection(tx)
    records = [seal.seal(ContentType.HANDSHAKE, b"\x0b..."), seal.seal(ContentType.HANDSHAKE, b"\x14...")]
    _prove(tx, records, last=20)
    for wrong in ([], records[:1], records[::-1], [*records, seal.seal(ContentType.APPLICATION_DATA, b"\x14")]):
        with pytest.raises(ProtocolError):
            _prove(tx, wrong, last=20)


def test_extensions_of_a_server_hello_are_found():
    hello = bytes([2, 0, 0, 0, 3, 3]) + bytes(32) + b"\x02id" + b"\x13\x01\x00" + b"\x00\x0a"
    assert _extensions(hello + bytes.fromhex("002b00020304 00290000".replace(" ", ""))) == {43, 41}
    assert _extensions(hello) == set()
    assert _extensions(b"") == set()


def test_before_anything_is_protected_there_are_no_keys(driver):
    assert driver._keys.current_tx() is None
    driver.start()
    assert driver._keys.current_tx() is None


def test_secrets_of_another_connection_are_not_taken(driver):
    """The context is shared, so a line is matched by its client random."""
    driver.start()
    random = driver.connection.client_random() or b""
    lines = [f"CLIENT_TRAFFIC_SECRET_0 {r.hex()} {s.hex()}".encode() for r, s in ((bytes(32), b"no"), (random, b"yes"))]
    driver._notes.secrets += lines
    assert driver._keys._secret(Role.CLIENT, handshake=False) == b"yes"
    assert driver._keys._secret(Role.SERVER, handshake=False) is None


def test_keys_are_not_derived_without_a_handshake(driver):
    driver.start()
    with pytest.raises(ProtocolError, match="cannot be proven"):
        driver._keys.derive()


def test_notes_belong_to_one_connection(driver):
    assert driver.connection.get_app_data() is driver._notes
    assert isinstance(driver._notes, Notes)


def test_a_protected_record_is_never_taken_for_a_server_hello(tls_files):
    """One in 256 begins with the same byte."""
    keyring = Keyring("ring", tls_files.cert, tls_files.key, trust=())
    keys = Handshake(Environment(TlsParameters(Role.SERVER, keyring)))._keys
    hello, change = bytes.fromhex("16030300020200"), bytes.fromhex("140303000101")
    keys.sent(hello + change + bytes.fromhex("17030300020255"))
    assert keys._server_hello == b"\x02\x00"
    keys.sent(bytes.fromhex("16030300020211"))  # behind a HelloRetryRequest's change_cipher_spec
    assert keys._server_hello == b"\x02\x11"

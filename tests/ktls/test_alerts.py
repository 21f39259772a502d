"""Alerts: any bytes are an alert or a ProtocolError, and each version's rule for what is fatal."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.alerts import CLOSE_NOTIFY, Alert, AlertDescription, AlertLevel
from ktls.ciphers import Version
from ktls.errors import KtlsError, ProtocolError


def leaves(error: type[KtlsError]) -> list[type[KtlsError]]:
    return [error, *(leaf for child in error.__subclasses__() for leaf in leaves(child))]


@given(st.binary(max_size=8))
def test_any_bytes_are_an_alert_or_a_protocol_error(data: bytes):
    try:
        alert = Alert.parse(data)
    except ProtocolError:
        assert len(data) != 2 or data[0] not in (1, 2)
    else:
        assert alert.pack() == data


@given(st.sampled_from(AlertLevel), st.integers(0, 255))
def test_packing_and_parsing_are_inverse(level: AlertLevel, description: int):
    alert = Alert(level, description)
    assert Alert.parse(alert.pack()) == alert


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x00\x01\x00"])
def test_an_alert_that_is_cut_short_or_joined_to_another_is_refused(data: bytes):
    with pytest.raises(ProtocolError, match=f"{len(data)} bytes"):
        Alert.parse(data)


@pytest.mark.parametrize("level", [0, 3, 255])
def test_a_level_that_is_neither_warning_nor_fatal_is_refused(level: int):
    with pytest.raises(ProtocolError, match=f"level {level},"):
        Alert.parse(bytes([level, 0]))


def test_an_alert_we_know_is_named_as_in_the_rfc_and_another_by_its_number():
    assert Alert.parse(b"\x02\x74").name == "certificate_required"
    assert isinstance(Alert.parse(b"\x02\x74").description, AlertDescription)
    assert Alert.parse(b"\x02\xff").name == "alert_255"


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("level", AlertLevel)
def test_close_notify_is_never_fatal(version: Version, level: AlertLevel):
    alert = Alert(level, AlertDescription.CLOSE_NOTIFY)
    assert alert.is_close
    assert not alert.is_fatal(version)
    assert alert.errno(version) == 0


@pytest.mark.parametrize("version", Version)
def test_user_canceled_announces_a_close_and_is_not_one(version: Version):
    alert = Alert(AlertLevel.WARNING, AlertDescription.USER_CANCELED)
    assert not alert.is_close
    assert not alert.is_fatal(version)


@pytest.mark.parametrize(
    ("version", "level", "fatal"),
    [
        (Version.TLS12, AlertLevel.WARNING, False),
        (Version.TLS12, AlertLevel.FATAL, True),
        (Version.TLS13, AlertLevel.WARNING, True),  # RFC 8446 section 6: the level is ignored
        (Version.TLS13, AlertLevel.FATAL, True),
    ],
)
@pytest.mark.parametrize("description", [AlertDescription.NO_RENEGOTIATION, AlertDescription.DECODE_ERROR, 255])
def test_other_alerts_are_fatal_by_level_in_1_2_and_always_in_1_3(version, level, fatal, description):
    alert = Alert(level, description)
    assert alert.is_fatal(version) is fatal
    assert alert.errno(version) == (errno.ECONNRESET if fatal else 0)


@pytest.mark.parametrize("error", leaves(KtlsError), ids=lambda error: error.__name__)
def test_every_alert_that_our_errors_name_exists(error: type[KtlsError]):
    if error.alert is not None:
        assert AlertDescription(error.alert)


def test_close_notify_is_a_warning_as_the_rfc_writes_it():
    assert CLOSE_NOTIFY.pack() == b"\x01\x00"

"""TLS alerts (RFC 8446 section 6, RFC 5246 section 7.2): two bytes, level and description."""

import errno
from dataclasses import dataclass
from enum import IntEnum

from ktls.ciphers import Version
from ktls.errors import ProtocolError

ALERT_LENGTH = 2
"""Bytes of an alert. Both versions allow only whole ones here: RFC 8446 section 5.1 forbids splitting and joining."""


class AlertLevel(IntEnum):
    """How bad. TLS 1.3 ignores it on all but closing alerts (RFC 8446 section 6)."""

    WARNING = 1
    FATAL = 2


class AlertDescription(IntEnum):
    """What happened, under the RFCs' own names. Those of 1.2 that 1.3 reserves are kept: peers still send them."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    DECRYPTION_FAILED = 21
    RECORD_OVERFLOW = 22
    DECOMPRESSION_FAILURE = 30
    HANDSHAKE_FAILURE = 40
    NO_CERTIFICATE = 41
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    EXPORT_RESTRICTION = 60
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86  # RFC 7507
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    CERTIFICATE_UNOBTAINABLE = 111  # RFC 6066
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    BAD_CERTIFICATE_HASH_VALUE = 114
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


_NAMES = {int(description): description.name.lower() for description in AlertDescription}


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Args:
        level: warning or fatal.
        description: an `AlertDescription`, or the number of one that we do not know: RFC 8446 section 6 has us take it
            for an error, not for a malformed message.
    """

    level: AlertLevel
    description: int

    @classmethod
    def parse(cls, data: bytes) -> "Alert":
        """Read the content of an alert record.

        Raises:
            ProtocolError: not two bytes, or a level that is neither 1 nor 2.

        >>> Alert.parse(bytes([2, 40])).name
        'handshake_failure'
        """
        if len(data) != ALERT_LENGTH:
            raise ProtocolError(f"an alert of {len(data)} bytes, not {ALERT_LENGTH}")
        level, description = data
        if level not in (AlertLevel.WARNING, AlertLevel.FATAL):
            raise ProtocolError(f"an alert of level {level}, neither 1 nor 2")
        known = description in _NAMES
        return cls(AlertLevel(level), AlertDescription(description) if known else description)

    def pack(self) -> bytes:
        """Return the content of an alert record.

        >>> CLOSE_NOTIFY.pack()
        b'\\x01\\x00'
        """
        return bytes([self.level, self.description])

    @property
    def name(self) -> str:
        """The RFC's name, or ``alert_<number>``."""
        return _NAMES.get(self.description, f"alert_{self.description}")

    @property
    def is_close(self) -> bool:
        """Whether the peer will send nothing more, and says so in order."""
        return self.description == AlertDescription.CLOSE_NOTIFY

    def is_fatal(self, version: Version) -> bool:
        """Whether the connection is broken.

        In TLS 1.2 the level decides. In TLS 1.3 all but the closing alerts, close_notify and user_canceled, are fatal
        at whatever level (RFC 8446 section 6).
        """
        if self.description in (AlertDescription.CLOSE_NOTIFY, AlertDescription.USER_CANCELED):
            return False
        return version is Version.TLS13 or self.level is AlertLevel.FATAL

    def errno(self, version: Version) -> int:
        """What a program's read() meets when this alert comes on an established connection.

        Returns:
            0 for one that is not fatal (close_notify is end of file), else ECONNRESET.
        """
        return errno.ECONNRESET if self.is_fatal(version) else 0


CLOSE_NOTIFY = Alert(AlertLevel.WARNING, AlertDescription.CLOSE_NOTIFY)

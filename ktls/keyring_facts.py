"""What a keyring holds, in words and numbers for people and programs. Nothing of a private key but where it is."""

import grp
import pwd
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from ktls.keyring import MALFORMED, SYSTEM
from ktls.keyring_parts import Held, Parts

Facts = dict[str, object]


def keyring_facts(parts: Parts, now: datetime) -> Facts:
    """Tell what a keyring holds.

    Args:
        parts: the keyring, as far as it could be read.
        now: what days are counted from.
    """
    keyring = parts.keyring
    trust = [
        {"from": one, "anchors": None if one == SYSTEM or number not in parts.anchors else len(parts.anchors[number])}
        for number, one in enumerate(keyring.trust)
    ]
    lists = [_list_facts(keyring.crl[number], one) for number, several in parts.crls.items() for one in several]
    return {
        "name": keyring.name,
        "certificates": [_held_facts(held, now) for held in parts.held],
        "system": parts.system,
        "anchors": len(parts.trusted),
        "trust": trust,
        "crls": lists,
    }


def _list_facts(file: Path, one: x509.CertificateRevocationList) -> Facts:
    until = one.next_update_utc
    return {
        "file": str(file),
        "issuer": _text(one, "issuer"),
        "next_update": None if until is None else until.isoformat(),
        "revoked": len(one),
    }


def _held_facts(held: Held, now: datetime) -> Facts:
    return {
        "asked_for": list(held.names),
        "certificate": str(held.certificate),
        "private_key": str(held.private_key),
        **owner_facts(held.private_key),
        "chain": [certificate_facts(one, now) for one in held.chain],
    }


def certificate_facts(certificate: x509.Certificate, now: datetime) -> Facts:
    """Tell what is in a certificate; what cannot be understood is an empty text."""
    return {
        "subject": _text(certificate, "subject"),
        "issuer": _text(certificate, "issuer"),
        "names": names_of(certificate),
        "key": key_words(certificate),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "days_left": (certificate.not_valid_after_utc - now).days,
        "serial": f"{certificate.serial_number:x}",
        "sha256": certificate.fingerprint(SHA256()).hex(),
    }


def key_words(certificate: x509.Certificate) -> str:
    """Say what kind of key a certificate has, as "RSA 2048", "EC secp256r1" or "Ed25519"."""
    try:
        key = certificate.public_key()
    except MALFORMED:
        return "unknown"
    match key:
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey").lstrip("_")


def names_of(certificate: x509.Certificate) -> list[str]:
    """List the names that a certificate is for, as "DNS:a.example"; none where they cannot be understood."""
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *MALFORMED):
        return []
    return [f"{_KINDS.get(type(one), type(one).__name__)}:{_value(one)}" for one in held]


_KINDS: dict[type, str] = {
    x509.DNSName: "DNS",
    x509.IPAddress: "IP",
    x509.UniformResourceIdentifier: "URI",
    x509.RFC822Name: "EMAIL",
}


def _value(name: x509.GeneralName) -> str:
    match name:
        case x509.OtherName():
            return name.type_id.dotted_string
        case x509.DirectoryName():
            return name.value.rfc4514_string()
    return str(name.value)


def owner_facts(path: Path) -> Facts:
    """Tell whose a file is."""
    try:
        status = path.stat()
    except OSError:
        return {"owner": None, "group": None, "mode": None}
    owner, group = _name(status.st_uid, pwd.getpwuid), _name(status.st_gid, grp.getgrgid)
    return {"owner": owner, "group": group, "mode": f"{stat.S_IMODE(status.st_mode):04o}"}


def _name(number: int, look_up: "Callable[[int], pwd.struct_passwd | grp.struct_group]") -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def short_name(certificate: x509.Certificate, which: str) -> str:
    """Return the common name of a subject or issuer, or all of it where it has none."""
    with suppress(*MALFORMED):
        for one in getattr(certificate, which).get_attributes_for_oid(x509.NameOID.COMMON_NAME):
            return str(one.value)
    return _text(certificate, which)


def _text(holder: x509.Certificate | x509.CertificateRevocationList, which: str) -> str:
    try:
        return str(getattr(holder, which).rfc4514_string())
    except MALFORMED:
        return ""

"""A certificate chain as peers look at it: is each certificate the issuer of the one before, and strong enough?"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ktls.keyring import MALFORMED, date_problem
from ktls.keyring_parts import Level

RSA_BITS, CURVE_BITS = 2048, 224
"""What OpenSSL's security level 2 asks for: SSL_CTX_set_security_level(3)."""
WEAK_HASHES = ("md5", "sha1")
SHOWN_MAX = 200
"""Characters of a name that a message shows."""

Problem = tuple[Level, str]


def shown(name: x509.Name) -> str:
    """Write a subject or issuer on one line.

    >>> shown(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.example")]))
    '"CN=a.example"'
    """
    text = name.rfc4514_string()[:SHOWN_MAX]
    return f'"{"".join(letter if letter.isprintable() else "?" for letter in text)}"'


def self_signed(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate is its own issuer."""
    return certificate.issuer == certificate.subject and issued(certificate, certificate)


def issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Tell whether one certificate has signed another. What is signed so weakly that nobody checks goes by the name."""
    if _hash_of(certificate) in WEAK_HASHES:
        return certificate.issuer == issuer.subject
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*MALFORMED, InvalidSignature):  # other names, other key, unknown algorithm
        return False
    return True


def _hash_of(certificate: x509.Certificate) -> str:
    """Name the hash of a signature; empty where it has none of its own, as Ed25519, or an unknown one."""
    try:
        used = certificate.signature_hash_algorithm
    except MALFORMED:
        return ""
    return "" if used is None else used.name


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate may issue others (RFC 5280 section 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *MALFORMED):
        return False


def path_of(chain: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Follow issuers from the leaf as far as a file's certificates go, whatever their order."""
    path, others = [chain[0]], list(chain[1:])
    while not self_signed(path[-1]):
        issuer = next((one for one in others if one not in path and issued(one, path[-1])), None)
        if issuer is None:
            break
        path.append(issuer)
    return path


def chain_problems(
    chain: Sequence[x509.Certificate], now: datetime, days: int, known: Callable[[x509.Certificate], bool]
) -> Iterator[Problem]:
    """Look for what peers will refuse in a chain.

    Args:
        chain: as in the file, the leaf first.
        now: the time.
        days: warn of what expires within so many.
        known: tells whether an anchor that we know of is the issuer of a certificate.
    """
    path = path_of(chain)
    yield from _shape(chain, path, known)
    for certificate in path:
        name = "" if certificate is chain[0] else f"{shown(certificate.subject)} "
        yield from dated(certificate, name, now, days)
        yield from _strength(certificate, name)
        if certificate is not chain[0] and not self_signed(certificate) and not is_authority(certificate):
            yield "error", f"{name}issues others and is no authority's certificate: its basic constraints do not say so"


def _shape(
    chain: Sequence[x509.Certificate], path: list[x509.Certificate], known: Callable[[x509.Certificate], bool]
) -> Iterator[Problem]:
    rest = list(chain)
    for certificate in path:
        rest.remove(certificate)
    last = path[-1]
    order = [chain.index(certificate) for certificate in path]
    if order != sorted(order):
        yield "error", "is in the wrong order: each certificate is to be followed by its issuer"
    if self_signed(last):
        if last is chain[0]:
            yield "warning", "is self-signed: only peers with this very certificate in their trust take it"
    elif not known(last):
        issuer = shown(last.issuer)
        false = any(one.subject == last.issuer for one in rest)
        if false:
            yield "error", f"the certificate of {issuer} in it is not the one that issued {shown(last.subject)}"
        elif rest:
            yield "error", f"the issuer of {shown(last.subject)} is missing: {issuer}"
        else:
            what = f"ends at {shown(last.subject)}, whose issuer {issuer} is no anchor that is known here"
            yield "warning", f"{what}: is an intermediate certificate missing?"
    for certificate in rest:
        why = "is there twice" if certificate in path else "is superfluous: it is no issuer of the others"
        yield "warning", f"{shown(certificate.subject)} {why}"


def dated(certificate: x509.Certificate, name: str, now: datetime, days: int) -> Iterator[Problem]:
    """Look at the dates of a certificate; `name` is what stands in front, with a space."""
    if problem := date_problem(certificate, now):
        yield "error", name + problem
    elif certificate.not_valid_after_utc - now < timedelta(days):
        left = (certificate.not_valid_after_utc - now).days
        yield "warning", f"{name}expires on {certificate.not_valid_after_utc:%Y-%m-%d}, {in_days(left)}"


def in_days(number: int) -> str:
    """Say how far away.

    >>> in_days(0), in_days(1)
    ('in less than a day', 'in 1 day')
    """
    return "in less than a day" if number == 0 else f"in {number} day{'' if number == 1 else 's'}"


def _strength(certificate: x509.Certificate, name: str) -> Iterator[Problem]:
    try:
        key = certificate.public_key()
    except MALFORMED:  # told where it is compared with the private key
        return
    match key:
        case rsa.RSAPublicKey() if key.key_size < RSA_BITS:
            yield "error", f"{name}has an RSA key of {key.key_size} bits: {RSA_BITS} are the least"
        case ec.EllipticCurvePublicKey() if key.key_size < CURVE_BITS:
            yield "error", f"{name}has a key on a curve of {key.key_size} bits: {CURVE_BITS} are the least"
    # Nobody relies on the signature of one that signs itself.
    if (used := _hash_of(certificate)) in WEAK_HASHES and not self_signed(certificate):
        yield "error", f"{name}is signed with {used.upper()}, which is broken"

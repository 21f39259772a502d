"""Who is at the other end: is this certificate for the name we wanted, or for one of the identities a rule allows?

1. Chain, dates and revocation are OpenSSL's business; here only names and digests are compared.
2. Certificates come from the peer, and parsers raise what they like on hostile ones: service-identity and cryptography
   have been seen to raise bare ValueErrors. Whatever is raised here means "not verified". There is no third outcome.
3. A server's name is checked as RFC 9525 says (service-identity does). Identities are compared exactly: a SPIFFE id or
   a digest is no pattern, and a wildcard in the *certificate* is no proof of being one host among many.
"""

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from ktls.errors import CertificateRejected, NameMismatch, UsageError

NAMES_SHOWN = 5
"""Names of a certificate that an error quotes; a hostile one may carry thousands."""

MAX_HOST_NAME = 253
"""Characters of a host name (RFC 1035 section 2.3.4)."""

Kind = Literal["DNS", "URI", "IP", "EMAIL", "SHA256"]
"""What an identity may be."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who may be at the other end.

    Args:
        kind: what `value` is.
        value: DNS: a lower-case name, whose first label may be "*" for any one label; URI: compared byte for byte;
            IP: canonical text of an address; EMAIL: a mailbox, its domain in lower case;
            SHA256: lower-case hex of the digest of the certificate in DER.
    """

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


def parse_identity(text: str) -> Identity:
    """Read an identity as a rule has it. Letters' case matters in a URI and before the "@" alone, colons in no digest.

    Raises:
        UsageError: a kind that is not known, or a value that cannot be one.

    >>> str(parse_identity("dns:*.App.example"))
    'DNS:*.app.example'
    """
    prefix, _, value = text.partition(":")
    kind = next((known for known in get_args(Kind) if known == prefix.upper()), None)
    if kind is None or not value:
        permitted = "DNS:name, URI:uri, IP:address, EMAIL:mailbox, SHA256:digest"
        raise UsageError(f"{text!r} is no identity", hint=f"one of {permitted}")
    return Identity(kind, _VALUES[kind](text, value))


def _dns(text: str, value: str) -> str:
    name = value.lower().rstrip(".")
    labels = name.split(".")
    if not all(labels) or "*" in "".join(labels[1:]) or ("*" in labels[0] and (labels[0] != "*" or len(labels) == 1)):
        raise UsageError(f"{text!r}: '*' can only stand for the whole first label, and no label is empty")
    return name


def _ip(text: str, value: str) -> str:
    address = as_address(value)
    if address is None:
        raise UsageError(f"{text!r} holds no IP address")
    return str(address)


def _mailbox(text: str, value: str) -> str:
    """RFC 5280 section 7.5: the local part is compared as it is, the domain without regard to case."""
    local, at, domain = value.rpartition("@")
    if not (local and domain) or "*" in value:
        raise UsageError(f"{text!r} holds no mailbox, as app@example.com")
    return f"{local}{at}{domain.lower()}"


def _digest(text: str, value: str) -> str:
    digest = value.replace(":", "").lower()
    if len(digest) != 2 * SHA256.digest_size or set(digest) - set("0123456789abcdef"):
        raise UsageError(f"{text!r}: a SHA-256 digest is {2 * SHA256.digest_size} hex digits")
    return digest


_VALUES: dict[Kind, Callable[[str, str], str]] = {
    "DNS": _dns,
    "URI": lambda _, value: value,
    "IP": _ip,
    "EMAIL": _mailbox,
    "SHA256": _digest,
}


def as_address(name: str) -> IpAddress | None:
    """Return the IP address that `name` is, without its zone, IPv4-mapped ones as IPv4; None if it is a host name.

    >>> as_address("::ffff:192.0.2.1"), as_address("fe80::1%eth0"), as_address("a.example")
    (IPv4Address('192.0.2.1'), IPv6Address('fe80::1'), None)
    """
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def host_name(name: str) -> str | None:
    """Return the name as SNI and certificates have it (RFC 6066 section 3): ASCII, without final dot.

    Returns:
        None for an IP address, which cannot be in SNI.

    Raises:
        UsageError: it cannot be a host name.

    >>> host_name("bücher.example."), host_name("192.0.2.1")
    ('xn--bcher-kva.example', None)
    """
    if as_address(name) is not None:
        return None
    name = name.removesuffix(".")
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise UsageError(f"{name!r} is no host name: {error}") from error
    if not 0 < len(ascii_name) <= MAX_HOST_NAME or not ascii_name.isprintable() or " " in ascii_name:
        raise UsageError(f"{name!r} is no host name")
    return ascii_name


def parse_certificate(der: bytes) -> x509.Certificate:
    """Take a peer's certificate apart.

    Raises:
        CertificateRejected: it breaks the rules of X.509 or ASN.1.
    """
    try:
        return x509.load_der_x509_certificate(der)
    except Exception as error:  # rule 2 at the top
        raise CertificateRejected(f"the peer's certificate cannot be parsed: {error}") from error


def check_server_name(certificate: x509.Certificate, name: str) -> None:
    """Check that a server's certificate is for the name or address that we meant to reach (RFC 9525 section 6).

    Args:
        certificate: the leaf.
        name: a host name, with or without a final dot, or an IP address. An address needs an IP address in the
            certificate; the subject's common name counts for nothing.

    Raises:
        NameMismatch: it is for others, or cannot be understood.
    """
    address = as_address(name)
    try:
        if address is None:
            verify_certificate_hostname(certificate, name.removesuffix("."))
        else:
            verify_certificate_ip_address(certificate, str(address))
    except Exception as error:  # rule 2 at the top
        raise NameMismatch(f"the certificate is not for {name!r} but for {_describe(certificate)}") from error


def check_identities(certificate: x509.Certificate, wanted: tuple[Identity | str, ...]) -> None:
    """Check that a certificate is one of the identities that are allowed. Nobody is wanted: everybody may.

    Args:
        certificate: the leaf. Names in it mean something only if its chain was verified, a digest always does.
        wanted: identities, or texts for `parse_identity`; any one suffices.

    Raises:
        NameMismatch: it is none of them, or cannot be understood.
        UsageError: a text that is no identity.
    """
    identities = [parse_identity(one) if isinstance(one, str) else one for one in wanted]
    if not identities:
        return
    cause: Exception | None = None
    try:
        held = set(_held(certificate))
        if any(_is_held(identity, held) for identity in identities):
            return
    except Exception as error:  # rule 2 at the top
        cause = error
    allowed = ", ".join(map(str, identities))
    raise NameMismatch(f"the certificate is none of {allowed} but for {_describe(certificate)}") from cause


def mapped_user(certificate: x509.Certificate, users: tuple[tuple[Identity, str], ...]) -> str:
    """Return the local user that a certificate is mapped to: that of the first identity which it is a proof of.

    Args:
        certificate: the leaf, of a chain that was verified.
        users: identities and who they are here.

    Raises:
        NameMismatch: nobody, or it cannot be understood.
    """
    cause: Exception | None = None
    try:
        held = set(_held(certificate))
        for identity, user in users:
            if _is_held(identity, held):
                return user
    except Exception as error:  # rule 2 at the top
        cause = error
    raise NameMismatch(f"no local user is mapped to the certificate for {_describe(certificate)}") from cause


def _is_held(identity: Identity, held: set[Identity]) -> bool:
    if identity in held:
        return True
    if identity.kind != "DNS" or not identity.value.startswith("*."):
        return False
    parent = identity.value[2:]
    return any(one.kind == "DNS" and one.value.partition(".")[2] == parent for one in held)


def _held(certificate: x509.Certificate) -> Iterator[Identity]:
    """The identities that a certificate is a proof of."""
    yield Identity("SHA256", certificate.fingerprint(SHA256()).hex())
    names = _alternative_names(certificate)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    # The X.509-SVID standard, section 2: exactly one URI; one with more is no proof of a SPIFFE id.
    yield from (Identity("URI", uri) for uri in uris if len(uris) == 1 or not uri.lower().startswith("spiffe:"))
    yield from (Identity("DNS", name.lower().rstrip(".")) for name in names.get_values_for_type(x509.DNSName))
    mailboxes = names.get_values_for_type(x509.RFC822Name)
    yield from (Identity("EMAIL", _mailbox(name, name)) for name in mailboxes if "*" not in name and "@" in name[1:-1])
    yield from (Identity("IP", str(address)) for address in names.get_values_for_type(x509.IPAddress))


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _describe(certificate: x509.Certificate) -> str:
    """The certificate's names for an error. Peers write them, so they are quoted and few."""
    try:
        names = [str(name.value) for name in _alternative_names(certificate)]
    except Exception:  # rule 2 at the top
        return "names that cannot be parsed"
    shown = ", ".join(repr(name[:253]) for name in names[:NAMES_SHOWN])
    return (shown or "no name") + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")

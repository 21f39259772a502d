"""Certificates of every kind, and the files that hold them."""

import datetime
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
LATER = NOW + datetime.timedelta(hours=1)
"""When checks are made: openssl's certificates begin when they are made."""


@dataclass(frozen=True)
class Made:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def make(
    name: str,
    issuer: Made | None = None,
    *,
    days: tuple[float, float] = (-1, 90),
    names: Sequence[str] = (),
    key: Any = None,
) -> Made:
    """Make a certificate: an authority's where it has no names.

    Args:
        name: common name of the subject.
        issuer: None for one that signs itself.
        days: from now, between which it is valid.
        names: DNS names of a leaf.
        key: of the kind wanted.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
    signer = issuer.key if issuer else key
    return Made(builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()), key)


def make_sha1(folder: Path, name: str, issuer: Made) -> Made:
    """Make a certificate with a signature of SHA-1, which cryptography does not make."""
    made = make(name, issuer, names=[name])
    request = x509.CertificateSigningRequestBuilder().subject_name(made.certificate.subject)
    (folder / "sha1.csr").write_bytes(request.sign(made.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    write_chain(folder / "sha1-ca.pem", issuer)
    write_key(folder / "sha1-ca.key", issuer)
    words = "openssl x509 -req -sha1 -days 90 -in sha1.csr -CA sha1-ca.pem -CAkey sha1-ca.key -set_serial 7"
    done = subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)
    return Made(x509.load_pem_x509_certificate(done.stdout), made.key)


def make_list(
    issuer: Made, *, days: tuple[float, float] = (-1, 1), key: Any = None, revoked: Sequence[x509.Certificate] = ()
) -> bytes:
    """Make a revocation list, PEM; with another key, one that the issuer has not signed."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(NOW + days[0] * DAY)
        .next_update(NOW + days[1] * DAY)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(NOW - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key or issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def write_chain(path: Path, *chain: Made) -> Path:
    """Write certificates to a file."""
    path.write_bytes(b"".join(one.pem for one in chain))
    return path


def write_key(path: Path, of: Made) -> Path:
    """Write a key to a file that nobody else may read."""
    path.write_bytes(of.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path

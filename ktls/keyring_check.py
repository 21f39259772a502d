"""Everything that is wrong with a keyring, or soon will be.

1. An error keeps the keyring from being opened, or connections under it from working. A warning may be meant.
2. `trust` is for peers. That our own chain reaches none of its anchors, nor one of the system's, is a warning: whom
   the peers trust is not known here.
3. A revocation list by somebody who is no anchor is a warning too: it may be that of an intermediate authority, whose
   certificate peers bring with them. Where the system's store counts it is not asked.
4. OpenSSL is asked last, and only where nothing is known to be wrong: it says less about more.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cryptography import x509

from ktls.chains import chain_problems, dated, is_authority, shown
from ktls.contexts import try_keyring, vouched_for
from ktls.errors import KeyringError, NameMismatch
from ktls.identity import check_server_name
from ktls.keyring import MALFORMED, SYSTEM, key_problem, open_keyring
from ktls.keyring_parts import Finding, Held, Key, Level, Parts

LINKS_SHOWN = 5
"""Links to nothing that are named of one directory."""


def check_keyring(parts: Parts, now: datetime, days: int) -> tuple[Finding, ...]:
    """Look for what is wrong.

    Args:
        parts: the keyring, read.
        now: the time.
        days: warn of what expires within so many.
    """
    found = list(parts.findings)
    for held in parts.held:
        found += _understood(held.at("certificate"), f"{held.certificate}: ", _held(held, parts, now, days))
    found += _understood(("trust",), "", _trust(parts, now, days))
    found += _understood(("crl",), "", _lists(parts, now))
    found += _permissions(parts)
    if not any(finding.level == "error" for finding in found):
        try:
            try_keyring(parts.keyring.name, open_keyring(parts.keyring))
        except KeyringError as error:
            found.append(Finding("error", (), error.message.removeprefix(f"keyring {parts.keyring.name!r}: ")))
    return tuple(found)


def _understood(key: Key, place: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except MALFORMED as error:
        yield Finding("error", key, f"{place}cannot be understood: {error}")


def _held(held: Held, parts: Parts, now: datetime, days: int) -> Iterator[Finding]:
    if not held.chain:
        return
    key, file = held.at("certificate"), held.certificate
    if held.private is not None and (problem := key_problem(held.chain[0], held.private)):
        yield Finding("error", held.at("private_key"), f"{held.private_key}: {problem} in {file}")
    for level, what in chain_problems(held.chain, now, days, lambda last: vouched_for(last, parts.trusted)):
        yield Finding(level, key, f"{file}: {what}")
    for name in held.names:
        if not _is_for(held.chain[0], name):
            yield Finding("error", (*held.key, "names"), f'{file}: is not for "{name}"')


def _is_for(leaf: x509.Certificate, name: str) -> bool:
    if not name.startswith("*."):
        try:
            check_server_name(leaf, name)
        except NameMismatch:
            return False
        return True
    with suppress(x509.ExtensionNotFound):
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return name.lower() in (one.lower() for one in alternatives.get_values_for_type(x509.DNSName))
    return False


# --- trust -----------------------------------------------------------------------------------------------------------


def _trust(parts: Parts, now: datetime, days: int) -> Iterator[Finding]:
    trust = parts.keyring.trust
    expired = 0
    for number, anchors in parts.anchors.items():
        for anchor in anchors:
            for level, what in dated(anchor, f"{shown(anchor.subject)} ", now, days):
                expired += level == "error"
                yield Finding("warning", ("trust", number), f"{trust[number]}: {what}")
        if trust[number] != SYSTEM:
            yield from _links(Path(trust[number]), number)
    if parts.system or len(parts.anchors) < len(trust):  # what could not be read has been told
        return
    if not parts.trusted:
        yield Finding("error", ("trust",), "trusts nobody: there is no anchor")
    elif expired == len(parts.trusted):
        yield Finding("error", ("trust",), "trusts nobody: none of its anchors is valid now")


def _links(path: Path, number: int) -> Iterator[Finding]:
    """Find links in a directory of anchors that lead nowhere: they are passed over when it is read."""
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name) if path.is_dir() else []
    except OSError:  # told when it was read
        return
    shown_links = 0
    for entry in entries:
        if not entry.is_symlink() or shown_links == LINKS_SHOWN:
            continue
        try:
            Path(entry.path).stat()
        except OSError as error:
            shown_links += 1
            why = "its symbolic links form a loop" if error.errno == errno.ELOOP else error.strerror
            yield Finding("warning", ("trust", number), f"{entry.path}: is passed over: {why}")


def _lists(parts: Parts, now: datetime) -> Iterator[Finding]:
    authorities = [*parts.trusted, *(issuer for held in parts.held for issuer in held.chain[1:])]
    issuers = set()
    for number, lists in parts.crls.items():
        file = parts.keyring.crl[number]
        for one in lists:
            issuers.add(one.issuer)
            for level, what in _one_list(one, authorities, parts, now):
                yield Finding(level, ("crl", number), f"{file}: the list of {shown(one.issuer)} {what}")
    if not parts.crls or len(parts.crls) < len(parts.keyring.crl):
        return
    for anchor in dict.fromkeys(parts.trusted):
        if anchor.subject not in issuers and is_authority(anchor):
            what = f"{shown(anchor.subject)} is trusted and has no list: whoever it vouches for is refused"
            yield Finding("warning", ("crl",), what)


def _one_list(
    one: x509.CertificateRevocationList, authorities: list[x509.Certificate], parts: Parts, now: datetime
) -> Iterator[tuple[Level, str]]:
    if one.next_update_utc is not None and now > one.next_update_utc:
        yield "error", f"expired on {one.next_update_utc:%Y-%m-%d}: every peer is refused"
    elif now < one.last_update_utc:
        yield "error", f"is not valid before {one.last_update_utc:%Y-%m-%d}"
    named = [authority for authority in authorities if authority.subject == one.issuer]
    if not named and not parts.system:
        yield "warning", "is by an unknown issuer: no anchor has that name"
    elif named and not any(_signed(one, authority) for authority in named):
        yield "error", "is not signed by the anchor of that name"


def _signed(one: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return one.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # TypeError for other keys
    except MALFORMED:
        return False


# --- files -----------------------------------------------------------------------------------------------------------


def _permissions(parts: Parts) -> Iterator[Finding]:
    """Find secrets that others than their owner can read or write."""
    secrets = {held.private_key: held.at("private_key") for held in parts.held}
    if parts.keyring.password_file is not None:
        secrets.setdefault(parts.keyring.password_file, ("password_file",))
    for path, key in secrets.items():
        with suppress(OSError):  # told when it was read
            if who := others(stat.S_IMODE(path.stat().st_mode)):
                yield Finding("warning", key, f"{path}: is open to {who}: chmod 600 {path}")


def others(mode: int) -> str:
    """Say who but its owner can read or write a file; nothing if nobody can.

    >>> others(0o640), others(0o604), others(0o600)
    ('its group', 'everybody', '')
    """
    if mode & 0o006:
        return "everybody"
    return "its group" if mode & 0o060 else ""

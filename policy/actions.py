"""The [action.*] tables, and actions written inside a rule: how a connection is protected."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

from ktls.errors import PolicyError
from policy.checks import Check, Node, choice, each, flag, integer, of_text, seconds, similar, text
from policy.identities import Keyring, UserMapping
from policy.model import Action, Rekey, Resumption
from policy.names import certificate_name, host_name, host_or_address
from policy.problems import quote, refuse
from policy.values import plain_address

# The suites Linux takes keys of, and the version each belongs to; the same as the rows of ktls.ciphers, says a test.
CIPHERS: Mapping[str, str] = {
    "TLS_AES_256_GCM_SHA384": "1.3",
    "TLS_CHACHA20_POLY1305_SHA256": "1.3",
    "TLS_AES_128_GCM_SHA256": "1.3",
    "TLS_AES_128_CCM_SHA256": "1.3",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "1.2",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "1.2",
    "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384": "1.2",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "1.2",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "1.2",
    "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "1.2",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "1.2",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "1.2",
    "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256": "1.2",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CCM": "1.2",
    "TLS_DHE_RSA_WITH_AES_128_CCM": "1.2",
}
ALPN_MAX = 255  # bytes of one protocol name (RFC 7301 section 3.1)
TICKET_LIFETIME_MAX = 604_800  # seconds, a week (RFC 8446 section 4.6.1)
RECORDS_MAX = 23_726_566  # 2**24.5, after which AES-GCM is due for a new key (RFC 8446 section 5.5)
REKEY_SECONDS_MAX = 31_536_000  # a year
HANDSHAKE_SECONDS = (0.1, 3600)

_TYPES = get_type_hints(Action)  # the words a key may have are those of its field


@dataclass(frozen=True, slots=True)
class ReadAction:
    """An action with what it was read from, for the checks of the rules that use it."""

    action: Action
    node: Node


@dataclass(frozen=True, slots=True)
class Means:
    """What actions refer to.

    Args:
        keyrings: by name.
        users: who is which local user.
        base: the absolute directory that relative paths start from.
    """

    keyrings: Mapping[str, Keyring]
    users: tuple[UserMapping, ...]
    base: Path


def read_actions(root: Node, means: Means) -> dict[str, ReadAction]:
    """Read all named actions.

    Args:
        root: the value of "action".
        means: what they refer to.

    Returns:
        By name; one with problems is there too, so that rules that use it are not said to dangle.

    Raises:
        PolicyError: it is no table of tables.
    """
    actions: dict[str, ReadAction] = {}
    for name, value in root.table().items():
        node = root.child(name, value=value).called(f"[action.{name}]" if name.isprintable() else "[action]")
        try:
            actions[name] = read_action(node, name, means)
        except PolicyError as error:
            node.problem(f"{error.message}; an action is written [action.NAME]")
            actions[name] = ReadAction(Action(name), node.child(value={}))
    return actions


def read_action(node: Node, name: str, means: Means) -> ReadAction:
    """Read one action.

    Args:
        node: its table.
        name: empty for one inside a rule.
        means: what it refers to.

    Raises:
        PolicyError: it is no table.
    """
    values = node.read(_checks(means.keyrings, means.base))
    if values.get("client_auth") == "map":
        values["users"] = means.users
    action = Action(name, **values)  # type: ignore[arg-type]  # the table of checks has the fields' types
    if action.min_version > action.max_version:
        node.problem(f"{quote(action.min_version)} is above max_version, {quote(action.max_version)}", "min_version")
    elif action.ciphers and not any(
        action.min_version <= CIPHERS[cipher] <= action.max_version for cipher in action.ciphers
    ):
        versions = f"{action.min_version} to {action.max_version}"
        node.problem(f"none of these is of a version that is permitted, TLS {versions}", "ciphers")
    return ReadAction(action, node)


def _checks(keyrings: Mapping[str, Keyring], base: Path) -> Mapping[str, Check]:
    def keyring(node: Node) -> Keyring:
        name = text(node)
        if name not in keyrings:
            near = similar(name, keyrings)
            refuse(name, f"is not a keyring of this file{f'; did you mean {quote(near)}?' if near else ''}")
        return keyrings[name]

    def keylog(node: Node) -> Path | None:
        return None if node.value == "" else base / text(node)

    return {
        "keyring": keyring,
        "role": _one_of("role"),
        "min_version": _one_of("min_version"),
        "max_version": _one_of("max_version"),
        "ciphers": each(_cipher),
        "alpn": each(of_text(_alpn)),
        "verify": _one_of("verify"),
        "peer_name": of_text(host_or_address),
        "client_auth": _one_of("client_auth"),
        "peer_identities": each(of_text(peer_identity)),
        "handshake_timeout": seconds(*HANDSHAKE_SECONDS),
        "allow_clear_on_timeout": flag,
        "engine": _one_of("engine"),
        "application_controlled": flag,
        "negotiate": _one_of("negotiate"),
        "already_tls": _one_of("already_tls"),
        "resumption": _resumption,
        "rekey": _rekey,
        "on_change": _one_of("on_change"),
        "secondary": flag,
        "eof": _one_of("eof"),
        "keylog": keylog,
    }


def _one_of(key: str) -> Callable[[Node], str]:
    return choice(*get_args(_TYPES[key]))


def _resumption(node: Node) -> Resumption:
    lifetime = integer(1, TICKET_LIFETIME_MAX, "seconds")
    values = node.read({"tickets": flag, "lifetime": lifetime})
    return Resumption(**values)  # type: ignore[arg-type]  # the table of checks has the fields' types


def _rekey(node: Node) -> Rekey:
    values = node.read({"records": integer(1, RECORDS_MAX), "seconds": integer(0, REKEY_SECONDS_MAX)})
    return Rekey(**values)  # type: ignore[arg-type]  # the table of checks has the fields' types


def _cipher(node: Node) -> str:
    value = text(node)
    if value not in CIPHERS:
        near = similar(value.replace("-", "_"), {name.lower(): name for name in CIPHERS})
        meant = f"did you mean {near.upper()}?" if near else f"permitted: {', '.join(CIPHERS)}"
        refuse(value, f"is not the IANA name of a cipher suite that can be used; {meant}")
    return value


def _alpn(value: str) -> str:
    if not (value.isascii() and value.isprintable() and len(value) <= ALPN_MAX):
        refuse(value, f'is not a protocol name, as "http/1.1": 1 to {ALPN_MAX} printable ASCII characters')
    return value


# --- who may be at the other end -------------------------------------------------------------------------------------

_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]+", re.IGNORECASE)  # RFC 3986 section 3: a scheme, and no space anywhere
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'+/=?^_`{|}~.-]{1,64}")  # RFC 5321 section 4.5.3.1.1, without quotes and "*"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def peer_identity(value: str) -> str:
    """Read one identity.

    Args:
        value: kind, colon, and what a certificate of that kind of name carries.

    Returns:
        The same, with names and fingerprints in one spelling.

    Raises:
        PolicyError: it is none.

    >>> peer_identity("DNS:*.App.example")
    'DNS:*.app.example'
    """
    kind, _, rest = value.partition(":")
    plain = rest.replace(":", "").lower()
    local, at, domain = rest.rpartition("@")
    match kind:
        case "DNS":
            return f"DNS:{certificate_name(rest)}"
        case "IP":
            return f"IP:{plain_address(rest)}"
        case "EMAIL" if _LOCAL_PART.fullmatch(local):
            return f"EMAIL:{local}{at}{host_name(domain)}"
        case "URI" if _URI.fullmatch(rest):
            return value
        case "SHA256" if _SHA256.fullmatch(plain):
            return f"SHA256:{plain}"
    permitted = '"DNS:host", "IP:address", "EMAIL:mailbox", "URI:scheme:rest", "SHA256:hex"'
    raise PolicyError(f"{quote(value)} is not an identity: {permitted}")

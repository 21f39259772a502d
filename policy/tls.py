"""What a rule with the verdict "tls" needs of its action: each may be right alone, and both together wrong.

All of these are refused when the policy is loaded, so that no connection has to find out.
"""

from collections.abc import Iterator

from policy.actions import ReadAction
from policy.checks import Node
from policy.identities import SYSTEM
from policy.model import Action, Match
from policy.problems import quote

NOT_YET: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("application_controlled", (True,)),
    ("negotiate", ("smtp", "ftp", "postgres", "ldap", "xmpp")),
    ("already_tls", ("adopt",)),
)
"""Keys of the language whose work is still to come, with the values that ask for it."""


def check_tls_rule(rule: Node, match: Match, used: ReadAction) -> None:
    """Note what is wrong with a rule and its action together.

    The line is that of the key in the action, or where the rule names the action if the key is not there; the rule is
    the one that is not possible, since the same action may do for another.

    Args:
        rule: the rule.
        match: what it is about.
        used: its action.
    """
    action, written = used.action, used.node
    for key, what in (*_not_yet(action), *_server(match, action), *_client(match, action)):
        at = (*written.place, key) if key in written.table() else (*rule.place, "action")
        called = f"action {quote(action.name)} {key}" if action.name else f"action.{key}"
        rule.problems.add(rule.positions.line(at), rule.where, called, what)


_Found = Iterator[tuple[str, str]]  # key of the action, and what is wrong


def _not_yet(action: Action) -> _Found:
    for key, wanting in NOT_YET:
        value = getattr(action, key)
        if value in wanting:
            default = Action.__dataclass_fields__[key].default
            yield key, f"{quote(value)} is not available yet; permitted for now: {quote(default)}, the default"


def _server(match: Match, action: Action) -> _Found:
    if action.role == "client" or (action.role == "auto" and match.direction == "outbound"):
        return
    both = match.direction is None and action.role == "auto"
    if action.keyring.certificate is None and action.keyring.pkcs12 is None:
        hint = '; a rule for clients only says direction = "outbound"' if both else ""
        yield "keyring", f"a server needs a keyring with a certificate and private_key{hint}"
    if action.client_auth == "map" and not action.users:
        yield "client_auth", '"map" needs [[map]] tables: without one nobody is let in'
    checked = action.client_auth in ("full", "required", "map")
    if checked and SYSTEM in action.keyring.trust and not action.peer_identities and not action.users:
        yield (
            "client_auth",
            "the system's trust lets in whoever holds any public certificate: name your clients' issuers in the"
            " keyring's trust, or the clients in peer_identities",
        )
    if action.peer_identities and not checked and not both:
        yield "peer_identities", f'are not looked at with client_auth = {quote(action.client_auth)}: use "required"'


def _client(match: Match, action: Action) -> _Found:
    if action.role == "server" or (action.role == "auto" and match.direction == "inbound"):
        return
    unproven = [identity for identity in action.peer_identities if not identity.startswith("SHA256:")]
    if action.verify == "none" and unproven:
        yield "peer_identities", f'nobody vouches for {quote(unproven[0])} with verify = "none": use "chain"'

"""The decision: the first rule that fits, else the default."""

from dataclasses import dataclass

from policy.match import Subject, subject
from policy.model import Action, Facts, Policy, Verdict
from policy.problems import quote


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy says about a connection. It is made once and kept for as long as the connection lives.

    Args:
        verdict: tls, clear or deny.
        action: how, when the verdict is tls.
        rule: the name of the rule that decided; None for the default.
        reason: one sentence for people.
        revision: of the policy.
    """

    verdict: Verdict
    action: Action | None
    rule: str | None
    reason: str
    revision: str


def decide(policy: Policy, facts: Facts) -> Decision:
    """Decide about a connection.

    Args:
        policy: the first of its rules that fits decides.
        facts: of the connection. One whose other end has no address any more is denied: a rule about addresses cannot
            be tried, and what the peer sent in clear before it went could still be read.

    Raises:
        UsageError: the facts are not usable: a time without zone.
    """
    has = subject(facts)
    if has.remote is None:
        reason = "the remote address is not known, so no rule can be tried"
        return Decision(Verdict.DENY, None, None, reason, policy.revision)
    rule = policy.classifier.first(has)
    if rule is not None:
        action = rule.action if rule.verdict is Verdict.TLS else None
        reason = f"rule {quote(rule.name)} fits {_connection(has)}"
        return Decision(rule.verdict, action, rule.name, reason, policy.revision)
    reason = f"no rule fits {_connection(has)}; the default is {policy.default}"
    return Decision(policy.default, None, None, reason, policy.revision)


def _connection(has: Subject) -> str:
    """Call a connection by what everybody knows of it, as 'outbound to db.example (192.0.2.5) port 5432'."""
    address, port = has.facts.remote
    if has.direction == "inbound":
        return f"inbound from {address}" + (f" to port {has.local_port}" if has.local_port is not None else "")
    name = has.remote_name
    return f"outbound to {f'{quote(name)[1:-1]} ({address})' if name else address} port {port}"

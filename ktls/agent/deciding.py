"""What policy says about a connection that was asked about."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ktls.agent.asked import Asked
from ktls.agent.firsts import First, Firsts, inode_of
from ktls.agent.messages import RequestKind, VerdictCode
from ktls.agent.parameters import role_of
from ktls.ciphers import Role
from policy.decide import Decision, decide
from policy.model import Endpoint, Facts, Policy


@dataclass(frozen=True, slots=True)
class Decided:
    """What becomes of a connection.

    Args:
        decision: of the policy.
        role: our side of the handshake, if there is to be one.
        name: whom the server's certificate must name, as far as the program has said it.
        first: the connection that this one goes with.
    """

    decision: Decision
    role: Role | None
    name: str | None
    first: First | None = None

    @property
    def code(self) -> VerdictCode:
        """Return what the shim is told."""
        return VerdictCode[self.decision.verdict.name] if self.first is None else VerdictCode.SECONDARY

    def facts(self) -> dict[str, object]:
        """Return what the report says."""
        said = self.decision
        return {"rule": said.rule, "verdict": str(said.verdict), "reason": said.reason, "policy": said.revision}

    def as_first(self, asked: Asked, number: int) -> First | None:
        """Return what others go with while this connection lives, if its rule says so."""
        action = self.decision.action
        if action is None or not action.secondary or self.role is None or self.first is not None:
            return None
        return First(number, asked.program.pid, inode_of(asked.r.fileno()), self.decision, self.role, self.name)


def decide_asked(
    policy: Policy, asked: Asked, local: Endpoint, remote: Endpoint, name: str | None, firsts: Firsts
) -> Decided:
    """Decide: as the connection that this one goes with, or by the rules.

    Args:
        policy: the agent's.
        asked: the request.
        local: our end.
        remote: the other end.
        name: what the program resolved to it.
        firsts: connections that others go with.
    """
    first = firsts.of(asked.program, remote[0])
    if first is not None:
        decision = replace(first.decision, reason=f"goes with connection {first.number}: {first.decision.reason}")
        return Decided(decision, first.role, first.name, first)
    decision = by_rules(policy, asked, local, remote, name)
    connecting = asked.request.kind is RequestKind.CONNECT
    return Decided(decision, role_of(decision.action, connecting=connecting) if decision.action else None, name)


def by_rules(policy: Policy, asked: Asked, local: Endpoint, remote: Endpoint, name: str | None) -> Decision:
    """Decide by the rules, with what the request and the kernel say of the connection and its program."""
    program = asked.program
    facts = Facts(
        direction="outbound" if asked.request.kind is RequestKind.CONNECT else "inbound",
        local=local,
        remote=remote,
        remote_name=name,
        program=program.path,
        user=program.user,
        uid=program.uid,
        gid=program.gid,
        groups=program.groups,
        group_names=program.group_names,
        unit=program.unit,
        when=datetime.now(UTC),
    )
    return decide(policy, facts)

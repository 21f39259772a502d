"""What policy is told of a connection that was asked about, and what is remembered of its decision."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ktls.agent.asked import Asked
from ktls.agent.firsts import First, Firsts, inode_of
from ktls.agent.messages import RequestKind, VerdictCode
from ktls.agent.parameters import role_of
from ktls.ciphers import Role
from policy.decide import Decision, decide
from policy.model import Action, Endpoint, Facts, Policy


@dataclass(frozen=True, slots=True)
class Decided:
    """What becomes of a connection.

    Args:
        decision: of the policy.
        told: what policy was told; for a connection that goes with another, of that one.
        role: our side of the handshake, if there is to be one.
        name: whom the server's certificate must name, as far as the program has said it.
        first: the connection that this one goes with.
    """

    decision: Decision
    told: Facts
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
        inode = inode_of(asked.r.fileno())
        return First(number, asked.program.pid, inode, self.decision, self.told, self.role, self.name)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a protected connection was decided by, for as long as it lives.

    Args:
        facts: what policy was told; of the first connection for one that goes with it.
        rule: that decided.
        action: of that rule, as it was then.
    """

    facts: Facts
    rule: str | None
    action: Action


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
        return Decided(decision, first.told, first.role, first.name, first)
    told = facts_of(asked, local, remote, name)
    decision = decide(policy, told)
    connecting = asked.request.kind is RequestKind.CONNECT
    role = role_of(decision.action, connecting=connecting) if decision.action else None
    return Decided(decision, told, role, name)


def facts_of(asked: Asked, local: Endpoint, remote: Endpoint, name: str | None) -> Facts:
    """Gather what the request and the kernel say of the connection and its program."""
    program = asked.program
    return Facts(
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

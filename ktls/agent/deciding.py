"""What policy says about a connection that was asked about."""

from datetime import UTC, datetime

from ktls.agent.asked import Asked
from ktls.agent.messages import RequestKind
from policy.decide import Decision, decide
from policy.model import Endpoint, Facts, Policy


def decide_asked(policy: Policy, asked: Asked, local: Endpoint, remote: Endpoint, name: str | None) -> Decision:
    """Decide, with what the request and the kernel say of the connection and its program.

    Args:
        policy: the agent's.
        asked: the request.
        local: our end.
        remote: the other end.
        name: what the program resolved to it.
    """
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

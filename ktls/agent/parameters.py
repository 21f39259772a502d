"""From policy to TLS: what a rule's action means for a connection's environment."""

from ktls.ciphers import CipherSuite, Role, Version, by_iana
from ktls.environment import TlsParameters
from ktls.errors import EngineUnavailable
from ktls.probe import Capabilities
from offload.engine import usable_suites
from policy.model import Action
from policy.opening import keyring_of

_VERSIONS = {"1.2": Version.TLS12, "1.3": Version.TLS13}


def role_of(action: Action, *, connecting: bool) -> Role:
    """Return our side of the handshake: as the action says, or by who connected.

    >>> role_of(Action(), connecting=True)
    <Role.CLIENT: 'client'>
    """
    if action.role == "auto":
        return Role.CLIENT if connecting else Role.SERVER
    return Role(action.role)


def tls_parameters(action: Action, role: Role, capabilities: Capabilities) -> TlsParameters:
    """Return the parameters of the environment that connections under this action share.

    Args:
        action: of the rule.
        role: our side.
        capabilities: what the kernel can do; suites it lacks are offered only where the relay may step in.

    Raises:
        EngineUnavailable: the rule's engine can do none of the rule's suites.
    """
    return TlsParameters(
        role=role,
        keyring=keyring_of(action.keyring),
        min_version=_VERSIONS[action.min_version],
        max_version=_VERSIONS[action.max_version],
        suites=_suites(action, capabilities),
        alpn=action.alpn,
        verify=action.verify,
        client_auth=action.client_auth,
        users=tuple((one.identity, one.user) for one in action.users),
        peer_identities=action.peer_identities,
        tickets=action.resumption.tickets,
        ticket_lifetime=action.resumption.lifetime,
        keylog=action.keylog,
        peer_name=action.peer_name,
    )


def _suites(action: Action, capabilities: Capabilities) -> tuple[CipherSuite, ...]:
    usable = usable_suites(action.engine, capabilities, _VERSIONS[action.min_version], _VERSIONS[action.max_version])
    if not action.ciphers:
        return usable
    wanted = tuple(suite for name in action.ciphers if (suite := by_iana(name)) in usable)
    if not wanted:
        raise EngineUnavailable(f"engine {action.engine!r} can do none of {', '.join(action.ciphers)} here")
    return wanted

"""The secure-port model: connections are TLS because of their port, and there is no policy file."""

from collections.abc import Iterable
from pathlib import Path
from typing import get_args, get_type_hints

from ktls.errors import PolicyError
from policy.files import readable
from policy.identities import SYSTEM, Keyring
from policy.model import Action, Match, Policy, Rule, Verdict
from policy.names import glob, host_name, is_address
from policy.problems import Problems, quote
from policy.snapshot import build
from policy.values import address_range, port_range

NAME = "secure port"  # of the action and the keyring, and of the file in messages
ENGINES: tuple[str, ...] = get_args(get_type_hints(Action)["engine"])


def secure_port(
    *,
    inbound: Iterable[int] = (),
    outbound: Iterable[tuple[str | None, int]] = (),
    certificate: Path | None = None,
    private_key: Path | None = None,
    trust: Iterable[str] = (),
    engine: str = "auto",
) -> Policy:
    """Make the policy of `ktls run --inbound PORT --outbound [HOST:]PORT`.

    Args:
        inbound: local ports; what is accepted on them is TLS.
        outbound: remote ports; what is connected to them, on this host (a name the program resolves, or an address) or
            on any (None), is TLS.
        certificate: PEM chain to show. Servers must; clients do when they are asked.
        private_key: its key.
        trust: PEM files or directories, or "system"; the system's store when there are none.
        engine: who protects records.

    Returns:
        The policy. All other connections stay clear.

    Raises:
        PolicyError: a value is wrong or a file cannot be read; all problems are named.

    >>> [rule.name for rule in secure_port(outbound=[("db.example", 5432), (None, 8443)]).rules]
    ['outbound db.example:5432', 'outbound 8443']
    """
    problems = Problems(NAME)
    anchors = tuple(trust) or (SYSTEM,)
    _check_identity(problems, certificate, private_key, anchors)
    if engine not in ENGINES:
        problems.add(0, "", "engine", f"{quote(engine)} is not one of {', '.join(map(quote, ENGINES))}")
    keyring = Keyring(NAME, _absolute(certificate), _absolute(private_key), trust=tuple(map(_anchor, anchors)))
    action = Action(NAME, keyring, engine=engine)  # type: ignore[arg-type]  # one of ENGINES, or there is a problem
    rules: list[Rule] = []
    for port in dict.fromkeys(inbound):
        with problems.noting("inbound"):
            rules.append(_inbound(port, action))
    for host, port in dict.fromkeys(outbound):
        with problems.noting("outbound"):
            rules.append(_outbound(host, port, action))
    problems.raise_any()
    return build(rules, Verdict.CLEAR)


def _check_identity(
    problems: Problems, certificate: Path | None, private_key: Path | None, anchors: tuple[str, ...]
) -> None:
    if (certificate is None) != (private_key is None):
        problems.add(0, "", "certificate", "needs private_key with it, and the other way round")
    for key, file in (("certificate", certificate), ("private_key", private_key)):
        if file is not None:
            with problems.noting(key):
                readable(file)
    for anchor in anchors:
        if anchor != SYSTEM:
            with problems.noting("trust"):
                readable(Path(anchor), directory=True)


def _inbound(port: int, action: Action) -> Rule:
    if action.keyring.certificate is None:
        raise PolicyError(f"{port}: a server needs a certificate and private_key")
    return Rule(f"inbound {port}", Verdict.TLS, Match("inbound", local_port=(port_range(port),)), action)


def _outbound(host: str | None, port: int, action: Action) -> Rule:
    ports = (port_range(port),)
    if host is None:
        return Rule(f"outbound {port}", Verdict.TLS, Match("outbound", remote_port=ports), action)
    if is_address(host):
        match = Match("outbound", remote_port=ports, remote=(address_range(host),))
    else:
        match = Match("outbound", remote_port=ports, remote_name=(glob(host_name(host)),))
    shown = f"[{host}]" if ":" in host else host
    return Rule(f"outbound {shown}:{port}", Verdict.TLS, match, action)


def _absolute(file: Path | None) -> Path | None:
    return None if file is None else file.absolute()


def _anchor(trust: str) -> str:
    return trust if trust == SYSTEM else str(Path(trust).absolute())

"""Which engine serves a session, and why in words.

Two tables decide. `_ORDER` says which engines a rule's preference allows, best first. `_OBSTACLES` says for each engine
what rules it out, and how to say so; the first that applies is told. The first engine of the order that meets no
obstacle is chosen; its reason names what kept the better ones away.

The kernel decides by itself whether the device does the work (net/tls/tls_device.c): no option asks for it, none
refuses it, and it falls back without a word. So `nic` means that every condition known from outside is met; `kernel`
leaves it to the kernel; and `no-nic` goes to the relay where the kernel would use the device.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from ktls.ciphers import AES_GCM_128, AES_GCM_256, SUITES, CipherSuite, Version
from ktls.errors import EngineUnavailable
from ktls.probe import Capabilities

Preference = Literal["auto", "nic", "kernel", "relay", "no-nic"]
"""What a rule may ask for: `auto` is the best there is, `no-nic` that without a device, others just themselves."""


class Engine(StrEnum):
    """Who protects the records."""

    NIC = "nic"
    KERNEL = "kernel"
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine of one session.

    Args:
        engine: which.
        reason: why this one and no better one; for reports.
    """

    engine: Engine
    reason: str


@dataclass(frozen=True, slots=True)
class _Situation:
    preference: Preference
    capabilities: Capabilities
    version: Version
    suite: CipherSuite
    application_controlled: bool = False
    can_transplant: bool = False
    device: str | None = None

    @property
    def offering(self) -> tuple[str, ...]:
        return (*self.capabilities.tx_devices, *self.capabilities.rx_devices)

    @property
    def device_would(self) -> bool:
        """Whether the kernel would hand this session to the device."""
        return self.device in self.offering and _device_takes(self.version, self.suite)


@dataclass(frozen=True, slots=True)
class _Obstacle:
    applies: Callable[[_Situation], bool]
    reason: Callable[[_Situation], str]


def _device_takes(version: Version, suite: CipherSuite) -> bool:
    return version is Version.TLS12 and suite.kernel in (AES_GCM_128, AES_GCM_256)


_KERNEL_OBSTACLES = (
    _Obstacle(lambda s: not s.capabilities.kernel_tls, lambda s: s.capabilities.reason),
    _Obstacle(
        lambda s: not s.capabilities.supports(s.version, s.suite),
        lambda s: f"kTLS has no {s.suite.kernel.name} for {s.version.label} here",
    ),
    _Obstacle(
        lambda s: s.application_controlled and not s.can_transplant,
        lambda _: "the program may stop TLS, which on kTLS takes CAP_NET_ADMIN",
    ),
)

_OBSTACLES: Mapping[Engine, tuple[_Obstacle, ...]] = {
    Engine.NIC: (
        *_KERNEL_OBSTACLES,
        _Obstacle(lambda s: not s.offering, lambda _: "no network device here offloads TLS"),
        _Obstacle(
            lambda s: s.version is not Version.TLS12, lambda s: f"devices do TLSv1.2 only, not {s.version.label}"
        ),
        _Obstacle(
            lambda s: not _device_takes(s.version, s.suite),
            lambda s: f"devices do AES-GCM only, not {s.suite.kernel.name}",
        ),
        _Obstacle(lambda s: s.device is None, lambda _: "the connection's network device is not known"),
        _Obstacle(lambda s: not s.device_would, lambda s: f"{s.device} has no TLS offload switched on"),
    ),
    Engine.KERNEL: (
        *_KERNEL_OBSTACLES,
        _Obstacle(
            lambda s: s.preference == "no-nic" and s.device_would,
            lambda s: f"the kernel would leave it to {s.device}, which the rule excludes",
        ),
    ),
    Engine.RELAY: (),
}

_ORDER: Mapping[Preference, tuple[Engine, ...]] = {
    "auto": (Engine.NIC, Engine.KERNEL, Engine.RELAY),
    "no-nic": (Engine.KERNEL, Engine.RELAY),
    "nic": (Engine.NIC,),
    "kernel": (Engine.KERNEL,),
    "relay": (Engine.RELAY,),
}

_UNOPPOSED: Mapping[Preference, str] = {"auto": "the best there is", "no-nic": "the best without a device"}

_HINTS: Mapping[Preference, str] = {
    "nic": "engine auto takes the device where it can and the next best where not",
    "kernel": "engine auto falls back to the relay",
}


def choose(
    preference: Preference,
    capabilities: Capabilities,
    version: Version,
    suite: CipherSuite,
    *,
    application_controlled: bool = False,
    can_transplant: bool = False,
    device: str | None = None,
) -> Choice:
    """Choose the engine of a session.

    Args:
        preference: the rule's.
        capabilities: what the kernel can do.
        version: negotiated.
        suite: negotiated.
        application_controlled: the program may stop TLS and go on in clear.
        can_transplant: we could move the connection to a fresh socket then (CAP_NET_ADMIN).
        device: name of the network device that the connection leaves through; None if it is not known.

    Raises:
        EngineUnavailable: the rule allows none that can serve the session; the message says what is in the way.

    >>> choose("auto", Capabilities(reason="no kTLS"), Version.TLS13, SUITES[0])
    Choice(engine=<Engine.RELAY: 'relay'>, reason='no kTLS')
    """
    situation = _Situation(preference, capabilities, version, suite, application_controlled, can_transplant, device)
    passed_over: list[str] = []
    for engine in _ORDER[preference]:
        obstacle = _obstacle(engine, situation)
        if obstacle is None:
            return Choice(engine, "; ".join(passed_over) or _UNOPPOSED.get(preference, f"the rule says {preference}"))
        if obstacle not in passed_over:
            passed_over.append(obstacle)
    raise EngineUnavailable(
        f"engine {preference} cannot serve {version.label} with {suite}: {'; '.join(passed_over)}",
        hint=capabilities.hint or _HINTS.get(preference, ""),
    )


def usable_suites(
    preference: Preference, capabilities: Capabilities, min_version: Version, max_version: Version
) -> tuple[CipherSuite, ...]:
    """List the suites to offer: those that an engine of the rule can serve, the better engines' first.

    Args:
        preference: the rule's.
        capabilities: what the kernel can do.
        min_version: the rule's lowest.
        max_version: the rule's highest.

    Raises:
        EngineUnavailable: there is none.
    """
    engines = _ORDER[preference]
    ranks: dict[CipherSuite, int] = {}
    for suite in SUITES:
        version = min(suite.versions)
        if min_version <= version <= max_version:
            served = (rank for rank, engine in enumerate(engines) if _may_serve(engine, capabilities, version, suite))
            if (best := next(served, None)) is not None:
                ranks[suite] = best
    if not ranks:
        raise EngineUnavailable(
            f"engine {preference} can do no suite of {min_version.label} to {max_version.label} here: "
            f"{capabilities.reason or 'see `ktls probe`'}",
            hint=capabilities.hint or _HINTS.get(preference, ""),
        )
    return tuple(sorted(ranks, key=lambda suite: ranks[suite]))


def _obstacle(engine: Engine, situation: _Situation) -> str | None:
    return next((o.reason(situation) for o in _OBSTACLES[engine] if o.applies(situation)), None)


def _may_serve(engine: Engine, capabilities: Capabilities, version: Version, suite: CipherSuite) -> bool:
    """Whether it could on some device. Which one is known only when the connection is."""
    situation = _Situation("auto", capabilities, version, suite)
    return _obstacle(engine, replace(situation, device=next(iter(situation.offering), None))) is None

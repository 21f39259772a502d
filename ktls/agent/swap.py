"""A running agent's policy and keyrings, exchanged between two connections.

What is new is made ready beside the old, in any thread: keyrings opened, OpenSSL asked. The exchange itself is one step
in the loop's thread, so that every connection is decided by the one policy or by the other. Connections that are there
already keep what they have; `on_change` of the rule that they live under says what becomes of them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ktls.agent.deciding import Standing
from ktls.agent.shared import Shared
from ktls.contents import content_hash, files_of
from ktls.contexts import try_keyring
from ktls.keyring import Keyring, OpenKeyring, open_keyring
from policy.decide import decide
from policy.model import Policy, Rule
from policy.opening import keyring_of


class Living(Protocol):
    """A connection under TLS, from its decision to its end."""

    standing: Standing

    def change(self, why: str) -> None:
        """Do what `on_change` says."""


def keyrings_of(policy: Policy) -> frozenset[Keyring]:
    """Return the keyrings that a rule of the policy may need."""
    return frozenset(keyring_of(rule.action.keyring) for rule in policy.rules if rule.action is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A keyring that is right.

    Args:
        keyring: what is in it.
        content: hash of its files, taken before they were read: a change in between will be one.
    """

    keyring: OpenKeyring
    content: str


def opened(keyring: Keyring) -> Opened:
    """Open a keyring, and see whether OpenSSL takes it.

    Raises:
        KeyringError: it is of no use as it is now.
    """
    content = content_hash(files_of(keyring))
    found = open_keyring(keyring)
    try_keyring(keyring.name, found)
    return Opened(found, content)


class Swap:
    """The one place where a running agent's policy and keyrings change.

    Args:
        shared: what is changed.
        keyrings: of its policy, opened.
        living: gives the connections that are there.
        observe: whatever a policy says, only observe.
    """

    def __init__(
        self,
        shared: Shared,
        keyrings: Mapping[Keyring, Opened],
        living: Callable[[], Iterable[Living]],
        *,
        observe: bool,
    ) -> None:
        self._shared, self._living, self._observe = shared, living, observe
        self._contents: dict[Keyring, str] = {}
        for keyring, found in keyrings.items():
            self._take(keyring, found)

    @property
    def policy(self) -> Policy:
        """The one that decides now."""
        return self._shared.policy

    def content(self, keyring: Keyring) -> str | None:
        """Return the hash of what is used of a keyring; None of one that is not used."""
        return self._contents.get(keyring)

    def use(self, policy: Policy) -> None:
        """Let a policy decide from the next connection on. For any thread but the loop's; returns when it is ready to.

        Raises:
            KeyringError: a keyring that it names cannot be opened. The old policy stays.
        """
        if self._observe:
            policy = dataclasses.replace(policy, mode="observe")
        if policy == self._shared.policy:
            return
        known = keyrings_of(self._shared.policy)
        fresh = {keyring: opened(keyring) for keyring in keyrings_of(policy) - known}
        self._shared.loop.call_soon_threadsafe(self._exchange, policy, fresh)

    def renew(self, keyring: Keyring) -> None:
        """Let connections from now on have what is in the files of a keyring. For any thread but the loop's.

        Raises:
            KeyringError: it is of no use as it is now. What was read before stays.
        """
        self._take(keyring, opened(keyring))
        self._shared.loop.call_soon_threadsafe(self._renewed, keyring)

    def _take(self, keyring: Keyring, found: Opened) -> None:
        self._shared.environments.renew(keyring, found.keyring)
        self._contents[keyring] = found.content

    def _exchange(self, policy: Policy, fresh: dict[Keyring, Opened]) -> None:
        shared, before = self._shared, self._shared.policy
        for keyring, found in fresh.items():
            self._take(keyring, found)
        shared.policy = policy
        shared.environments.keep(keyrings_of(policy) | keyrings_of(before))  # those are in handshakes that go on
        changed = self._reconsider(before, policy)
        facts = {"revision": policy.revision, "before": before.revision, "file": policy.file or None}
        shared.report.write("policy", {**facts, "rules": len(policy.rules), "changed": changed})

    def _reconsider(self, before: Policy, after: Policy) -> int:
        """Tell each connection whose rule is not what it was; returns how many there are."""
        old, new = _by_name(before), _by_name(after)
        changed = [
            (connection, why)
            for connection in list(self._living())
            if connection.standing.action.on_change != "keep" and (why := _why(connection.standing, old, new, after))
        ]
        for connection, why in changed:
            connection.change(why)
        return len(changed)

    def _renewed(self, keyring: Keyring) -> None:
        self._shared.report.write("renewed", {"keyring": keyring.name})
        for connection in list(self._living()):
            if keyring_of(connection.standing.action.keyring) == keyring:
                connection.change(f"keyring {keyring.name} has new content")


def _by_name(policy: Policy) -> dict[str, Rule]:
    return {rule.name: rule for rule in policy.rules}


def _why(standing: Standing, old: dict[str, Rule], new: dict[str, Rule], policy: Policy) -> str:
    """Say what has changed for a connection; nothing if nothing has."""
    name = standing.rule
    if name is None or name not in new:
        return f"rule {name} is gone"
    if new[name] != old.get(name):
        return f"rule {name} has changed"
    decision = decide(policy, standing.facts)
    if decision.rule == name:
        return ""
    return f"it would now be decided by {f'rule {decision.rule}' if decision.rule else 'the default'}"

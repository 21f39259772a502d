"""The keyrings of a policy: all that it has, with their lines, and who uses each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from policy.checks import Node
from policy.document import open_document
from policy.identities import NO_KEYRING, Keyring
from policy.keyrings import read_keyrings
from policy.load import parse
from policy.model import Policy
from policy.positions import Positions
from policy.problems import Problem


@dataclass(frozen=True, slots=True)
class KeyringUse:
    """A keyring and its place.

    Args:
        keyring: as read.
        rules: that use it, in the order in which they are tried.
        actions: those with a name that do, whether a rule uses them or not.
        positions: of the file.
    """

    keyring: Keyring
    rules: tuple[str, ...]
    actions: tuple[str, ...]
    positions: Positions = field(compare=False, repr=False)

    @property
    def line(self) -> int:
        """Where it starts."""
        return self.positions.line(("keyring", self.keyring.name))

    def problem(self, key: Sequence[str | int], what: str) -> Problem:
        """Say what is wrong with it, or with a key in it, as the problems of the file itself are said."""
        line = self.positions.line(("keyring", self.keyring.name, *key))
        words = ".".join(part for part in key if isinstance(part, str))
        return Problem(line, f"[keyring.{self.keyring.name}]", words, what)


def keyring_uses(data: bytes, path: Path) -> tuple[Policy, tuple[KeyringUse, ...]]:
    """Find the keyrings of a policy. Their files are not looked at.

    Args:
        data: the content of the policy file.
        path: of it.

    Returns:
        The policy, and its keyrings in the order of the file.

    Raises:
        PolicyError: it has mistakes.
    """
    policy = parse(data, path, files=False)
    root = open_document(data, str(path))
    given = _table(root, "keyring")
    keyrings = read_keyrings(root.child("keyring", value=given), path.absolute().parent, files=False)
    return policy, tuple(
        KeyringUse(keyring, _rules(policy, keyring), _actions(root, name), root.positions)
        for name, keyring in keyrings.items()
    )


def without_keyring(policy: Policy) -> tuple[str, ...]:
    """List the rules whose connections have TLS without a keyring that the policy names: no certificate, but trust."""
    return _rules(policy, NO_KEYRING)


def _table(root: Node, key: str) -> dict[str, object]:
    value = root.table().get(key, {})
    return value if isinstance(value, dict) else {}


def _rules(policy: Policy, keyring: Keyring) -> tuple[str, ...]:
    return tuple(rule.name for rule in policy.rules if rule.action is not None and rule.action.keyring == keyring)


def _actions(root: Node, keyring: str) -> tuple[str, ...]:
    actions = _table(root, "action")
    return tuple(
        name for name, action in actions.items() if isinstance(action, dict) and action.get("keyring") == keyring
    )

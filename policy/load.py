"""From a policy file to a policy, or to one PolicyError with everything that is wrong with the file."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from policy.actions import Means, ReadAction, read_actions
from policy.checks import Check, Node, choice, integer
from policy.document import open_document, read_file
from policy.identities import Keyring, UserMapping
from policy.keyrings import read_keyrings
from policy.model import Policy, Rule, Verdict
from policy.rules import Names, read_rules
from policy.snapshot import build
from policy.users import read_users

VERSION = 1  # of the language


def load(path: Path) -> Policy:
    """Load a policy file.

    Args:
        path: of a TOML file in the language of docs/policy.md. Paths inside start from its directory.

    Returns:
        The policy, ready to decide.

    Raises:
        PolicyError: it cannot be read, or has mistakes: all of them, one on each line of the message.
    """
    return parse(read_file(path), path)


def parse(data: bytes, path: Path, *, files: bool = True) -> Policy:
    """Load a policy that has been read already.

    Args:
        data: the content of the file.
        path: for messages, and for the directory that paths inside start from.
        files: see whether the keyrings' files can be read; False for a policy of other hosts.

    Raises:
        PolicyError: as `load`.
    """
    root = open_document(data, str(path))
    policy = _compile(root, path.absolute().parent, files=files)
    root.problems.raise_any()
    return replace(policy, content=content_of(data))


def content_of(data: bytes) -> str:
    """Return what tells the content of one policy file from that of another."""
    return hashlib.sha256(data).hexdigest()


def _compile(root: Node, base: Path, *, files: bool) -> Policy:
    keyrings: dict[str, Keyring] = {}
    actions: dict[str, ReadAction] = {}
    users: list[UserMapping] = []
    rules: list[Rule] = []

    def means() -> Means:
        return Means(keyrings, tuple(users), base)

    # In this order whatever that of the file: each refers to those before it.
    checks: Mapping[str, Check] = {
        "version": integer(VERSION, VERSION),
        "default": choice(Verdict.CLEAR, Verdict.DENY),
        "mode": choice("enforce", "observe"),
        "keyring": lambda node: keyrings.update(read_keyrings(node, base, files=files)),
        "map": lambda node: users.extend(read_users(node)),
        "action": lambda node: actions.update(read_actions(node, means())),
        "rule": lambda node: rules.extend(read_rules(node, Names(actions, means()))),
    }
    given = root.table()
    ordered = {key: given[key] for key in (*checks, *given) if key in given}
    values = root.child(value=ordered).read(checks, required=("version",))
    default, mode = Verdict(str(values.get("default", Verdict.CLEAR))), values.get("mode")
    return build(rules, default, root.problems.file, "observe" if mode == "observe" else "enforce")

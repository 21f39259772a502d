"""The keyrings of a policy, read and judged: what `ktls keyring` and `ktls policy check` tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ktls.keyring_parts import Finding, Level, Parts
    from policy.keyring_uses import KeyringUse
    from policy.model import Policy

RULES_SHOWN = 3
"""Rules that a line names."""
DAYS = 30
"""Certificates that expire within so many are warned of: two thirds into the 90 days that many are given."""


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """A keyring and what is wrong with it.

    Args:
        file: the policy's.
        use: the keyring in the policy.
        parts: what could be read of it.
        findings: in the order of the file.
    """

    file: str
    use: "KeyringUse"
    parts: "Parts"
    findings: tuple["Finding", ...]

    def number(self, level: "Level") -> int:
        """Count the findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    def line(self, finding: "Finding") -> str:
        """Write a finding as a line, with its place and who is concerned."""
        used = used_by(self.use.rules)
        text = self.use.problem(finding.key, finding.what).text(self.file)
        return printable(text + (f" ({used})" if used else ""))

    def facts(self, finding: "Finding") -> dict[str, object]:
        """Make JSON of a finding."""
        place = self.use.problem(finding.key, finding.what)
        facts = {"file": self.file, "line": place.line, "keyring": self.use.keyring.name, "key": place.key}
        return facts | {"level": finding.level, "what": finding.what, "rules": list(self.use.rules)}


def printable(text: str) -> str:
    r"""Make a text safe for a terminal: paths and certificates hold what they like.

    >>> printable("a\x1b[2J")
    'a?[2J'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def used_by(rules: tuple[str, ...]) -> str:
    """Name the rules that use a keyring.

    >>> used_by(("web", "mail")), used_by(("a", "b", "c", "d", "e"))
    ('rules "web", "mail"', 'rules "a", "b", "c" and 2 more')
    """
    if not rules:
        return ""
    named = ", ".join(f'"{rule}"' for rule in rules[:RULES_SHOWN])
    more = f" and {len(rules) - RULES_SHOWN} more" if len(rules) > RULES_SHOWN else ""
    return f"rule{'' if len(rules) == 1 else 's'} {named}{more}"


def reports(data: bytes, path: Path, days: int = DAYS) -> tuple["Policy", tuple[Report, ...]]:
    """Read and judge the keyrings of a policy.

    Args:
        data: the policy's text.
        path: its file.
        days: warn of what expires within so many.

    Raises:
        PolicyError: the policy has mistakes. A file of a keyring that cannot be read is none here, but a finding.
    """
    from ktls.keyring_check import check_keyring  # noqa: PLC0415 - heavy, and not for every command
    from ktls.keyring_parts import read_parts  # noqa: PLC0415 - as above
    from policy.keyring_uses import keyring_uses  # noqa: PLC0415 - as above
    from policy.opening import keyring_of  # noqa: PLC0415 - as above

    policy, uses = keyring_uses(data, path)
    now = datetime.now(UTC)
    read = [(use, read_parts(keyring_of(use.keyring))) for use in uses]
    return policy, tuple(
        Report(policy.file, use, parts, _in_order(use, check_keyring(parts, now, days))) for use, parts in read
    )


def _in_order(use: "KeyringUse", findings: tuple["Finding", ...]) -> tuple["Finding", ...]:
    return tuple(sorted(findings, key=lambda finding: use.problem(finding.key, "").line))


def broken_keyrings(data: bytes, path: Path) -> Iterator[str]:
    """Write a line for each error in the keyrings of a policy, in the order of the file.

    Raises:
        PolicyError: as `reports`.
    """
    for report in reports(data, path)[1]:
        yield from (report.line(finding) for finding in report.findings if finding.level == "error")

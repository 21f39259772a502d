"""What a policy is meant to say: connections and the verdicts they should get, in a file beside the policy.

[[expect]]
name = "psql goes to the database over TLS"
direction = "outbound"
remote = "10.1.2.3:5432"
program = "/usr/bin/psql"
verdict = "tls"
rule = "postgres out"
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ktls.errors import PolicyError
from policy.checks import Check, Node, choice, name, text
from policy.decide import Decision, decide
from policy.document import open_document, read_file
from policy.model import Facts, Policy, Verdict
from policy.problems import quote, refuse
from policy.questions import KEYS, read_question


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one connection should get.

    Args:
        name: for people.
        facts: of the connection.
        verdict: what it should get.
        rule: which rule should decide; "" for the default, None for whichever.
        line: where it stands.
    """

    name: str
    facts: Facts
    verdict: Verdict
    rule: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an expectation and a policy compare; `held` says whether they agree."""

    expectation: Expectation
    decision: Decision

    @property
    def held(self) -> bool:
        """Whether the policy does what is expected."""
        wanted, given = self.expectation, self.decision
        return wanted.verdict == given.verdict and wanted.rule in (None, given.rule or "")

    def line(self) -> str:
        """Say it in one line."""
        wanted = f"{self.expectation.verdict}" + _by(self.expectation.rule)
        given = f"{self.decision.verdict}" + _by(self.decision.rule or "")
        what = f"{given}" if self.held else f"expected {wanted}, got {given}: {self.decision.reason}"
        return f"{self.expectation.name}: {what}"


def _by(rule: str | None) -> str:
    return "" if rule is None else f" by rule {quote(rule)}" if rule else " by default"


def read_expectations(path: Path, now: datetime | None = None) -> tuple[Expectation, ...]:
    """Read a file of expectations.

    Args:
        path: of a TOML file with [[expect]] tables.
        now: the time where a table has no `at`; the clock's when None.

    Raises:
        PolicyError: it cannot be read, or has mistakes: all of them, each with its line.
    """
    root = open_document(read_file(path), str(path))
    found: list[Expectation] = []
    root.read({"expect": lambda node: found.extend(_each(node, now))}, required=("expect",))
    root.problems.raise_any()
    return tuple(found)


def _each(root: Node, now: datetime | None) -> Iterable[Expectation]:
    if not isinstance(root.value, list):
        refuse(root.value, "is not a list of expectations; each is written [[expect]]")
    checks: dict[str, Check] = dict.fromkeys(KEYS, text) | {"name": name, "verdict": choice(*Verdict), "rule": _rule}
    for number, value in enumerate(root.value):
        called = value.get("name") if isinstance(value, dict) else None
        node = root.child(number, value=value).called(f"[expect {quote(called) if called else number + 1}]")
        given = node.read(checks, required=("direction", "remote", "verdict"))
        try:
            facts = read_question({key: given[key] for key in KEYS if key in given}, now)
        except PolicyError as error:
            node.problem(error.message)
            continue
        label = str(given.get("name", f"expectation {number + 1}"))
        rule = None if "rule" not in given else str(given["rule"])
        verdict = Verdict(str(given.get("verdict", Verdict.DENY)))
        yield Expectation(label, facts, verdict, rule, node.positions.line(node.place))


def _rule(node: Node) -> str:
    """Check for a rule's name, or "" for the default."""
    return "" if node.value == "" else name(node)


def try_expectations(policy: Policy, expectations: Iterable[Expectation]) -> tuple[Outcome, ...]:
    """Compare a policy with what is expected of it."""
    return tuple(Outcome(one, decide(policy, one.facts)) for one in expectations)

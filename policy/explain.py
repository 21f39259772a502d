"""Why a connection is decided as it is: the rule that decides, and for every one before it what did not fit."""

from dataclasses import dataclass

from policy.decide import Decision, decide
from policy.match import Subject, compare, subject
from policy.model import Facts, Policy, Rule
from policy.problems import quote


@dataclass(frozen=True, slots=True)
class Compared:
    """One rule and a connection.

    Args:
        rule: the rule.
        fits: what fits, one sentence a key.
        misses: what does not; empty when the rule fits.
    """

    rule: Rule
    fits: tuple[str, ...]
    misses: tuple[str, ...]

    @property
    def near(self) -> bool:
        """Whether one key alone kept the rule from fitting, and another did fit; half of all fit in direction."""
        return len(self.misses) == 1 and any(not text.startswith("direction ") for text in self.fits)

    def line(self) -> str:
        """Say it in one line."""
        texts = self.misses or self.fits or ("it has no conditions",)
        return f"rule {quote(self.rule.name)} {'does not fit' if self.misses else 'fits'}: {'; '.join(texts)}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a decision comes about.

    Args:
        decision: as `decide` makes it.
        compared: every rule up to the one that decides, in order; all when it is the default.
    """

    decision: Decision
    compared: tuple[Compared, ...]

    @property
    def near(self) -> tuple[Compared, ...]:
        """The rules that would have decided but for one key."""
        return tuple(one for one in self.compared if one.near)

    def lines(self) -> tuple[str, ...]:
        """Say all of it."""
        return (*(one.line() for one in self.compared), f"{self.decision.verdict}: {self.decision.reason}")


def explain(policy: Policy, facts: Facts) -> Explanation:
    """Explain a decision.

    Args:
        policy: as for `decide`.
        facts: as for `decide`.

    Raises:
        UsageError: as `decide`.
    """
    has = subject(facts)
    decision = decide(policy, facts)
    compared = []
    for rule in policy.rules if has.remote is not None else ():
        one = compare_rule(rule, has)
        compared.append(one)
        if not one.misses:
            break
    return Explanation(decision, tuple(compared))


def compare_rule(rule: Rule, has: Subject) -> Compared:
    """Compare a connection with every key of a rule."""
    compared = [compare(key, rule.match, has) for key in rule.match.keys]
    return Compared(
        rule,
        fits=tuple(text for holds, text in compared if holds),
        misses=tuple(text for holds, text in compared if not holds),
    )

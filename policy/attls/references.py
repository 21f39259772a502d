"""What statements refer to: found by kind and label, each noted when it is used, so that nothing is lost silently."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from policy.attls.statements import Statement


@dataclass(slots=True)
class Notes:
    """What a person must know of the translation, with the line of the AT-TLS file."""

    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, what: str) -> None:
        """Note something, once."""
        if (line, what) not in self.found:
            self.found.append((line, what))


@dataclass(slots=True)
class Library:
    """The statements of a file.

    Args:
        statements: on its top level.
        notes: where what is missing is told.
    """

    statements: list[Statement]
    notes: Notes
    used: set[int] = field(default_factory=set)  # by identity

    def of(self, kind: str) -> Iterator[Statement]:
        """Return the statements of a kind."""
        return (one for one in self.statements if one.kind.lower() == kind.lower())

    def within(self, statement: Statement, kind: str) -> Iterator[Statement]:
        """Return what a statement has of a kind: written inside it, or by reference (`KINDRef label`)."""
        self.used.add(id(statement))
        for one in statement.inner:
            if one.kind.lower() == kind.lower():
                self.used.add(id(one))
                yield one
        for parameter in statement.every(f"{kind}Ref"):
            label = " ".join(parameter.words)
            found = [one for one in self.of(kind) if one.label == label]
            if not found:
                self.notes.add(parameter.line, f"{kind} {label} is nowhere in the file")
            for one in found[-1:]:
                self.used.add(id(one))
                yield one

    def unused(self) -> Iterator[Statement]:
        """Return statements of the top level that nothing referred to."""
        return (one for one in self.statements if id(one) not in self.used)

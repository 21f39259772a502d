"""The syntax of AT-TLS policy files: statements with a kind, a label and parameters, some of which are statements.

TTLSRule  ftp~1            # a comment
{
  LocalPortRange      21
  TTLSGroupActionRef  on
}
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ktls.errors import PolicyError

DEPTH_MAX = 8  # statements in statements; the language has three
STATEMENTS_MAX = 200_000

_WORD = re.compile(r"[{}]|[^\s{}]+")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One line of a statement.

    Args:
        key: as written.
        words: what follows it.
        line: in the file.
    """

    key: str
    words: tuple[str, ...]
    line: int


@dataclass(slots=True)
class Statement:
    """A kind and a label, and what stands between its braces.

    Args:
        kind: as written, "TTLSRule".
        label: "" for none.
        line: where it starts.
        parameters: those of one line, in order.
        inner: statements inside, in order.
    """

    kind: str
    label: str
    line: int
    parameters: list[Parameter] = field(default_factory=list)
    inner: list["Statement"] = field(default_factory=list)

    def every(self, *keys: str) -> Iterator[Parameter]:
        """Return the parameters of these names, whatever their case."""
        wanted = {key.lower() for key in keys}
        return (one for one in self.parameters if one.key.lower() in wanted)

    def value(self, key: str) -> str | None:
        """Return the last value of a parameter: the one that counts when it is given twice."""
        values = [" ".join(one.words) for one in self.every(key)]
        return values[-1] if values else None


def read_statements(text: str, file: str) -> list[Statement]:
    """Read a policy file.

    Args:
        text: its content.
        file: its name, for messages.

    Raises:
        PolicyError: braces that do not match, or what cannot be a policy file.
    """
    top = Statement("", "", 0)
    around = [top]
    before: tuple[list[str], int] | None = None  # the line that a brace may follow
    count = 0
    for number, line in enumerate(text.splitlines(), 1):
        words: list[str] = []
        for word in _WORD.findall(line.partition("#")[0]):
            if word not in "{}":
                words.append(word)
                continue
            held = [one for one in (before, (words, number)) if one and one[0]]
            words, before = [], None
            if word == "{":
                head, at = held.pop() if held else ([], number)
                _keep(held, around[-1])
                around.append(_opened(head, at, around, file))
                count += 1
            else:
                _keep(held, around[-1])
                if len(around) == 1:
                    raise PolicyError(f"{file}:{number}: a closing brace without an opening one")
                around.pop()
        if words:
            _keep([before] if before else [], around[-1])
            before = words, number
        if count > STATEMENTS_MAX:
            raise PolicyError(f"{file}:{number}: more than {STATEMENTS_MAX} statements")
    if len(around) > 1:
        raise PolicyError(f"{file}:{around[-1].line}: {around[-1].kind} is never closed")
    _keep([before] if before else [], top)
    return [*top.inner, *(Statement(one.key, " ".join(one.words), one.line) for one in top.parameters)]


def _opened(head: list[str], line: int, around: list[Statement], file: str) -> Statement:
    if not head:
        raise PolicyError(f"{file}:{line}: a brace without the name of a statement before it")
    if len(around) > DEPTH_MAX:
        raise PolicyError(f"{file}:{line}: statements are nested too deeply")
    made = Statement(head[0], " ".join(head[1:]), line)
    around[-1].inner.append(made)
    return made


def _keep(lines: list[tuple[list[str], int]], into: Statement) -> None:
    """Make parameters of lines that no brace followed."""
    into.parameters += [Parameter(words[0], tuple(words[1:]), line) for words, line in lines]

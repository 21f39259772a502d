"""Bytes as a series of choices: what a fuzzer changes in them changes what the target does."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Script:
    """Reads choices from bytes; when they are used up every choice is the first one.

    >>> script = Script(b"\\x03\\x02ab")
    >>> script.below(10), script.some(5), script.byte()
    (3, b'ab', 0)
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        value = self._data[self._at] if self else 0
        self._at += 1
        return value

    def below(self, bound: int) -> int:
        value = self.byte()
        if bound > 256:
            value = value << 8 | self.byte()
        return value % bound

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def some(self, most: int) -> bytes:
        count = self.below(most + 1)
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        return self._data[self._at :]

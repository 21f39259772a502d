"""Finding the ranges that hold a number, among many: the index behind addresses, ports and user ids.

Ranges are cut into aligned blocks (prefixes), of which any two are nested or apart. The number line then falls into
intervals that know their innermost block, and each block knows the one around it: one bisection finds them all.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

Block = tuple[int, int]
"""First and last number: aligned, and a power of two of them."""


def blocks(first: int, last: int) -> Iterator[Block]:
    """Cut a range into the fewest aligned blocks.

    Args:
        first: the lowest number, not negative.
        last: the highest.

    >>> list(blocks(1, 6))
    [(1, 1), (2, 3), (4, 5), (6, 6)]
    """
    while first <= last:
        aligned = first & -first or 1 << last.bit_length()
        size = min(aligned, 1 << (last - first + 1).bit_length() - 1)
        yield first, first + size - 1
        first += size


class IntervalMap(Generic[T]):
    """Values of blocks, looked up by number.

    Args:
        values: of each block.
    """

    __slots__ = ("_owners", "_starts")

    def __init__(self, values: Mapping[Block, T]) -> None:
        self._starts: list[int] = [0]
        self._owners: list[tuple[T, ...]] = [()]
        around: list[tuple[int, tuple[T, ...]]] = []  # last number, and the values of the block and all around it
        for first, last in sorted(values, key=lambda block: (block[0], -block[1])):
            while around and around[-1][0] < first:
                self._end(around)
            outer = around[-1][1] if around else ()
            around.append((last, (values[first, last], *outer)))
            self._start(first, around[-1][1])
        while around:
            self._end(around)

    def _end(self, around: list[tuple[int, tuple[T, ...]]]) -> None:
        last, _ = around.pop()
        self._start(last + 1, around[-1][1] if around else ())

    def _start(self, number: int, owner: tuple[T, ...]) -> None:
        if self._starts[-1] == number:
            self._owners[-1] = owner
        else:
            self._starts.append(number)
            self._owners.append(owner)

    def __getitem__(self, number: int) -> tuple[T, ...]:
        """Return the values of all blocks that hold a number, the innermost first."""
        return self._owners[bisect_right(self._starts, number) - 1]

"""What stayed in order when a list was put into another, so that the rest is what was moved."""

from bisect import bisect_left
from collections.abc import Sequence


def rising(numbers: Sequence[int]) -> set[int]:
    """Find the longest rising run of different numbers, others left out in between.

    Returns:
        The numbers in it.

    >>> sorted(rising([1, 5, 2, 3, 4]))
    [1, 2, 3, 4]
    """
    ends: list[int] = []  # the lowest number that a run of this length may end with
    before: dict[int, int | None] = {}
    for number in numbers:
        length = bisect_left(ends, number)
        before[number] = ends[length - 1] if length else None
        ends[length : length + 1] = [number]
    kept: set[int] = set()
    at = ends[-1] if ends else None
    while at is not None:
        kept.add(at)
        at = before[at]
    return kept

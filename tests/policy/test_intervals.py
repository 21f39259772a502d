"""Ranges that hold a number."""

from hypothesis import given
from hypothesis import strategies as st

from policy.intervals import IntervalMap, blocks

NUMBERS = st.integers(0, 300) | st.integers(0, 2**128 - 1)


@given(NUMBERS, NUMBERS)
def test_blocks_are_aligned_and_make_up_the_range(one, other):
    first, last = sorted((one, other))
    cut = list(blocks(first, last))
    assert cut[0][0] == first
    assert cut[-1][1] == last
    for (low, high), following in zip(cut, [*cut[1:], (last + 1, 0)], strict=True):
        size = high - low + 1
        assert size & (size - 1) == 0
        assert low % size == 0
        assert following[0] == high + 1


def test_a_prefix_is_one_block():
    assert list(blocks(0, 2**32 - 1)) == [(0, 2**32 - 1)]
    assert list(blocks(2**128, 2**129 - 1)) == [(2**128, 2**129 - 1)]
    assert list(blocks(0, 0)) == [(0, 0)]


@given(st.lists(st.tuples(NUMBERS, NUMBERS).map(sorted), max_size=12), st.lists(NUMBERS, min_size=1))
def test_every_block_that_holds_a_number_is_found_the_innermost_first(ranges, asked):
    held = {block: block for first, last in ranges for block in blocks(first, last)}
    found = IntervalMap(held)
    for number in [*asked, *(end for block in held for end in block)]:
        holding = [block for block in held if block[0] <= number <= block[1]]
        assert list(found[number]) == sorted(holding, key=lambda block: block[1] - block[0])

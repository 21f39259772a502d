from hypothesis import given
from hypothesis import strategies as st

from policy.store.order import rising


@given(st.permutations(range(7)))
def test_it_is_the_longest(numbers):
    def longest(at, above):
        rest = [(longest(next_at + 1, numbers[next_at]) + 1) for next_at in range(at, 7) if numbers[next_at] > above]
        return max(rest, default=0)

    found = [number for number in numbers if number in rising(numbers)]
    assert found == sorted(found)
    assert len(found) == longest(0, -1)


def test_nothing_rises_to_nothing():
    assert rising([]) == set()

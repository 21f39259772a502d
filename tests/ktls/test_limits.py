"""Where the hidden descriptors go."""

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls import limits
from ktls.errors import ResourceExhausted


@pytest.mark.parametrize(
    ("soft", "hard", "base"),
    [
        (1024, 1048576, 16384),
        (20000, 1048576, 20000),
        (1048576, 1048576, 65536),
        (-1, -1, 65536),
        (1024, -1, 16384),
        (1024, 4096, 2040),
        (1024, 1024, 504),
        (48, 48, 16),
    ],
)
def test_base_keeps_the_programs_own_limit_where_there_is_room(soft, hard, base):
    assert limits.choose_base(soft, hard) == base


def test_no_room_is_an_error_that_says_how_much_is_needed():
    with pytest.raises(ResourceExhausted, match="a hard limit of 47 open files") as caught:
        limits.choose_base(47, 47)
    assert "48" in caught.value.hint


@given(soft=st.integers(0, 1 << 31), more=st.integers(0, 1 << 31))
def test_everything_fits_the_hard_limit(soft, more):
    try:
        base = limits.choose_base(soft, soft + more)
    except ResourceExhausted:
        assert soft + more < 2 * limits.BASE_MIN + limits.SPARE
    else:
        assert limits.BASE_MIN <= base <= limits.BASE_MAX
        assert 2 * base + limits.SPARE <= soft + more


def test_the_soft_limit_is_raised_to_fit_and_given_back():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        base, own = limits.raise_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft >= 2 * base + limits.SPARE
        assert hard == before[1]
        limits.restore_limit(own)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(before[0], base), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

import pytest

from ktls.errors import PolicyError
from policy.problems import PROBLEMS_MAX, Problem, Problems, quote, refuse


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", '"plain"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("a\nb\x1b[2J", '"a\\nb\\x1b[2J"'),
        ("\u202e", '"\\u202e"'),
        ("ü", '"ü"'),
        ("x" * 61, '"' + "x" * 57 + '..."'),
        (True, "true"),
        (7, "7"),
        pytest.param(16**5000, "a huge number", id="huge"),
        ({}, "a table"),
        ([], "a list"),
    ],
)
def test_wrong_values_are_shown_on_one_line_and_never_at_any_length(value, shown):
    assert quote(value) == shown


def test_problems_are_told_once_each_in_the_order_of_the_file():
    problems = Problems("site.toml")
    problems.add(9, '[rule "b"]', "verdict", "late")
    problems.add(2, "", "version", "early")
    problems.add(2, "", "version", "early")
    problems.add(0, "", "", "of the whole")
    with pytest.raises(PolicyError) as caught:
        problems.raise_any()
    assert caught.value.message.split("\n") == [
        "site.toml: of the whole",
        "site.toml:2: version: early",
        'site.toml:9: [rule "b"] verdict: late',
    ]


def test_no_problem_is_no_error():
    Problems("site.toml").raise_any()


def test_a_message_has_an_end():
    problems = Problems("f")
    for line in range(1, PROBLEMS_MAX + 8):
        problems.add(line, "", "", "wrong")
    with pytest.raises(PolicyError) as caught:
        problems.raise_any()
    lines = caught.value.message.split("\n")
    assert len(lines) == PROBLEMS_MAX + 1
    assert lines[-1] == "f: and 7 more"


def test_problems_sort_by_line_before_all_else():
    assert Problem(2, "z", "", "") < Problem(10, "a", "", "")


def test_noting_goes_on_after_a_problem():
    problems = Problems("f")
    with problems.noting("port"):
        refuse(0, "is wrong")
    assert problems.found == [Problem(0, "", "port", "0 is wrong")]

import pytest

from ktls.errors import PolicyError
from policy import checks
from policy.positions import index
from policy.problems import Problems


def node(value, text: str = "") -> checks.Node:
    return checks.Node(value, (), "", 0, index(text), Problems("f"))


def told(problems: Problems) -> list[str]:
    return [problem.text("f") for problem in sorted(problems.found)]


def test_a_table_is_read_by_a_table_and_all_its_mistakes_are_noted():
    root = node({"a": 1, "b": "x", "prioritty": 3}, "a = 1\n\nb = 'x'\nprioritty = 3")
    values = root.read({"a": checks.flag, "b": checks.text, "priority": checks.text}, required=("c",))
    assert values == {"b": "x"}
    assert told(root.problems) == [
        "f:1: a: 1 is not true or false, without quotes",
        "f:1: c: is missing",
        'f:4: prioritty: unknown key; did you mean "priority"?',
    ]


def test_a_key_that_looks_like_none_is_told_which_there_are():
    assert checks.unknown("zzz", {"name": 1, "verdict": 2}) == "unknown key; permitted: name, verdict"


def test_keys_inside_are_called_by_their_way_from_the_table():
    root = node({"rule": {"time": {"from": 3}}}, "[rule]\ntime = { from = 3 }")
    rule = root.child("rule", value={"time": {"from": 3}}).called('[rule "a"]')
    rule.read({"time": lambda inner: inner.read({"from": checks.text})})
    assert told(root.problems) == ['f:2: [rule "a"] time.from: 3 is not a text in quotes, as "..."']


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks.text, 1),
        (checks.text, ""),
        (checks.text, "a\0b"),
        (checks.text, "x" * 4097),
        (checks.name, " a"),
        (checks.name, "a\nb"),
        (checks.name, "x" * 101),
        (checks.flag, "true"),
        (checks.flag, 1),
        (checks.choice("a", "b"), "c"),
        (checks.choice("a", "b"), ["a"]),
        (checks.integer(1, 9), 0),
        (checks.integer(1, 9), 10),
        (checks.integer(0, 9), True),
        (checks.integer(1, 9), 1.0),
        (checks.integer(1, 9), "1"),
        (checks.seconds(0.1, 10), 0),
        (checks.seconds(0.1, 10), float("nan")),
        (checks.seconds(0.1, 10), float("inf")),
        (checks.seconds(0.1, 10), True),
        (checks.each(checks.text), "a"),
        (checks.each(checks.text, least=1), []),
        (checks.each(checks.text), ["a"] * 1025),
    ],
)
def test_values_that_are_wrong(check, value):
    with pytest.raises(PolicyError):
        check(node(value))


@pytest.mark.parametrize(
    ("check", "value", "result"),
    [
        (checks.name, "a b", "a b"),
        (checks.integer(1, 9), 9, 9),
        (checks.seconds(0.1, 10), 3, 3.0),
        (checks.each(checks.text), [], ()),
        (checks.each(checks.text), ["a", "b"], ("a", "b")),
    ],
)
def test_values_that_are_right(check, value, result):
    assert check(node(value)) == result


def test_elements_have_lines_of_their_own():
    root = node({"a": ["x", 2, "x"]}, 'a = [\n"x",\n2,\n"x"]')
    assert root.read({"a": checks.each(checks.text)}) == {"a": ("x", "x")}
    assert told(root.problems) == ['f:3: a: 2 is not a text in quotes, as "..."', 'f:4: a: "x" is there twice']

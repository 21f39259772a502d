"""The syntax of AT-TLS policy files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import PolicyError
from policy.attls.statements import Parameter, read_statements


@pytest.mark.parametrize(
    "text",
    [
        "TTLSRule a~1\n{\n  Direction Inbound # which way\n  Inner x { Key 1 2 }\n}\n",
        "TTLSRule a~1 {\nDirection Inbound\nInner x\n{\nKey 1 2\n}\n}",
        "  TTLSRule\ta~1 {\nDirection Inbound\n Inner x { Key 1 2 } }",
    ],
)
def test_braces_may_stand_anywhere(text):
    (rule,) = read_statements(text, "f")
    assert (rule.kind, rule.label, rule.value("direction")) == ("TTLSRule", "a~1", "Inbound")
    (inner,) = rule.inner
    assert (inner.kind, inner.label, inner.parameters[0].words) == ("Inner", "x", ("1", "2"))


def test_a_parameter_knows_its_line_and_the_last_one_counts():
    (rule,) = read_statements("R a\n{\nKey 1\n\nKEY 2 3\n}\n", "f")
    assert list(rule.every("key")) == [Parameter("Key", ("1",), 3), Parameter("KEY", ("2", "3"), 5)]
    assert rule.value("Key") == "2 3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("R a\n{\n", "f:1: R is never closed"),
        ("}\n", "f:1: a closing brace without"),
        ("{ x }\n", "f:1: a brace without the name"),
        ("R a {" * 20, "f:1: statements are nested too deeply"),
    ],
)
def test_braces_that_do_not_match_have_a_line(text, words):
    with pytest.raises(PolicyError, match=words):
        read_statements(text, "f")


@given(st.text(st.sampled_from("{} \n#aB1"), max_size=200) | st.text())
def test_any_text_is_statements_or_an_error(text):
    try:
        found = read_statements(text, "f")
    except PolicyError:
        return
    assert len(found) <= len(text)

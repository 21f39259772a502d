import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.positions import index

TEXT = '''\
version = 1
"quoted.key" = 3
[keyring.web]   # with a comment
certificate = """
several ""quoted"" # lines
"""
trust = [ # ] no end yet
  "a", 'b#]',

  """c
d""", "e",
]
[[keyring.web.sni]]
names = ["x"]
  [[ rule ]]
name = 'a\\'
time = { days = ["mon", "tue"], from = "1" }
resumption.tickets = true
resumption . lifetime = 3
[rule.x]
date = 1979-05-27 07:32:00Z # and more
numbers = [1, -2.5e3, +inf, 0xff]
[[rule]]
name = "b"
'''

LINES = {
    ("version",): 1,
    ("quoted.key",): 2,
    ("keyring", "web"): 3,
    ("keyring", "web", "certificate"): 4,
    ("keyring", "web", "trust"): 7,
    ("keyring", "web", "trust", 0): 8,
    ("keyring", "web", "trust", 1): 8,
    ("keyring", "web", "trust", 2): 10,
    ("keyring", "web", "trust", 3): 11,
    ("keyring", "web", "sni", 0): 13,
    ("keyring", "web", "sni", 0, "names", 0): 14,
    ("rule", 0): 15,
    ("rule", 0, "name"): 16,
    ("rule", 0, "time", "days", 1): 17,
    ("rule", 0, "time", "from"): 17,
    ("rule", 0, "resumption", "tickets"): 18,
    ("rule", 0, "resumption", "lifetime"): 19,
    ("rule", 0, "x"): 20,
    ("rule", 0, "x", "date"): 21,
    ("rule", 0, "x", "numbers", 3): 22,
    ("rule", 1): 23,
    ("rule", 1, "name"): 24,
}


@pytest.mark.parametrize("place", LINES, ids=str)
def test_every_form_of_toml_has_its_line(place):
    assert index(TEXT).line(place) == LINES[place]


def test_the_sample_is_toml_and_all_of_its_places_are_indexed():
    assert places(tomllib.loads(TEXT)) <= set(index(TEXT).lines) | {()}
    assert index(TEXT).duplicates == ()


def places(value: object, place: tuple = ()) -> set:
    """All places of a parsed document, but for tables that exist only as a part of others' names."""
    found = {place} if not isinstance(value, dict) or len(place) > 1 else set()
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found.union(*(places(child, (*place, key)) for key, child in children))


def test_what_is_not_there_has_the_line_of_what_is_around_it():
    found = index(TEXT)
    assert found.line(("rule", 1, "verdict")) == 23
    assert found.line(("nothing", 4)) == 1
    assert found.line(()) == 1


def test_windows_line_ends_count_once():
    assert index("a = 1\r\n\r\nb = 2\r\n").line(("b",)) == 3


def test_what_is_there_twice_is_found_with_both_lines():
    text = "[a]\nx = 1\nx = 2\n[b]\n[a]\n[[c]]\n[[c]]\n[c.d]\n[c.d]\n"
    assert index(text).duplicates == ((("a", "x"), 2, 3), (("a",), 1, 5), (("c", 1, "d"), 8, 9))


@pytest.mark.parametrize(
    "text", ["a", "a =", "[", "[[x", "[x", "= 1", 'a = "', "a = [1", "a = {b", "a = [" * 500, '"\\q" = 1', "\x00"]
)
def test_what_is_no_toml_ends_the_index_and_no_more(text):
    found = index("first = 1\n" + text)
    assert found.line(("first",)) == 1


@given(st.text(alphabet="[]{}=.,\"'#\\\n\r ab1", max_size=60))
def test_any_text_has_an_index(text):
    for line in index(text).lines.values():
        assert 1 <= line <= text.count("\n") + 1


KEYS = st.sampled_from(["a", "b", '"c d"', "'e.f'", '"g\\u0041"'])
VALUES = st.recursive(
    st.sampled_from(["1", "true", "-0.5", '"x]"', "'y}'", '"""m\n\\"n"""', "'''o\np'''", "1979-05-27", '"\\\\"']),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # , \n".join(items) + "]"),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=6))
def test_keys_have_the_line_they_were_written_in(pairs):
    text, lines = "", []
    for number, (key, value) in enumerate(pairs):
        text += f"# {number}\n[[table]]\n"
        lines.append(text.count("\n") + 1)
        text += f"{key} = {value}\n"
    tables = tomllib.loads(text).get("table", [])
    for number, table in enumerate(tables):
        (key,) = table
        assert index(text).line(("table", number, key)) == lines[number]
        assert places(table) <= {place[2:] for place in index(text).lines if place[:2] == ("table", number)} | {()}

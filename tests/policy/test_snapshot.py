import pytest

BASE = """
[[rule]]
name = "a"
verdict = "tls"
direction = "outbound"
remote = ["10.0.0.0/8"]
action = "x"
[action.x]
engine = "relay"
"""


def revision(load_text, text: str) -> str:
    return load_text(text).revision


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[[rule]]", "# a comment\n\n[[rule]]"),
        ('name = "a"\nverdict = "tls"', "verdict   =   \"tls\"\nname = 'a'"),
        ("10.0.0.0/8", "10.0.0.0-10.255.255.255"),
        ('engine = "relay"', 'engine = "relay"\nmin_version = "1.2"'),
        ("verdict", "priority = 1\nverdict"),
        ("[action.x]", "[action.unused]\n[action.x]"),
    ],
)
def test_what_says_the_same_has_the_same_revision(load_text, old, new):
    assert revision(load_text, BASE.replace(old, new)) == revision(load_text, BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"a"', '"b"'),
        ("10.0.0.0/8", "10.0.0.0/9"),
        ('"relay"', '"kernel"'),
        ("verdict", "priority = 2\nverdict"),
        ('"tls"', '"clear"'),
        ("[[rule]]", 'default = "deny"\n[[rule]]'),
        ("remote", "local"),
        ('direction = "outbound"', 'direction = "outbound"\ntime = { days = ["mon"] }'),
    ],
)
def test_what_says_something_else_has_another(load_text, old, new):
    assert revision(load_text, BASE.replace(old, new)) != revision(load_text, BASE)


def test_a_revision_is_short_and_the_same_everywhere(load_text):
    assert revision(load_text, BASE) == "411ed214c63e"  # two agents of a fleet must agree

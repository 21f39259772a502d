"""What a policy is meant to say."""

import pytest

from ktls.errors import PolicyError
from policy.expectations import read_expectations, try_expectations

POLICY = '[[rule]]\nname = "web"\nremote_port = ["443"]\nverdict = "deny"\n'
EXPECT = '[[expect]]\nname = "{}"\ndirection = "outbound"\nremote = "10.0.0.1:{}"\nverdict = "{}"\n'


@pytest.fixture
def read(tmp_path):
    def read_text(text: str):
        path = tmp_path / "site.test.toml"
        path.write_text(text)
        return read_expectations(path)

    return read_text


def test_expectations_hold_or_say_what_was_given(load_text, read):
    text = EXPECT.format("a", 443, "deny") + 'rule = "web"\n' + EXPECT.format("b", 80, "clear") + 'rule = ""\n'
    text += EXPECT.format("c", 443, "tls") + EXPECT.format("d", 443, "deny") + 'rule = "other"\n'
    outcomes = try_expectations(load_text(POLICY), read(text))
    assert [one.held for one in outcomes] == [True, True, False, False]
    assert outcomes[0].line() == 'a: deny by rule "web"'
    assert outcomes[1].line() == "b: clear by default"
    assert outcomes[2].line().startswith('c: expected tls, got deny by rule "web": rule "web" fits')
    assert outcomes[2].expectation.line == 13


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expect: is missing"),
        ("expect = 1\n", "is not a list of expectations"),
        ("[[expect]]\n", "1: .expect 1. direction: is missing"),
        (EXPECT.format("a", 443, "maybe"), 'a"] verdict: "maybe" is not one of'),
        (EXPECT.format("a", 443, "deny") + "prot = 1\n", "prot: unknown key"),
        (EXPECT.format("a", 99999, "deny"), "is not an address and a port"),
        ("[[expect]\n", "is not TOML"),
    ],
)
def test_mistakes_have_their_place(read, text, words):
    with pytest.raises(PolicyError, match=words):
        read(text)

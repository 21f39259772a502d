"""The keyrings of a policy, and who uses each."""

from pathlib import Path

import pytest

from ktls.errors import PolicyError
from policy.keyring_uses import keyring_uses

POLICY = """\
version = 1

[[rule]]
name = "web"
direction = "inbound"
verdict = "tls"
action = { keyring = "server" }

[[rule]]
name = "mail"
direction = "inbound"
verdict = "tls"
priority = 9
action = "plain"

[[rule]]
name = "out"
direction = "outbound"
verdict = "tls"
action = {}

[action.plain]
keyring = "server"

[action.idle]
keyring = "spare"

[keyring.server]
certificate = "web.pem"
private_key = "web.key"
trust = [
    "system",
    "ca.pem",
]

[[keyring.server.sni]]
names = ["a.example"]
certificate = "a.pem"
private_key = "a.key"

[keyring.spare]
"""


def uses(text: str = POLICY):
    return keyring_uses(text.encode(), Path("/etc/ktls/site.toml"))[1]


def test_every_keyring_is_there_with_its_rules_and_actions_though_no_file_is():
    assert [(use.keyring.name, use.rules, use.actions) for use in uses()] == [
        ("server", ("mail", "web"), ("plain",)),
        ("spare", (), ("idle",)),
    ]
    assert uses()[0].keyring.certificate == Path("/etc/ktls/web.pem")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ((), "site.toml:28: [keyring.server]: x"),
        (("certificate",), "site.toml:29: [keyring.server] certificate: x"),
        (("trust", 1), "site.toml:33: [keyring.server] trust: x"),
        (("sni", 0, "private_key"), "site.toml:39: [keyring.server] sni.private_key: x"),
        (("crl",), "site.toml:28: [keyring.server] crl: x"),
    ],
)
def test_a_problem_has_the_line_of_its_key_or_of_the_keyring(key, text):
    assert uses()[0].problem(key, "x").text("site.toml") == text


def test_a_policy_without_keyrings_has_none():
    assert uses("version = 1\n") == ()


def test_a_policy_with_mistakes_is_refused():
    with pytest.raises(PolicyError, match=r"site.toml:2: \[keyring.x\] trusd: unknown key"):
        uses('version = 1\nkeyring.x.trusd = "a"\n')

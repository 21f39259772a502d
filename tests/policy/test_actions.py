import pytest

from ktls.ciphers import SUITES
from policy.actions import CIPHERS, peer_identity
from policy.model import Action, Rekey, Resumption

RULE = '[[rule]]\nname = "out"\ndirection = "outbound"\nverdict = "tls"\naction = "a"\n'


def action(load_text, text: str) -> Action:
    return load_text(f"{RULE}[action.a]\n{text}").rules[0].action


def test_ciphers_are_those_that_can_be_used():
    versions = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}
    ours = {suite.iana_name: {version.label for version in suite.versions} for suite in SUITES}
    assert {name: {versions[version]} for name, version in CIPHERS.items()} == ours


def test_an_empty_action_has_the_defaults(load_text):
    assert action(load_text, "") == Action("a")


def test_everything_an_action_can_say(load_text, folder):
    text = """
keyring = "k"
role = "client"
min_version = "1.3"
max_version = "1.3"
ciphers = ["TLS_AES_256_GCM_SHA384"]
alpn = ["http/1.1"]
verify = "chain"
peer_name = "DB.example"
client_auth = "required"
peer_identities = ["DNS:*.App.example", "URI:spiffe://example/app"]
handshake_timeout = 3
allow_clear_on_timeout = true
engine = "no-nic"
application_controlled = false
negotiate = ""
already_tls = "pass"
resumption = { tickets = false, lifetime = 60 }
rekey = { records = 1000, seconds = 5 }
on_change = "drain"
secondary = false
eof = "lenient"
keylog = "keys.log"
[keyring.k]
trust = ["ca.pem"]
"""
    found = action(load_text, text)
    assert found.keyring.trust == (str(folder / "ca.pem"),)
    assert found == Action(
        name="a",
        keyring=found.keyring,
        role="client",
        min_version="1.3",
        max_version="1.3",
        ciphers=("TLS_AES_256_GCM_SHA384",),
        alpn=("http/1.1",),
        verify="chain",
        peer_name="db.example",
        client_auth="required",
        peer_identities=("DNS:*.app.example", "URI:spiffe://example/app"),
        handshake_timeout=3.0,
        allow_clear_on_timeout=True,
        engine="no-nic",
        already_tls="pass",
        resumption=Resumption(tickets=False, lifetime=60),
        rekey=Rekey(1000, 5),
        on_change="drain",
        secondary=False,
        eof="lenient",
        keylog=folder / "keys.log",
    )


def test_what_is_left_out_of_a_table_inside_has_its_default(load_text):
    assert action(load_text, "resumption.tickets = false").resumption == Resumption(tickets=False)


def test_an_empty_keylog_is_none(load_text):
    assert action(load_text, 'keylog = ""').keylog is None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('keyring = "wep"', 'keyring: "wep" is not a keyring of this file; did you mean "web"?'),
        ('role = "servant"', 'role: "servant" is not one of "auto", "client", "server"'),
        ("min_version = 1.2", 'min_version: 1.2 is not one of "1.2", "1.3"'),
        ('min_version = "1.3"\nmax_version = "1.2"', 'min_version: "1.3" is above max_version, "1.2"'),
        (
            'ciphers = ["TLS_AES_256_GCM_SHA348"]',
            'ciphers: "TLS_AES_256_GCM_SHA348" is not the IANA name of a cipher suite that can be used;'
            " did you mean TLS_AES_256_GCM_SHA384?",
        ),
        (
            'ciphers = ["ECDHE-RSA-AES128-GCM-SHA256"]',
            'ciphers: "ECDHE-RSA-AES128-GCM-SHA256" is not the IANA name of a cipher suite that can be used;'
            " did you mean TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256?",
        ),
        (
            'ciphers = ["TLS_AES_256_GCM_SHA384"]\nmax_version = "1.2"',
            "ciphers: none of these is of a version that is permitted, TLS 1.2 to 1.2",
        ),
        (
            'alpn = ["h\\u00e9"]',
            'alpn: "hé" is not a protocol name, as "http/1.1": 1 to 255 printable ASCII characters',
        ),
        ('verify = "yes"', 'verify: "yes" is not one of "name", "chain", "none"'),
        ('peer_name = "a b"', 'peer_name: "a b" is not a host name, as "db.example"'),
        ("handshake_timeout = 0", "handshake_timeout: 0 is not a number of seconds from 0.1 to 3600"),
        ("handshake_timeout = nan", "handshake_timeout: nan is not a number of seconds from 0.1 to 3600"),
        ('engine = "nick"', 'engine: "nick" is not one of "auto", "nic", "kernel", "relay", "no-nic"'),
        ("secondary = 1", "secondary: 1 is not true or false, without quotes"),
        (
            "resumption.lifetime = 604801",
            "resumption.lifetime: 604801 is not a whole number of seconds from 1 to 604800",
        ),
        ("rekey = { records = 0 }", "rekey.records: 0 is not a whole number from 1 to 23726566"),
        ("rekey = { record = 1 }", 'rekey.record: unknown key; did you mean "records"?'),
        ("rekey = 5", "rekey: 5 is not a table"),
        ('chipers = ["x"]', 'chipers: unknown key; did you mean "ciphers"?'),
    ],
)
def test_what_is_wrong_with_an_action(problems, line, what):
    assert problems(f'[action.a]\n{line}\n[keyring.web]\ntrust = ["ca.pem"]\n') == [f"3: [action.a] {what}"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("DNS:App.example", "DNS:app.example"),
        ("IP:2001:DB8::1", "IP:2001:db8::1"),
        ("EMAIL:Ann.B@Example.COM", "EMAIL:Ann.B@example.com"),
        ("URI:spiffe://example/App", "URI:spiffe://example/App"),
        ("SHA256:" + "AB:" * 31 + "AB", "SHA256:" + "ab" * 32),
    ],
)
def test_identities_are_spelled_in_one_way(text, read):
    assert peer_identity(text) == read


@pytest.mark.parametrize("text", ["app.example", "dns:a", "URI:a b", "URI:/x", "SHA256:abc", "EMAIL:a", "EMAIL:*@b"])
def test_what_is_no_identity(problems, text):
    (problem,) = problems(f'[action.a]\npeer_identities = ["{text}"]\n')
    assert problem.startswith(f'3: [action.a] peer_identities: "{text}" is not an identity')


@pytest.mark.parametrize(("text", "what"), [("DNS:", "is not a host name"), ("IP:x", "is not an IP address")])
def test_what_is_no_name_in_an_identity(problems, text, what):
    (problem,) = problems(f'[action.a]\npeer_identities = ["{text}"]\n')
    assert what in problem


@pytest.mark.parametrize("text", ["action = 3", "[[action]]", "[action]\na = 3"])
def test_actions_are_tables(problems, text):
    (problem,) = problems(text)
    assert "is not a table" in problem

"""[[map]]: which local user somebody with a certificate is."""

from policy.identities import UserMapping

RULE = """
[[rule]]
name = "in"
direction = "inbound"
verdict = "tls"
action = { keyring = "k", client_auth = "map" }
[keyring.k]
pkcs12 = "web.p12"
trust = ["ca.pem"]
"""


def one(identity: str, user: str) -> str:
    return f'[[map]]\nidentity = "{identity}"\nuser = "{user}"\n'


def test_the_mappings_are_part_of_the_actions_that_map(load_text):
    text = one("DNS:*.App.example", "app") + one("EMAIL:Ann@Example.Com", "ann") + RULE
    text += '[[rule]]\nname = "out"\ndirection = "outbound"\nverdict = "tls"\naction = { }\n'
    policy = load_text(text)
    assert policy.rules[0].action.users == (
        UserMapping("DNS:*.app.example", "app"),
        UserMapping("EMAIL:Ann@example.com", "ann"),
    )
    assert policy.rules[1].action.users == ()


def test_who_is_mapped_to_whom_is_part_of_what_a_policy_says(load_text):
    revisions = {load_text(one("DNS:a.example", user) + RULE).revision for user in ("app", "root", "app")}
    assert len(revisions) == 2


def test_without_mappings_nobody_would_be_let_in(problems):
    assert problems(RULE) == [
        '7: [rule "in"] action.client_auth: "map" needs [[map]] tables: without one nobody is let in'
    ]


def test_mistakes_are_told_with_their_places(problems):
    text = one("CN=app", "app") + one("DNS:a.example", "1000") + one("DNS:b.example", "app") * 2
    text += '[[map]]\nidentity = "DNS:c.example"\nusr = "app"\n'
    assert problems(text) == [
        '3: [map 1] identity: "CN=app" is not an identity: "DNS:host", "IP:address", "EMAIL:mailbox", '
        '"URI:scheme:rest", "SHA256:hex"',
        '7: [map 2] user: "1000" is a number: a mapping names a user by its login name',
        '12: [map 4] identity: "DNS:b.example" is mapped in line 8 already',
        "14: [map 5] user: is missing",
        '16: [map 5] usr: unknown key; did you mean "user"?',
    ]
    assert problems('map = "x"\n') == ['2: map: "x" is not a list of mappings; each is written [[map]]']
    assert "too many" in problems(one("DNS:a.example", "a") * 10_001)[0]

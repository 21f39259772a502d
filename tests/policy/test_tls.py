import pytest

RULE = '[[rule]]\nname = "r"\nverdict = "tls"\n'
SERVER = '[keyring.k]\npkcs12 = "web.p12"\n'


def test_tls_needs_an_action(problems):
    assert problems(RULE) == ['4: [rule "r"] verdict: a verdict of "tls" needs an action: the name of one, or { ... }']


@pytest.mark.parametrize(
    ("line", "key", "shown", "default"),
    [
        ("application_controlled = true", "application_controlled", "true", "false"),
        ('negotiate = "smtp"', "negotiate", '"smtp"', '""'),
        ('already_tls = "adopt"', "already_tls", '"adopt"', '"pass"'),
    ],
)
def test_what_is_not_available_yet_is_refused_in_a_tls_rule_only(problems, line, key, shown, default):
    what = f"{shown} is not available yet; permitted for now: {default}, the default"
    named = f'{RULE}direction = "outbound"\naction = "a"\n[action.a]\n{line}\n'
    assert problems(named) == [f'8: [rule "r"] action "a" {key}: {what}']
    inside = f'{RULE}direction = "outbound"\naction = {{ {line} }}\n'
    assert problems(inside) == [f'6: [rule "r"] action.{key}: {what}']
    assert problems(named.replace('"tls"', '"clear"')) == []
    assert problems(f"[action.a]\n{line}\n") == []


@pytest.mark.parametrize("direction", ['direction = "inbound"\n', 'direction = "outbound"\n'])
@pytest.mark.parametrize("role", ["client", "server", "auto"])
@pytest.mark.parametrize("keyring", ["", 'keyring = "k", '])
def test_who_serves_needs_a_certificate(problems, direction, role, keyring):
    found = problems(f'{SERVER}{RULE}{direction}action = {{ {keyring}role = "{role}" }}\n')
    serves = role == "server" or (role == "auto" and "inbound" in direction)
    what = '8: [rule "r"] action.keyring: a server needs a keyring with a certificate and private_key'
    assert found == ([what] if serves and not keyring else [])


def test_a_rule_for_both_directions_serves_too(problems):
    (problem,) = problems(f"{RULE}action = {{ }}\n")
    assert problem.endswith('private_key; a rule for clients only says direction = "outbound"')


def test_a_keyring_that_cannot_be_read_is_not_also_missing(problems):
    (problem,) = problems(f'[keyring.k]\npkcs12 = "none"\n{RULE}action = {{ keyring = "k" }}\n')
    assert problem.startswith("3: [keyring.k] pkcs12: cannot read")


@pytest.mark.parametrize("auth", ["none", "passthru", "full", "required", "map"])
def test_clients_are_not_let_in_by_just_any_public_certificate(problems, auth):
    head = '[[map]]\nidentity = "DNS:a"\nuser = "app"\n' if auth == "map" else ""
    text = f'{head}{SERVER}{RULE}direction = "inbound"\naction = {{ keyring = "k", client_auth = "{auth}" }}\n'
    assert len(problems(text)) == (auth in ("full", "required"))  # with "map" the mappings name them
    assert problems(text.replace('p12"\n', 'p12"\ntrust = ["ca.pem"]\n')) == []
    named = text.replace(" }", ', peer_identities = ["DNS:a"] }')
    assert len(problems(named)) == (auth in ("none", "passthru"))


def test_identities_that_nobody_vouches_for_are_refused(problems):
    text = f'{RULE}direction = "outbound"\naction = {{ verify = "none", peer_identities = ["DNS:a"] }}\n'
    assert problems(text) == [
        '6: [rule "r"] action.peer_identities: nobody vouches for "DNS:a" with verify = "none": use "chain"'
    ]
    assert problems(text.replace("DNS:a", "SHA256:" + "ab" * 32)) == []
    assert problems(text.replace('"none"', '"chain"')) == []


def test_an_action_used_twice_is_wrong_for_each_rule_that_cannot_have_it(problems):
    second = RULE.replace('"r"', '"s"')
    found = problems(f'{RULE}action = "a"\n{second}action = "a"\n[action.a]\n')
    assert [problem.partition(" action")[0] for problem in found] == ['5: [rule "r"]', '9: [rule "s"]']

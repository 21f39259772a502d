import pytest

from policy.identities import Keyring, SniEntry

USE = """
[[rule]]
name = "r"
verdict = "tls"
action = { keyring = "web", client_auth = "none" }
"""


def keyring(load_text, text: str) -> Keyring:
    return load_text(f"[keyring.web]\n{text}\n{USE}").rules[0].action.keyring


def test_everything_a_keyring_can_hold(load_text, folder):
    text = """
certificate = "web.pem"
private_key = "web.key"
password_file = "password"
trust = ["ca.pem", "system", "."]
crl = ["ca.crl"]
[[keyring.web.sni]]
names = ["*.Shop.example", "shop.example"]
certificate = "shop.pem"
private_key = "shop.key"
"""
    assert keyring(load_text, text) == Keyring(
        name="web",
        certificate=folder / "web.pem",
        private_key=folder / "web.key",
        password_file=folder / "password",
        trust=(str(folder / "ca.pem"), "system", str(folder)),
        crl=(folder / "ca.crl",),
        sni=(SniEntry(("*.shop.example", "shop.example"), folder / "shop.pem", folder / "shop.key"),),
    )


def test_pkcs12_instead_of_certificate_and_key(load_text, folder):
    found = keyring(load_text, 'pkcs12 = "web.p12"\npassword_file = "password"')
    assert (found.pkcs12, found.password_file) == (folder / "web.p12", folder / "password")
    assert found.trust == ("system",)


def test_paths_may_be_absolute(load_text, folder):
    assert keyring(load_text, f'pkcs12 = "{folder}/web.p12"').pkcs12 == folder / "web.p12"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('certificate = "web.pem"', "3: [keyring.web] certificate: needs private_key with it"),
        ('private_key = "web.key"', "3: [keyring.web] private_key: needs certificate with it"),
        (
            'pkcs12 = "web.p12"\ncertificate = "web.pem"\nprivate_key = "web.key"',
            "3: [keyring.web] pkcs12: holds certificate and key: leave out either it or certificate and private_key",
        ),
        (
            'password_file = "password"',
            "3: [keyring.web] password_file: opens nothing: it goes with pkcs12 or private_key",
        ),
        ("trust = []", "3: [keyring.web] trust: an empty list says nothing: give at least one, or leave the key out"),
        ('trust = "ca.pem"', '3: [keyring.web] trust: "ca.pem" is not a list, as ["..."]'),
        ("certificate = 3", '3: [keyring.web] certificate: 3 is not a text in quotes, as "..."'),
        ('certificat = "web.pem"', '3: [keyring.web] certificat: unknown key; did you mean "certificate"?'),
        ("sni = 3", "3: [keyring.web] sni: is not a list of tables; each is written [[keyring.NAME.sni]]"),
        ("sni = [3]", "3: [keyring.web] sni: 3 is not a table"),
        (
            'sni = [{ names = ["a"], certificate = "web.pem", private_key = "web.key" }]',
            "3: [keyring.web] sni: needs a certificate and private_key of the keyring's own,"
            " for clients that ask for no name",
        ),
    ],
)
def test_what_is_wrong_with_a_keyring(problems, text, problem):
    assert problem in problems(f"[keyring.web]\n{text}\n")


def test_files_that_cannot_be_read_are_all_named_and_nothing_is_said_to_be_missing_too(problems, folder):
    text = f"""[keyring.web]
certificate = "none.pem"
private_key = "none.key"
trust = [
    "ca.pem",
    "none.ca",
]
crl = ["."]
{USE}"""
    gone = "No such file or directory"
    assert problems(text) == [
        f'3: [keyring.web] certificate: cannot read "{folder}/none.pem": {gone}',
        f'4: [keyring.web] private_key: cannot read "{folder}/none.key": {gone}',
        f'7: [keyring.web] trust: cannot read "{folder}/none.ca": {gone}',
        f'9: [keyring.web] crl: "{folder}" is not a file',
    ]


def test_entries_for_names_are_whole_and_do_not_share_a_name(problems):
    text = """[keyring.web]
pkcs12 = "web.p12"
[[keyring.web.sni]]
names = ["a.example"]
certificate = "shop.pem"
private_key = "shop.key"
[[keyring.web.sni]]
names = ["b.example", "A.example"]
certificate = "shop.pem"
private_key = "shop.key"
[[keyring.web.sni]]
names = ["*.*.example"]
certificate = "shop.pem"
"""
    taken, missing, wrong = problems(text)
    assert taken == '9: [keyring.web] sni.names: "a.example" has a certificate already, and the first would be used'
    assert missing == "12: [keyring.web] sni.private_key: is missing"
    assert wrong.startswith('13: [keyring.web] sni.names: "*.example" is not a host name')


@pytest.mark.parametrize("text", ["keyring = 3", "[[keyring]]", "[keyring]\nweb = 3"])
def test_keyrings_are_tables(problems, text):
    (problem,) = problems(text)
    assert "is not a table" in problem

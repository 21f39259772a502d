import os
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktls.errors import PolicyError
from policy.document import FILE_MAX
from policy.load import load, parse
from policy.model import Verdict


def refused(path) -> str:
    with pytest.raises(PolicyError) as caught:
        load(path)
    return caught.value.message


def test_the_smallest_policy(load_text):
    policy = load_text("")
    assert (policy.rules, policy.default) == ((), Verdict.CLEAR)
    assert policy.file.endswith("policy.toml")


def test_the_default_may_be_deny(load_text):
    assert load_text('default = "deny"').default is Verdict.DENY


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ("", "1: version: is missing"),
        ("version = 2", "1: version: 2 is not a whole number from 1 to 1"),
        ('\nversion = "1"', '2: version: "1" is not a whole number from 1 to 1'),
        ('version = 1\ndefault = "tls"', '2: default: "tls" is not one of "clear", "deny"'),
        ("version = 1\n[rules]", '2: rules: unknown key; did you mean "rule"?'),
    ],
)
def test_what_is_wrong_at_the_top(problems, head, problem):
    assert problems("", head=head) == [problem]


def test_files_of_other_hosts_are_not_looked_for(tmp_path):
    text = b'version = 1\n[keyring.web]\ncertificate = "web.pem"\nprivate_key = "web.key"\ntrust = ["none"]\n'
    assert parse(text, tmp_path / "site.toml", files=False).rules == ()
    with pytest.raises(PolicyError) as caught:
        parse(text, tmp_path / "site.toml")
    assert caught.value.message.count("cannot read") == 3


def test_all_problems_are_told_at_once(problems, folder):
    text = """default = "maybe"
[[rule]]
name = "web"
priority = 0
remote_port = ["https", "90-80"]
verdict = "tls"
action = { keyring = "wep", engine = "nick" }
[keyring.web]
certificate = "none.pem"
private_key = "web.key"
[action.modern]
eof = false
"""
    assert problems(text) == [
        '2: default: "maybe" is not one of "clear", "deny"',
        '5: [rule "web"] priority: 0 is not a whole number from 1 to 2000000000',
        '6: [rule "web"] remote_port: "90-80" is turned round: "80-90" is the range',
        '6: [rule "web"] remote_port: "https" is not a port: 1 to 65535, or a range "a-b"',
        '8: [rule "web"] action.engine: "nick" is not one of "auto", "nic", "kernel", "relay", "no-nic"',
        '8: [rule "web"] action.keyring: "wep" is not a keyring of this file; did you mean "web"?',
        '8: [rule "web"] action.keyring: a server needs a keyring with a certificate and private_key;'
        ' a rule for clients only says direction = "outbound"',
        f'10: [keyring.web] certificate: cannot read "{folder}/none.pem": No such file or directory',
        '13: [action.modern] eof: false is not one of "strict", "lenient"',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[rule]\n", "2: is not TOML: Expected ']]' at the end of an array declaration"),
        ('a = "', "2: is not TOML: Unterminated string"),
        ("a = 1979-02-30", "2: is not TOML: Invalid date or datetime"),
    ],
)
def test_what_is_no_toml_has_its_line(problems, text, problem):
    assert problems(text) == [problem]


def test_a_number_no_machine_can_hold_is_a_problem_like_others(problems):
    (problem,) = problems(f"a = {'9' * 5000}\n")
    assert "is not TOML" in problem
    (problem,) = problems(f"default = 0x{'f' * 5000}\n")
    assert problem == '2: default: a huge number is not one of "clear", "deny"'


def test_names_declared_twice_are_all_told_with_the_line_of_the_first(problems):
    text = '[action.a]\n[keyring.k]\ntrust = ["ca.pem"]\n[action.a]\n[keyring.k]\n'
    assert problems(text) == [
        "5: action.a: is there twice; the first one is in line 2",
        "6: keyring.k: is there twice; the first one is in line 3",
    ]
    assert problems("[action.a]\neof = 'strict'\neof = 'lenient'\n") == [
        "4: action.a.eof: is there twice; the first one is in line 3"
    ]


def test_what_is_nested_too_deeply_is_refused(problems):
    (problem,) = problems(f"a = {'[' * 5000}{']' * 5000}")
    assert problem == "1: its lists or tables are nested too deeply"


def test_what_is_not_utf8_has_its_line(folder):
    (folder / "policy.toml").write_bytes(b"version = 1\n# caf\xe9\n")
    assert refused(folder / "policy.toml") == f"{folder}/policy.toml:2: byte 0xe9 is not UTF-8, which TOML is"


def test_a_byte_order_mark_is_told(folder):
    (folder / "policy.toml").write_bytes(b"\xef\xbb\xbfversion = 1\n")
    assert "byte order mark" in refused(folder / "policy.toml")


def test_windows_line_ends_are_fine(folder):
    (folder / "policy.toml").write_bytes(b"version = 1\r\n[action.a]\r\neof = 3\r\n")
    assert ":3: [action.a] eof" in refused(folder / "policy.toml")


def test_a_file_that_is_not_there(folder):
    assert refused(folder / "none.toml") == f"{folder}/none.toml: cannot be read: No such file or directory"


def test_a_loop_of_links(folder):
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    assert refused(folder / "a") == f"{folder}/a: cannot be read: its symbolic links form a loop"


def test_a_directory_and_a_fifo_are_no_policies(folder, fd_count):
    os.mkfifo(folder / "fifo")
    before = fd_count()
    assert refused(folder / "fifo") == f"{folder}/fifo: is not a file"
    assert "Is a directory" in refused(folder)
    assert fd_count() == before


def test_a_path_with_a_null_character_is_refused(folder):
    assert "null character" in refused(folder / "a\0b")


def test_a_file_has_a_bound(folder):
    path = folder / "policy.toml"
    path.write_bytes(b"version = 1\n" + b"#" * (FILE_MAX - 12))
    load(path)
    path.write_bytes(b"version = 1\n" + b"#" * (FILE_MAX - 11))
    assert f"more than {FILE_MAX} bytes" in refused(path)


def test_a_relative_path_finds_its_keyrings(folder, monkeypatch):
    (folder / "policy.toml").write_text('version = 1\n[keyring.k]\ntrust = ["ca.pem"]\n')
    monkeypatch.chdir(folder)
    from pathlib import Path

    load(Path("policy.toml"))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = (
    "version",
    "default",
    "keyring",
    "action",
    "rule",
    "name",
    "priority",
    "direction",
    "remote",
    "user",
    "group",
    "map",
    "time",
    "verdict",
    "sni",
    "names",
    "eof",
    "rekey",
    "records",
    "a",
)
KEYS = st.sampled_from(WORDS)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)


def toml(value: object) -> str:
    """Write a value as TOML, all in one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {toml(held)}" for key, held in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
        case bool():
            return str(value).lower()
        case None:
            return "1979-05-27"
    return str(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.dictionaries(KEYS, DOCUMENTS, max_size=6))
def test_any_document_is_a_policy_or_a_policy_error(folder, document):
    data = "\n".join(f"{key} = {toml(value)}" for key, value in document.items()).encode("utf-8", "surrogatepass")
    try:
        parse(data, folder / "policy.toml")
    except PolicyError as error:
        message = error.message
    else:
        return
    assert message.startswith(f"{folder}/policy.toml:")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40) | st.text(alphabet='[]{}=.,"#\\\n a1', max_size=40).map(str.encode))
def test_any_bytes_are_a_policy_or_a_policy_error(folder, data):
    with pytest.raises(PolicyError):  # none of these says its version
        parse(data, folder / "policy.toml")


def test_the_message_of_tomllib_still_has_its_place_at_the_end():
    with pytest.raises(tomllib.TOMLDecodeError, match=r"\(at line 2, column 7\)$"):
        tomllib.loads("\na = 1 1")

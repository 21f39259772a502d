"""`ktls keyring` as a command line."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from policy.admin.keyrings import group as keyring_group
from tests.ktls.certificates import DAY, NOW, make, write_chain, write_key

POLICY = """\
version = 1
[[rule]]
name = "web"
direction = "inbound"
verdict = "tls"
action = "server"
[action.server]
keyring = "web"
[keyring.web]
certificate = "web.pem"
private_key = "web.key"
trust = ["ca.pem", "system"]
[[keyring.web.sni]]
names = ["shop.example"]
certificate = "shop.pem"
private_key = "shop.key"
[keyring.client]
trust = ["ca.pem"]
"""


@pytest.fixture
def rings(tmp_path) -> Path:
    """A policy whose keyrings are in order, for 90 days."""
    root = make("root")
    write_chain(tmp_path / "ca.pem", root)
    for name in ("web", "shop"):
        leaf = make(name, root, names=[f"{name}.example"])
        write_chain(tmp_path / f"{name}.pem", leaf)
        write_key(tmp_path / f"{name}.key", leaf)
    path = tmp_path / "site.toml"
    path.write_text(POLICY)
    return path


def test_list_has_a_row_for_each_certificate(ktls_keyring, rings):
    status, out, err = ktls_keyring("list", rings)
    owner = f"{rings.owner()}:{rings.group()} 0600"
    assert (status, err) == (0, "")
    until = f"{NOW + 90 * DAY:%Y-%m-%d} 89"
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "KEYRING USED BY HOLDS SUBJECT NAMES ISSUER KEY OWNER OF KEY NOT AFTER DAYS WRONG",
        "web web; action server chain of 1, 1 more certificate, trusts 1 anchor and the system's "
        f"web web.example root EC secp256r1 {owner} {until} -",
        f"web for shop.example shop shop.example root EC secp256r1 {owner} {until}",
        "client - trusts 1 anchor -",
    ]


def test_list_counts_what_is_wrong_and_goes_on(ktls_keyring, rings):
    (rings.parent / "web.key").unlink()
    (rings.parent / "shop.pem").write_text("")
    status, out, _ = ktls_keyring("list", rings)
    assert status == 0
    assert [line.split()[-2:] for line in out.splitlines()[1:2]] == [["2", "errors"]]
    (rings.parent / "web.pem").unlink()
    assert "3 errors" in ktls_keyring("list", rings)[1]


def test_list_tells_programs_everything(ktls_keyring, rings):
    _, found, _ = ktls_keyring("list", rings, "--json")
    web, client = found[str(rings)]["keyrings"]
    assert (web["name"], web["line"], web["rules"], web["actions"]) == ("web", 9, ["web"], ["server"])
    assert [one["chain"][0]["subject"] for one in web["certificates"]] == ["CN=web", "CN=shop"]
    assert (client["anchors"], client["system"], client["problems"]) == (1, False, [])


def test_several_policies_are_told_apart(ktls_keyring, rings):
    other = rings.with_name("other.toml")
    other.write_text("version = 1\n[keyring.mine]\n")
    _, out, _ = ktls_keyring("list", rings, other)
    assert [line.split()[0] for line in out.splitlines()] == ["POLICY", *[str(rings)] * 3, str(other)]
    assert ktls_keyring("list", other.with_name("none.toml"), rings)[0] == 2
    other.write_text("version = 1\n")
    assert ktls_keyring("list", other) == (0, "no keyrings\n", "")


def test_check_says_nothing_of_keyrings_in_order(ktls_keyring, rings):
    assert ktls_keyring("check", rings) == (0, "2 keyrings: no errors, no warnings\n", "")


def test_check_tells_errors_and_warnings_and_how_it_went(ktls_keyring, rings):
    folder = rings.parent
    (folder / "web.key").chmod(0o640)
    warning = (
        f"warning: {rings}:11: [keyring.web] private_key: {folder}/web.key: is open to its group: "
        f'chmod 600 {folder}/web.key (rule "web")\n'
    )
    assert ktls_keyring("check", rings) == (0, "2 keyrings: no errors, 1 warning\n", warning)
    assert ktls_keyring("check", "--strict", rings)[0] == 1
    (folder / "shop.key").unlink()
    status, out, err = ktls_keyring("check", rings)
    assert (status, out) == (1, "2 keyrings: 1 error, 1 warning\n")
    assert f"{rings}:16: [keyring.web] sni.private_key: {folder}/shop.key: cannot be read: No such file" in err
    status, found, _ = ktls_keyring("check", rings, "--json")
    assert (status, found["keyrings"]) == (1, 2)
    assert [(one["level"], one["key"], one["line"]) for one in found["problems"]] == [
        ("warning", "private_key", 11),
        ("error", "sni.private_key", 16),
    ]


def test_check_takes_the_days_that_it_is_given(ktls_keyring, rings):
    assert ktls_keyring("check", "--days", 100, "--strict", rings)[0] == 1
    assert ktls_keyring("check", "--days", 0, "--strict", rings)[0] == 0
    assert ktls_keyring("check", "--days", -1, rings)[0] == 2


def test_check_of_a_policy_with_mistakes_goes_on_to_the_next(ktls_keyring, rings):
    bad = rings.with_name("bad.toml")
    bad.write_text("version = 1\n[keyring.x]\ntrusd = 1\n")
    (rings.parent / "web.key").unlink()
    status, out, err = ktls_keyring("check", bad, rings)
    assert (status, out) == (2, "2 keyrings: 1 error, no warnings\n")
    assert err.startswith(f"{bad}:3: [keyring.x] trusd: unknown key")
    assert str(rings) in err
    assert ktls_keyring("check", bad, "--json")[1]["policies"][0].startswith(f"{bad}:3: ")


def test_without_a_policy_it_is_the_one_of_the_environment_or_the_one_in_force(
    ktls_keyring, ktls_policy, rings, database, monkeypatch
):
    assert ktls_keyring("check") == (2, "", "no revision is active yet")
    ktls_policy("import", rings)
    ktls_policy("activate")
    for words in ((), ("@active",), ("@1",), ("--database", database)):
        assert ktls_keyring("check", *words) == (0, "2 keyrings: no errors, no warnings\n", "")
    other = rings.with_name("other.toml")
    other.write_text("version = 1\n[keyring.mine]\n")
    monkeypatch.setenv("KTLS_POLICY", str(other))
    assert list(ktls_keyring("list", "--json")[1]) == [str(other)]


@pytest.mark.parametrize("name", sorted(keyring_group.commands))
def test_help_says_what_it_does_and_how_it_ends(ktls_keyring, name):
    status, out, _ = ktls_keyring(name, "--help")
    assert status == 0
    assert "Exit status: 0" in out


def test_a_narrow_terminal_gets_lines_for_each_certificate(rings):
    """In a terminal of its own, which is 80 columns wide."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ktls", "keyring", "list", str(rings)]
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "COLUMNS": "80", "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
    os.close(ours)
    lines = shown.decode().split("\r\n")
    assert process.returncode == 0
    assert lines[:2] == ["KEYRING      web", "USED BY      web; action server"]
    assert "DAYS         89" in lines
    assert lines.count("") == 3  # between the three, and at the end


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # EIO: nobody has the other side any more
        return b""

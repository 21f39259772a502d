"""Looking at a policy from the command line."""

import re

import pytest

from tests.ktls.certificates import make, write_chain, write_key

OUT = ("--remote", "10.1.2.3:5432")


def test_check_tells_errors_and_warnings_with_their_place(ktls_policy, site, tmp_path):
    status, out, err = ktls_policy("check", site)
    assert (status, out) == (0, "1 policy: no errors, 1 warning\n")
    assert err.startswith(f'warning: {site}:16: [rule "web too"]: never matches')
    assert ktls_policy("check", "--strict", site)[0] == 1
    bad = tmp_path / "bad.toml"
    bad.write_text('version = 1\n[[rule]]\nname = "a"\nverdict = "maybe"\n')
    status, found, _ = ktls_policy("check", bad, site, "--json")
    assert status == 2
    assert found[str(bad)]["errors"] == [f'{bad}:4: [rule "a"] verdict: "maybe" is not one of "tls", "clear", "deny"']


def test_list_shows_the_order_in_which_rules_are_tried(ktls_policy, site):
    _, out, _ = ktls_policy("list", site)
    lines = out.splitlines()
    assert re.sub(" +", " ", lines[1]).strip() == (
        "10 postgres out tls (its own) outbound; remote_port 5432; remote 10.0.0.0/8; user app"
    )
    assert lines[-1].startswith("otherwise: deny   (revision ")
    _, found, _ = ktls_policy("list", site, "--json")
    assert [rule["name"] for rule in found["rules"]] == ["postgres out", "web", "web too"]


def test_show_writes_out_what_a_rule_comes_to(ktls_policy, site):
    _, out, _ = ktls_policy("show", site, "postgres out")
    assert "    min_version             1.3\n" in out
    assert "    handshake_timeout       10.0   (default)\n" in out
    _, found, _ = ktls_policy("show", site, "postgres out", "--json")
    assert found["match"]["remote"] == ["10.0.0.0/8"]
    assert found["action"]["keyring"]["trust"] == ["system"]
    status, _, message = ktls_policy("show", site, "wep")
    assert (status, message) == (2, f'{site} has no rule "wep"')


def test_explain_names_the_rule_and_the_near_misses(ktls_policy, site):
    _, out, _ = ktls_policy("explain", site, *OUT, "--user", "app")
    assert out.splitlines()[0] == 'tls: rule "postgres out" fits outbound to 10.1.2.3 port 5432'
    _, out, _ = ktls_policy("explain", site, *OUT, "--user", "daemon")
    assert out.splitlines()[0].startswith("deny: no rule fits")
    assert 'near miss: line 3, rule "postgres out" does not fit: user daemon (1) is not in app' in out
    assert "near miss" in out
    assert 'rule "web" does not fit' not in out
    _, out, _ = ktls_policy("explain", site, *OUT, "--all")
    assert 'rule "web" does not fit' in out
    _, found, _ = ktls_policy("explain", site, *OUT, "--json")
    assert (found["verdict"], [one["near"] for one in found["compared"]]) == ("deny", [True, False, True])


def test_the_default_path_of_expectations_lies_beside_the_policy(ktls_policy, site):
    beside = site.with_suffix(".test.toml")
    beside.write_text('[[expect]]\nname = "x"\ndirection = "outbound"\nremote = "10.0.0.1:443"\nverdict = "clear"\n')
    assert ktls_policy("test", site) == (0, "1 of 1 expectation hold\n", "")
    beside.write_text(beside.read_text().replace("clear", "tls"))
    status, out, err = ktls_policy("test", site)
    assert (status, out) == (1, "0 of 1 expectation hold\n")
    assert err.startswith(f"{beside}:1: x: expected tls, got clear")
    assert ktls_policy("test", site, "--json")[1][0]["held"] is False


def test_shadow_lists_rules_that_never_match(ktls_policy, site):
    status, out, _ = ktls_policy("shadow", site)
    assert (status, out.splitlines()[1].split()) == (1, ["16", "web", "too", "web", "12"])
    assert ktls_policy("shadow", site, "--json")[1] == [{"rule": "web too", "line": 16, "by": "web"}]


@pytest.mark.parametrize("command", [["check"], ["explain", "x", "--remote", "10.1.2.3"], ["show", "/nowhere", "x"]])
def test_what_is_wrong_is_status_2(ktls_policy, command):
    assert ktls_policy(*command)[0] == 2


def test_check_opens_the_keyrings_unless_they_are_elsewhere(ktls_policy, tmp_path):
    site = tmp_path / "site.toml"
    site.write_text('version = 1\n[keyring.web]\ncertificate = "web.pem"\nprivate_key = "web.key"\n')
    gone = f"{site}:{{}}: [keyring.web] {{}}: {tmp_path}/{{}}: cannot be read: No such file or directory\n"
    status, out, err = ktls_policy("check", site)
    assert (status, out) == (2, "1 policy: 2 errors, no warnings\n")
    assert err == gone.format(3, "certificate", "web.pem") + gone.format(4, "private_key", "web.key")
    assert ktls_policy("check", "--no-keyrings", site) == (0, "1 policy: no errors, no warnings\n", "")
    old = make("old", names=["a.example"], days=(-20, -10))
    write_chain(tmp_path / "web.pem", old)
    write_key(tmp_path / "web.key", old).chmod(0o644)
    status, found, _ = ktls_policy("check", "--json", site)
    assert status == 2
    (line,) = found[str(site)]["errors"]
    assert line.startswith(f"{site}:3: [keyring.web] certificate: {tmp_path}/web.pem: expired on ")
    assert found[str(site)]["warnings"] == []


def test_check_tells_of_missing_files_beside_the_policys_own_mistakes(ktls_policy, tmp_path):
    site = tmp_path / "site.toml"
    site.write_text('version = 1\ndefolt = "deny"\n[keyring.web]\ntrust = ["gone.pem"]\n')
    _, out, err = ktls_policy("check", site)
    assert (out, err.count(f"{site}:")) == ("1 policy: 2 errors, no warnings\n", 2)
    _, out, err = ktls_policy("check", "--no-keyrings", site)
    assert (out, err.count(f"{site}:")) == ("1 policy: 1 error, no warnings\n", 1)

"""The policy database from the command line."""

import pytest

from tests.ktls.certificates import make, write_chain, write_key

pytestmark = pytest.mark.usefixtures("database")


def test_a_policy_goes_in_and_comes_out_letter_by_letter(ktls_policy, site, tmp_path):
    site.write_text("# a comment\r\n" + site.read_text() + "\n\n# the end")
    assert ktls_policy("import", site, "-m", "first")[1].startswith("committed as revision 1 (")
    assert ktls_policy("export", "head", "-o", tmp_path / "out.toml")[0] == 0
    assert (tmp_path / "out.toml").read_bytes() == site.read_bytes()
    status, _, message = ktls_policy("export", "1", "-o", tmp_path / "out.toml")
    assert (status, "File exists" in message) == (2, True)


def test_nothing_is_in_force_before_it_is_activated(ktls_policy, site):
    ktls_policy("import", site)
    status, _, message = ktls_policy("list", "@active")
    assert (status, message) == (2, "no revision is active yet")
    assert ktls_policy("activate")[1].startswith("revision 1 (")
    assert ktls_policy("list", "@active")[0] == 0


def test_history_marks_what_is_in_force_and_rollback_goes_back(ktls_policy, site):
    ktls_policy("import", site, "-m", "first", "--author", "ann")
    ktls_policy("activate")
    ktls_policy("remove", "rule", "web too", "--author", "bob")
    ktls_policy("activate")
    _, found, _ = ktls_policy("history", "--json")
    assert [(one["number"], one["author"], one["message"], one["active"]) for one in found] == [
        (2, "bob", "remove rule web too", True),
        (1, "ann", "first", False),
    ]
    assert ktls_policy("rollback")[1].startswith("revision 1 (")
    assert ktls_policy("history")[1].splitlines()[2].startswith("* 1 ")


def test_diff_tells_which_keys_changed(ktls_policy, site):
    ktls_policy("import", site)
    ktls_policy("activate")
    assert ktls_policy("diff") == (0, "nothing is different\n", "")
    site.write_text(site.read_text().replace('"10.0.0.0/8"]\nremote_port', '"10.0.0.0/9"]\nremote_port'))
    ktls_policy("import", site)
    status, found, _ = ktls_policy("diff", "1", "2", "--json")
    assert (status, found[0]["name"], found[0]["keys"][0]["new"]) == (1, "postgres out", ["10.0.0.0/9"])
    assert "10.0.0.0/9" in ktls_policy("diff")[1]


def test_a_policy_with_a_mistake_is_not_stored(ktls_policy, site):
    site.write_text(site.read_text().replace('verdict = "clear"', 'verdict = "maybe"'))
    status, _, message = ktls_policy("import", site)
    assert (status, 'verdict: "maybe" is not one of' in message) == (2, True)
    assert ktls_policy("history")[1] == "no revisions yet\n"


def test_watch_tells_what_is_in_force(ktls_policy, site):
    ktls_policy("import", site)
    ktls_policy("activate")
    status, out, _ = ktls_policy("watch", "-n", "1")
    assert (status, out.startswith("revision 1 (")) == (0, True)


@pytest.mark.parametrize("name", ["9", "@head", "abcd", "nonsense"])
def test_a_revision_that_is_not_there_is_status_2(ktls_policy, name):
    assert ktls_policy("export", name)[0] == 2


def test_activate_opens_keyrings_when_it_is_asked_to(ktls_policy, site):
    folder = site.parent
    (folder / "web.pem").write_text("no certificate")
    (folder / "web.key").write_text("no key")
    site.write_text('version = 1\n[keyring.web]\ncertificate = "web.pem"\nprivate_key = "web.key"\n')
    ktls_policy("import", site)
    status, _, message = ktls_policy("activate", "--keyrings")
    assert status == 2
    assert [line.split(": ")[1:4] for line in message.splitlines()] == [
        ["[keyring.web] certificate", f"{folder}/web.pem", "not a PEM certificate"],
        ["[keyring.web] private_key", f"{folder}/web.key", "not a PEM private key"],
    ]
    assert ktls_policy("list", "@active")[0] == 2
    leaf = make("leaf", names=["a.example"])
    write_chain(folder / "web.pem", leaf)
    write_key(folder / "web.key", leaf)
    assert ktls_policy("activate", "--keyrings")[1].startswith("revision 1 (")
    (folder / "web.pem").write_text("no certificate")
    assert ktls_policy("activate")[0] == 0


def test_who_names_no_policy_means_ktls_policy_or_what_is_in_force(ktls_policy, site, tmp_path, monkeypatch):
    ktls_policy("import", site)
    ktls_policy("activate")
    for command in (["list"], ["shadow"], ["explain", "--remote", "10.1.2.3:5432"]):
        assert ktls_policy(*command) == ktls_policy(command[0], "@active", *command[1:])
    (tmp_path / "other.toml").write_text('version = 1\ndefault = "deny"\n')
    monkeypatch.setenv("KTLS_POLICY", str(tmp_path / "other.toml"))
    assert "otherwise: deny" in ktls_policy("list")[1]

"""Policies from elsewhere, from the command line."""

from tests.policy.attls.test_translate import FILE


def test_import_writes_a_policy_and_tells_what_to_look_at(ktls_policy, tmp_path):
    target = tmp_path / "site.toml"
    status, out, err = ktls_policy("import", "--from", "at-tls", FILE, "-o", target)
    assert (status, out) == (1, "")
    assert f"{FILE}:18: Jobname WEBJOB*: no counterpart" in err
    assert target.read_text().startswith("# Translated from ftp.policy")
    _, found, _ = ktls_policy("import", "--from", "at-tls", FILE, "--json")
    assert found["policy"] == target.read_text()
    status, _, message = ktls_policy("import", "--from", "at-tls", FILE, "-o", target)
    assert (status, message) == (2, f"{target}: File exists")

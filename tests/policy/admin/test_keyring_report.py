"""Keyrings of a policy, read and judged."""

import pytest

from ktls.errors import PolicyError
from policy.admin.keyring_report import broken_keyrings, reports
from tests.ktls.certificates import make, write_chain, write_key

POLICY = """\
version = 1
[keyring.web]
trust = ["gone.pem"]
private_key = "web.key"
certificate = "web.pem"
[[rule]]
name = "web"
direction = "inbound"
verdict = "tls"
action = { keyring = "web" }
"""


@pytest.fixture
def file(tmp_path):
    leaf = make("leaf", names=["a.example"])
    write_chain(tmp_path / "web.pem", leaf)
    write_key(tmp_path / "web.key", leaf).chmod(0o644)
    path = tmp_path / "site.toml"
    path.write_text(POLICY)
    return path


def test_findings_are_in_the_order_of_the_file_and_name_the_rules(file):
    policy, (report,) = reports(file.read_bytes(), file)
    folder = file.parent
    assert [rule.name for rule in policy.rules] == ["web"]
    assert [report.line(finding) for finding in report.findings] == [
        f'{file}:3: [keyring.web] trust: {folder}/gone.pem: cannot be read: No such file or directory (rule "web")',
        f"{file}:4: [keyring.web] private_key: {folder}/web.key: is open to everybody: "
        f'chmod 600 {folder}/web.key (rule "web")',
        f"{file}:5: [keyring.web] certificate: {folder}/web.pem: is self-signed: "
        'only peers with this very certificate in their trust take it (rule "web")',
    ]
    assert (report.number("error"), report.number("warning")) == (1, 2)
    assert report.facts(report.findings[0]) == {
        **{"file": str(file), "line": 3, "keyring": "web", "key": "trust", "level": "error", "rules": ["web"]},
        "what": f"{folder}/gone.pem: cannot be read: No such file or directory",
    }


def test_what_is_broken_is_the_errors_alone(file):
    (line,) = broken_keyrings(file.read_bytes(), file)
    assert line.startswith(f"{file}:3: [keyring.web] trust: ")


def test_days_are_those_asked_for(file):
    for days, number in ((80, 0), (100, 1)):
        (report,) = reports(file.read_bytes(), file, days)[1]
        assert sum("expires on" in finding.what for finding in report.findings) == number


def test_a_path_cannot_write_lines_of_its_own(tmp_path):
    file = tmp_path / "site.toml"
    text = 'version = 1\n[keyring.x]\ntrust = ["a\\nsite.toml: fine\\u001b[2J"]\n'
    (line,) = broken_keyrings(text.encode(), file)
    assert line.isprintable()


def test_a_policy_with_mistakes_is_refused(file):
    with pytest.raises(PolicyError):
        list(broken_keyrings(b"version = 2\n", file))

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from ktls.errors import PolicyError
from policy.decide import decide
from policy.model import Action, Facts
from policy.secure_port import secure_port


def verdict(policy, **facts) -> str:
    return str(decide(policy, Facts(when=datetime(2026, 3, 4, tzinfo=UTC), **facts)).verdict)


def actions(policy) -> list[Action]:
    return [rule.action for rule in policy.rules if rule.action is not None]


def refused(**options) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        secure_port(**options)
    return caught.value.message.split("\n")


@pytest.fixture
def identity(folder):
    return {"certificate": folder / "web.pem", "private_key": folder / "web.key"}


def test_what_is_accepted_on_an_inbound_port_is_tls_and_all_else_clear(identity):
    policy = secure_port(inbound=[8443], **identity)
    remote = ("192.0.2.1", 8443)
    assert verdict(policy, direction="inbound", remote=remote, local=("10.0.0.1", 8443)) == "tls"
    assert verdict(policy, direction="inbound", remote=remote, local=("10.0.0.1", 80)) == "clear"
    assert verdict(policy, direction="outbound", remote=remote, local=("10.0.0.1", 8443)) == "clear"


def test_what_is_connected_to_an_outbound_port_is_tls(identity):
    policy = secure_port(outbound=[(None, 8443)])
    assert verdict(policy, direction="outbound", remote=("::1", 8443)) == "tls"
    assert verdict(policy, direction="outbound", remote=("::1", 80)) == "clear"
    assert verdict(policy, direction="inbound", remote=("::1", 8443)) == "clear"


@pytest.mark.parametrize(
    ("host", "remote", "name", "expected"),
    [
        ("DB.example", "192.0.2.1", "db.example", "tls"),
        ("db.example", "192.0.2.1", "a.db.example", "clear"),
        ("db.example", "192.0.2.1", None, "clear"),
        ("192.0.2.1", "192.0.2.1", None, "tls"),
        ("192.0.2.1", "::ffff:192.0.2.1", "db.example", "tls"),
        ("192.0.2.1", "192.0.2.2", None, "clear"),
        ("2001:db8::1", "2001:DB8:0::1", None, "tls"),
    ],
)
def test_a_host_is_a_name_the_program_resolved_or_an_address(host, remote, name, expected):
    policy = secure_port(outbound=[(host, 5432)])
    assert verdict(policy, direction="outbound", remote=(remote, 5432), remote_name=name) == expected


def test_without_trust_the_system_is_trusted():
    assert actions(secure_port(outbound=[(None, 1)]))[0].keyring.trust == ("system",)


def test_what_is_given_is_in_the_action(identity, folder):
    policy = secure_port(inbound=[1], outbound=[(None, 1)], trust=(str(folder / "ca.pem"),), engine="relay", **identity)
    first, second = actions(policy)
    assert first == second
    assert (first.engine, first.keyring.trust) == ("relay", (str(folder / "ca.pem"),))
    assert (first.keyring.certificate, first.keyring.private_key) == (folder / "web.pem", folder / "web.key")


def test_the_same_port_twice_is_one_rule(identity):
    policy = secure_port(inbound=[1, 1], outbound=[("a", 2), ("a", 2), ("2001:db8::1", 2)], **identity)
    assert [rule.name for rule in policy.rules] == ["inbound 1", "outbound a:2", "outbound [2001:db8::1]:2"]


def test_all_problems_are_told_at_once(folder):
    none = folder / "none"
    gone = f'cannot read "{none}": No such file or directory'
    assert refused(outbound=[("a b", 1), (None, 0)], certificate=none, trust=[str(none)], engine="fast") == [
        f"secure port: certificate: {gone}",
        "secure port: certificate: needs private_key with it, and the other way round",
        'secure port: engine: "fast" is not one of "auto", "nic", "kernel", "relay", "no-nic"',
        'secure port: outbound: "a b" is not a host name, as "db.example"',
        "secure port: outbound: 0 is out of range: a port is 1 to 65535",
        f"secure port: trust: {gone}",
    ]


def test_a_server_without_a_certificate_is_refused():
    assert refused(inbound=[443]) == ["secure port: inbound: 443: a server needs a certificate and private_key"]


def test_other_options_have_another_revision(identity):
    revisions = {
        secure_port(outbound=[(None, 1)]).revision,
        secure_port(outbound=[(None, 2)]).revision,
        secure_port(outbound=[("a", 1)]).revision,
        secure_port(outbound=[("192.0.2.1", 1)]).revision,
        secure_port(outbound=[(None, 1)], engine="relay").revision,
        secure_port(outbound=[(None, 1)], **identity).revision,
    }
    assert len(revisions) == 6


def test_it_costs_a_program_under_ktls_run_no_import_it_does_not_need():
    heavy = (
        "{'tomllib', 'zoneinfo', 'difflib', 'json', 'cryptography', 'OpenSSL', 'asyncio', 'datetime', 'policy.load'}"
    )
    code = f"import sys, policy.secure_port; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import policy; print(sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "['policy']\n"

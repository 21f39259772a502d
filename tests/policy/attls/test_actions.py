"""The actions of a TTLSRule as one of ours."""

import pytest

from policy.attls.actions import action_of
from policy.attls.references import Library, Notes
from policy.attls.statements import read_statements


def made(environment: str = "", *, group: str = "TTLSEnabled On"):
    text = f"TTLSRule r\n{{\nTTLSGroupAction {{ {group} }}\nTTLSEnvironmentAction\n{{\n{environment}\n}}\n}}\n"
    notes = Notes()
    (rule,) = read_statements(text, "f")
    return action_of(rule, Library([rule], notes)), notes.found


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ("HandshakeRole Client", {"role": "client"}),
        ("HandshakeRole ServerWithClientAuth", {"role": "server", "client_auth": "required"}),
        ("HandshakeRole ServerWithClientAuth\nClientAuthType PassThru", {"role": "server", "client_auth": "passthru"}),
        ("TLSv1.2 On\nTLSv1.3 Off", {"max_version": "1.2"}),
        ("TLSv1.2 Off\nTLSv1.3 On", {"min_version": "1.3"}),
        ("TLSv1.2 On\nTLSv1.3 On", {}),
        ("HandshakeTimeout 0", {"handshake_timeout": 3600}),
        ("ResetCipherTimer 5", {"rekey": {"seconds": 300}}),
        ("GSK_V3_SESSION_TIMEOUT 0", {"resumption": {"tickets": False}}),
        ("TTLSCipherParms { V3CipherSuites4Char C02BC02F }", {"ciphers": [
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]}),
        ("TTLSCipherParms { V3CipherSuites 9E }", {"ciphers": ["TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"]}),
    ],
)  # fmt: skip
def test_parameters_become_keys(lines, keys):
    action, notes = made(lines)
    assert (action.verdict, action.action, notes) == ("tls", keys, [])


def test_without_a_group_or_with_tls_off_a_connection_is_clear():
    assert made(group="TTLSEnabled Off")[0].verdict == "clear"
    (rule,) = read_statements("TTLSRule r { }", "f")
    assert action_of(rule, Library([rule], Notes())).verdict == "clear"


def test_suites_that_are_gone_are_named():
    action, notes = made("TTLSCipherParms { V3CipherSuites 352F }")
    assert "ciphers" not in action.action
    assert [what for _, what in notes] == [
        f"suite {code}: no AEAD of TLS 1.2 or 1.3, left out" for code in ("35", "2F")
    ]
    assert action.comments


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("ApplicationControlled On CertificateLabel MINE", "it is one of on, off"),
        ("HandshakeRole Sever", "it is one of client, server, serverwithclientauth"),
        ("ClientAuthType SAFCheck TLSv1.2 On", "it is one of passthru, full, required, safcheck"),
        ("HandshakeTimeout soon", "it is a number"),
        ("TLSv1.2 Yes", "it is one of on, off"),
    ],
)
def test_a_value_that_means_nothing_is_named_and_counts_for_nothing(line, note):
    action, notes = made(line)
    assert (action.action, notes) == ({}, [(6, f"{line}: not understood; {note}")])

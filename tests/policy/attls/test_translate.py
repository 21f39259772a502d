"""An AT-TLS policy becomes one of ours, and what it cannot say here is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import PolicyError
from policy.attls.translate import translate
from policy.model import NumberRange, Verdict

FILE = Path(__file__).with_name("ftp.policy")
RING = "FTPSRV-ring-FTP-Server-2026"


@pytest.fixture
def imported():
    return translate(FILE.read_text(), "ftp.policy")


@pytest.fixture
def rules(imported, folder, load_text):
    """The rules of the translation, loaded; without the key that a policy may not have yet."""
    for name in (f"{RING}.pem", f"{RING}.key", f"{RING}-ca.pem"):
        (folder / name).write_text("something")
    text = imported.text.replace("version = 1\n", "")
    text = text.replace("application_controlled = true, ", "")
    return {rule.name: rule for rule in load_text(text).rules}


def test_conditions_mean_the_same(rules):
    server, client = rules["ftp-server~1"].match, rules["office-hours"].match
    assert (server.direction, server.local_port) == ("inbound", (NumberRange(21, 21),))
    assert [str(area) for area in server.local] == ["0.0.0.0/0", "::/0"]
    assert rules["ftp-server~1"].priority == 255
    assert (str(client.local[0]), str(client.remote_port[0]), client.user) == ("10.0.0.0/8", "8000-8099", ("webusr",))
    assert client.time is not None
    assert (client.time.days, client.time.start, client.time.end) == (frozenset(range(5)), 480, 1050)


def test_actions_are_put_together_as_at_tls_does(rules):
    action = rules["ftp-server~1"].action
    assert action is not None
    assert (action.role, action.client_auth, action.max_version) == ("server", "map", "1.2")
    assert action.ciphers == ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
    assert [one.user for one in action.users] == ["nobody"]  # until somebody says who is whom
    assert (action.handshake_timeout, action.keyring.name) == (30.0, RING)
    client = rules["office-hours"].action
    assert client is not None
    assert (client.role, client.min_version) == ("client", "1.3")


def test_what_waits_for_directives_is_kept(imported):
    assert "application_controlled = true, secondary = true" in imported.text


def test_a_rule_that_leaves_more_in_clear_than_it_did_is_not_active(rules, imported):
    assert rules["left-alone"].verdict is Verdict.CLEAR
    assert "left-alone-if-job" not in rules
    assert '# name = "left-alone-if-job"' in imported.text


def test_nothing_is_lost_silently(imported):
    """Every word of the file is in the policy, or its line is in a note."""
    noted = {line for line, _ in imported.notes}
    expected = {12: "Userid", 18: "Jobname", 31: "Jobname", 43: "EnvironmentUserInstance", 44: "Trace", 48: "KeyringPw"}
    expected |= {54: "TLSv1 On", 57: "Renegotiation", 81: "CBC", 82: "009C", 92: "forgotten", 97: "MonthOfYearMask"}
    for line, words in expected.items():
        assert any(at == line and words in what for at, what in imported.notes), (line, words, noted)
        assert f"# line {line}: " in imported.text


def test_a_password_is_not_repeated(imported):
    assert "secret-password" not in imported.text + str(imported.notes)


def test_several_times_are_several_rules(load_text):
    text = "".join(
        f"IpTimeCondition t{day} {{ DayOfWeekMask {mask} }}\n" for day, mask in ((1, "1000000"), (2, "0100000"))
    )
    made = translate(
        "TTLSRule r\n{\nIpTimeConditionRef t1\nIpTimeConditionRef t2\nTTLSGroupAction { TTLSEnabled Off }\n}\n" + text,
        "f",
    )
    policy = load_text(made.text.replace("version = 1\n", ""))
    assert [(rule.name, str(rule.match.time and sorted(rule.match.time.days))) for rule in policy.rules] == [
        ("r (1)", "[6]"),
        ("r (2)", "[0]"),
    ]


def test_what_is_referred_to_and_missing_is_noted():
    made = translate("TTLSRule r\n{\nTTLSGroupActionRef nowhere\n}\n", "f")
    assert (3, "TTLSGroupAction nowhere is nowhere in the file") in made.notes


@pytest.mark.parametrize("line", ["Priority high", "Direction Sideways", "Direction Inbound Priority 9"])
def test_a_condition_that_means_nothing_is_noted(line):
    made = translate(f"TTLSRule r\n{{\n{line}\nTTLSGroupAction {{ TTLSEnabled On }}\n}}\n", "f")
    (note,) = (what for _, what in made.notes)
    assert note.lower().startswith(f"{line.lower()}: not understood")


STATEMENTS = [
    "TTLSRule",
    "TTLSGroupAction",
    "TTLSGroupActionRef",
    "TTLSCipherParms",
    "IpAddr",
    "IpAddrRef",
    "PortRange",
]
PARAMETERS = ["LocalAddrRef", "LocalAddr", "Addr", "Port", "TTLSEnabled", "V3CipherSuites", "Priority", "Direction"]
WORDS = [*STATEMENTS, *PARAMETERS, "{", "}", "a", "b", "21", "10.0.0.0/8", "0035", "On", "Off", "\n"]


@given(st.lists(st.sampled_from(WORDS), max_size=80).map(" ".join))
def test_any_words_are_a_policy_or_an_error(text):
    try:
        made = translate(text, "f")
    except PolicyError:
        return
    assert made.text.startswith("# Translated from f")

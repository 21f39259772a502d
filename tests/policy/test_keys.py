"""Every key of the language has a test on live connections which shows the difference it makes: here is which."""

from pathlib import Path

import pytest

from policy.identities import Keyring
from policy.model import Action, Match, Policy, Rule

TESTS = Path(__file__).resolve().parents[1]
LIVE = {
    "test_policy_conditions.py": {
        "test_a_condition_that_fits_protects_and_one_that_does_not_leaves_clear": [
            *("direction", "local", "local_port", "remote", "remote_port", "remote_name", "program", "user", "group"),
        ],
        "test_user_and_group_are_those_of_the_connecting_process": ["user", "group"],
        "test_the_unit_is_that_of_the_connecting_process": ["unit"],
        "test_a_time_window_holds_on_its_days": ["time"],
        "test_a_verdict_is_done": ["verdict"],
        "test_the_higher_priority_is_tried_first_and_the_first_among_equals": ["priority"],
        "test_the_default_decides_where_no_rule_fits": ["default"],
        "test_a_policy_that_observes_says_what_it_would_do_and_leaves_the_connection_clear": ["mode"],
    },
    "test_policy_actions.py": {
        "test_verify": ["verify", "action"],
        "test_peer_name": ["peer_name"],
        "test_peer_identities": ["peer_identities"],
        "test_min_version": ["min_version"],
        "test_max_version": ["max_version"],
        "test_ciphers": ["ciphers"],
        "test_alpn": ["alpn"],
        "test_handshake_timeout": ["handshake_timeout"],
        "test_role": ["role"],
        "test_engine": ["engine"],
        "test_keylog": ["keylog"],
        "test_keyring_trust": ["keyring", "trust"],
        "test_client_certificate": ["certificate", "private_key"],
    },
    "test_policy_servers.py": {
        "test_client_auth": ["client_auth"],
        "test_client_auth_map": ["client_auth", "users"],
        "test_peer_identities_of_clients": ["peer_identities"],
        "test_sni": ["sni"],
        "test_certificate_and_private_key": ["certificate", "private_key"],
        "test_pkcs12_and_password_file": ["pkcs12", "password_file"],
        "test_crl": ["crl"],
        "test_allow_clear_on_timeout": ["allow_clear_on_timeout"],
        "test_resumption": ["resumption"],
        "test_the_lifetime_of_tickets": ["resumption"],
    },
    "test_already_tls.py": {
        "test_a_program_that_speaks_tls_itself_is_recognised_and_left_alone": ["already_tls"],
        "test_it_is_refused_where_the_rule_says_so": ["already_tls"],
    },
    "test_failures.py": {
        "test_end_of_file_without_close_notify_is_econnreset_after_the_data": ["eof"],
        "test_end_of_file_without_close_notify_is_end_of_file_where_the_rule_is_lenient": ["eof"],
    },
    "test_fate.py": {
        "test_close_ends_a_connection_in_order_for_both_sides": ["on_change"],
        "test_keep_leaves_a_connection_as_it_is": ["on_change"],
        "test_drain_closes_a_connection_when_it_is_idle": ["on_change"],
        "test_rekey_goes_on_under_new_keys_or_drains": ["on_change"],
        "test_keys_that_have_done_enough_are_replaced_or_the_connection_is_drained": ["rekey"],
    },
    "test_secondary.py": {
        "test_data_connections_inherit_the_rule_of_their_control_connection": ["secondary"],
        "test_without_the_key_they_are_decided_by_the_rules_like_any_other": ["secondary"],
    },
}
REFUSED = {"application_controlled", "negotiate"}
"""Nothing does their work yet: a rule that needs them is refused (tests/policy/test_tls.py)."""
NO_KEYS = {"name", "line", "keys", "match", "rules", "revision", "file", "classifier", "content"}
"""Fields of the classes that stand for no key, or for all of them."""


def test_every_key_has_a_live_test():
    keys = {key for kind in (Action, Match, Keyring, Rule, Policy) for key in kind.__slots__} - NO_KEYS
    held = {key for tests in LIVE.values() for found in tests.values() for key in found}
    assert keys - held - REFUSED == set()
    assert held - keys == set()
    assert REFUSED & held == set()


@pytest.mark.parametrize("name", LIVE)
def test_the_live_tests_are_there(name):
    text = (TESTS / "e2e" / name).read_text()
    assert [test for test in LIVE[name] if f"def {test}(" not in text] == []

import pickle

import pytest

from policy.identities import SYSTEM, Keyring
from policy.model import Action, Match, NumberRange, Rule, Verdict
from policy.names import glob
from policy.snapshot import build


def test_a_match_knows_which_of_its_keys_are_given():
    match = Match("inbound", local_port=(NumberRange(443, 443),), program=(glob("/a"),))
    assert match.keys == ("direction", "local_port", "program")
    assert Match().keys == ()


def test_an_action_that_names_no_keyring_trusts_the_system():
    assert Action().keyring == Keyring(SYSTEM, trust=(SYSTEM,))


def test_a_policy_is_immutable():
    policy = build([], Verdict.CLEAR)
    with pytest.raises(AttributeError):
        setattr(policy, "default", Verdict.DENY)  # noqa: B010 - what a type checker would not let pass


def test_where_a_rule_was_written_makes_no_difference():
    assert Rule("a", Verdict.DENY, line=1) == Rule("a", Verdict.DENY, line=2)


def test_a_policy_can_be_handed_to_another_process():
    rule = Rule("a", Verdict.TLS, Match(remote_name=(glob("*.example"),)), Action())
    policy = build([rule], Verdict.CLEAR)
    copy = pickle.loads(pickle.dumps(policy))
    assert copy == policy
    assert copy.rules[0].match.keys == ("remote_name",)

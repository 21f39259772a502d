"""The handshake's states: what may happen in each, and that nothing else can."""

import pytest

from ktls.ciphers import Role
from ktls.errors import UsageError
from ktls.handshake_table import TRANSITIONS, Input, State, next_state

EVERYTHING = [(role, state, what) for role in Role for state in State for what in Input]


@pytest.mark.parametrize(("role", "state", "what"), EVERYTHING)
def test_what_is_in_the_table_happens_and_nothing_else_does(role, state, what):
    expected = TRANSITIONS[role].get(state, {}).get(what)
    if expected is None:
        with pytest.raises(UsageError, match=f"{what.name} cannot happen to a handshake that is {state.name}"):
            next_state(role, state, what)
    else:
        assert next_state(role, state, what) is expected


@pytest.mark.parametrize("role", Role)
def test_a_role_never_waits_for_its_own_hello(role):
    reachable, more = {State.IDLE}, [State.IDLE]
    while more:
        for state in TRANSITIONS[role][more.pop()].values():
            if state not in reachable:
                reachable.add(state)
                more.append(state)
    never = State.WAIT_CLIENT_HELLO if role is Role.CLIENT else State.WAIT_SERVER_HELLO
    assert reachable == set(State) - {never} == set(TRANSITIONS[role])


@pytest.mark.parametrize("role", Role)
def test_time_may_run_out_in_every_state_and_failed_is_final(role):
    assert all(row[Input.TIME_OUT] is State.FAILED for row in TRANSITIONS[role].values())
    assert set(TRANSITIONS[role][State.FAILED].values()) == {State.FAILED}


@pytest.mark.parametrize("role", Role)
def test_established_is_only_reached_by_finishing_a_negotiation(role):
    ways = [(s, i) for s, row in TRANSITIONS[role].items() for i, to in row.items() if to is State.ESTABLISHED]
    assert ways == [(State.NEGOTIATING, Input.FINISH)]

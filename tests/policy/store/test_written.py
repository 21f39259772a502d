import datetime
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import PolicyError
from policy.store.written import value, write

PLAIN = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside), max_leaves=10)


@given(VALUES)
def test_what_is_written_reads_as_what_it_was(given):
    assert tomllib.loads(f"key = {value(given)}")["key"] == given


@given(st.text(), st.dictionaries(st.text().filter(lambda key: key != "name"), PLAIN))
def test_a_rule_and_an_action_read_as_what_they_were(name, values):
    assert tomllib.loads(write("rule", name, values)) == {"rule": [{"name": name, **values}]}
    assert tomllib.loads(write("action", name, values)) == {"action": {name: values}}


def test_what_toml_has_no_place_for_is_refused():
    with pytest.raises(PolicyError, match="no text, number"):
        value([None])
    with pytest.raises(PolicyError, match="no text, number"):
        value(datetime.date(2026, 1, 1))

"""Every command teaches."""

import pytest

from policy.admin.group import group


@pytest.mark.parametrize("name", sorted(group.commands))
def test_help_says_what_it_does_and_how_it_ends(ktls_policy, name):
    status, out, _ = ktls_policy(name, "--help")
    assert status == 0
    assert len(out.splitlines()) > 5

"""Keyrings and mappings as data."""

from policy.identities import NO_KEYRING, SYSTEM, Keyring, UserMapping


def test_an_action_that_names_no_keyring_shows_no_certificate_and_trusts_the_system():
    assert (NO_KEYRING.certificate, NO_KEYRING.private_key, NO_KEYRING.pkcs12) == (None, None, None)
    assert NO_KEYRING.trust == (SYSTEM,)


def test_they_are_told_apart_by_what_they_say():
    assert Keyring("a") == Keyring("a") != Keyring("b")
    assert len({UserMapping("DNS:a", "app"), UserMapping("DNS:a", "app"), UserMapping("DNS:a", "root")}) == 2

"""A keyring as a policy describes it is the one that is opened."""

from dataclasses import asdict
from pathlib import Path

from policy.identities import Keyring, SniEntry
from policy.opening import keyring_of


def test_nothing_of_a_keyring_is_lost():
    data = Keyring(
        "web",
        certificate=Path("/c"),
        private_key=Path("/k"),
        pkcs12=Path("/p"),
        password_file=Path("/w"),
        trust=("system", "/t"),
        crl=(Path("/l"),),
        sni=(SniEntry(("a.example",), Path("/sc"), Path("/sk")),),
    )
    assert asdict(keyring_of(data)) == asdict(data)

"""The certificates that the tests of the handshake driver share: keys take their time."""

import pytest

from ktls.keyring import Keyring, SniEntry
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("handshake"))


@pytest.fixture(scope="session")
def shop(world) -> Keyring:
    one = hp.save(world.folder, "one", world.ca.issue_cert("one.example"))
    wild = hp.save(world.folder, "wild", world.ca.issue_cert("*.shop.example"))
    return world.server_keyring(
        sni=(SniEntry(("One.example",), one.cert, one.key), SniEntry(("*.shop.example",), wild.cert, wild.key))
    )

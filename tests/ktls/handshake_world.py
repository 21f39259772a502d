"""What the tests of the handshake driver start from: certificates, environments, a client, and the ways to run it."""

import pytest
import trustme

from ktls.ciphers import CipherSuite, Role, Version
from ktls.environment import Environment, TlsParameters
from ktls.handshake import Handshake
from ktls.keyring import Keyring
from tests.ktls import handshake_peer as hp
from tests.ktls.handshake_peer import Pair, all_at_once, byte_by_byte, exact

VERSIONS = [Version.TLS12, Version.TLS13]
FEEDS = [exact, byte_by_byte, all_at_once]
BOTH = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.label)


class World:
    """One authority and what it has issued, as files."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self.ec = hp.save(folder, "ec", self.ca.issue_cert("localhost", "127.0.0.1"))
        self.rsa = hp.save(folder, "rsa", self.ca.issue_cert("localhost", key_type=trustme.KeyType.RSA))
        self.client = hp.save(folder, "client", self.ca.issue_cert("client.example"))

    def pair_for(self, suite: CipherSuite) -> Pair:
        return self.rsa if "_RSA_" in suite.iana_name else self.ec

    def client_keyring(self, **more) -> Keyring:
        return Keyring("c", **{"trust": (str(self.ca_file),), **more})

    def server_keyring(self, pair: Pair | None = None, **more) -> Keyring:
        pair = pair or self.ec
        return Keyring(
            "s", **{"certificate": pair.cert, "private_key": pair.key, "trust": (str(self.ca_file),), **more}
        )

    def as_client(self, keyring: Keyring | None = None, **more) -> Environment:
        return Environment(TlsParameters(Role.CLIENT, keyring or self.client_keyring(), **more))

    def as_server(self, keyring: Keyring | None = None, **more) -> Environment:
        return Environment(TlsParameters(Role.SERVER, keyring or self.server_keyring(), **more))


def only(version: Version) -> dict[str, Version]:
    return {"min_version": version, "max_version": version}


def client(world: World, version: Version | None = None, name: str | None = "localhost", **more) -> Handshake:
    return Handshake(world.as_client(**{**(only(version) if version else {}), **more}), server_name=name)

"""What decides how a connection is protected, and whether it makes sense."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ktls.ciphers import SUITES, CipherSuite, Role, Version
from ktls.errors import UsageError
from ktls.identity import Identity, parse_identity
from ktls.keyring import Keyring

ALPN_NAME_MAX = 255
"""Bytes of a protocol's name, which has one byte of length (RFC 7301 section 3.1)."""


@dataclass(frozen=True, slots=True)
class TlsParameters:
    """All that decides how a connection is protected. Equal parameters share an environment.

    Args:
        role: our side.
        keyring: our identity and whom we trust.
        min_version: of TLS.
        max_version: of TLS.
        suites: allowed ones in order of preference; empty for all of `SUITES`.
        alpn: protocol names in order of preference; a server refuses a client that offers only others.
        verify: a client's check of the server: chain and name, chain only, or nothing.
        client_auth: a server's check of the client: not asked, asked but not checked, checked if given, required.
            "map": required, and one of `users`.
        users: identities and the local users they are; the first that fits counts.
        peer_identities: who may be at the other end, any one (`ktls.identity`); empty for everybody.
        tickets: whether sessions are resumed.
        ticket_lifetime: in seconds.
        keylog: file to append session secrets to, for debugging.
        peer_name: the name a server's certificate must have, instead of the one that was resolved.
    """

    role: Role
    keyring: Keyring
    min_version: Version = Version.TLS12
    max_version: Version = Version.TLS13
    suites: tuple[CipherSuite, ...] = ()
    alpn: tuple[str, ...] = ()
    verify: Literal["name", "chain", "none"] = "name"
    client_auth: Literal["none", "passthru", "full", "required", "map"] = "none"
    users: tuple[tuple[str, str], ...] = ()
    peer_identities: tuple[str, ...] = ()
    tickets: bool = True
    ticket_lifetime: int = 7200
    keylog: Path | None = None
    peer_name: str | None = None

    @property
    def checks_chain(self) -> bool:
        """Whether a certificate that the peer shows must be vouched for by a trust anchor."""
        return self.verify != "none" if self.role is Role.CLIENT else self.client_auth != "passthru"

    @property
    def needs_certificate(self) -> bool:
        """Whether a peer without certificate is refused."""
        return self.role is Role.CLIENT or self.client_auth in ("required", "map") or bool(self.peer_identities)

    def usable_suites(self) -> tuple[CipherSuite, ...]:
        """Return the suites to offer or accept.

        Raises:
            UsageError: there is none within the versions.
        """
        versions = {version for version in Version if self.min_version <= version <= self.max_version}
        suites = tuple(suite for suite in self.suites or SUITES if suite.versions & versions)
        if not suites:
            wanted = ", ".join(map(str, self.suites)) or "any suite"
            raise UsageError(f"{self.min_version.label} to {self.max_version.label} leaves nothing of {wanted}")
        return suites

    def protocols(self) -> tuple[bytes, ...]:
        """Return the ALPN names as they are sent.

        Raises:
            UsageError: one is empty or too long.
        """
        names = tuple(name.encode() for name in self.alpn)
        for name in names:
            if not 0 < len(name) <= ALPN_NAME_MAX:
                raise UsageError(f"{name!r} is no ALPN protocol name: 1 to {ALPN_NAME_MAX} bytes")
        return names

    def mapping(self) -> tuple[tuple[Identity, str], ...]:
        """Return `users`, read.

        Raises:
            UsageError: an identity is malformed, or there is none and there must be.
        """
        if self.role is Role.CLIENT or self.client_auth != "map":
            return ()
        if not self.users:
            raise UsageError("client_auth is map, and nobody is mapped to a user")
        return tuple((parse_identity(identity), user) for identity, user in self.users)

    def identities(self) -> tuple[Identity, ...]:
        """Return `peer_identities`, read.

        Raises:
            UsageError: one is malformed, or could be forged: names prove nothing in a certificate that nobody vouches
                for, or that is not asked for.
        """
        identities = tuple(map(parse_identity, self.peer_identities))
        if identities and self.role is Role.SERVER and self.client_auth == "none":
            raise UsageError("peer_identities on a server, and client_auth asks for no certificate")
        if not self.checks_chain:
            for identity in identities:
                if identity.kind != "SHA256":
                    raise UsageError(f"{identity} can be forged where the certificate's chain is not checked")
        return identities

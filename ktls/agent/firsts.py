"""Connections whose rule says `secondary`: while one lives, others of its process with the same host are as it is.

What FTP needs: its data connections go to ports, and in directions, that no rule can know.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ktls.agent.programs import Program, holds
from ktls.ciphers import Role
from policy.decide import Decision
from policy.model import Facts

MOST = 4096
"""Such connections remembered at once. Those beyond have no secondary ones."""


@dataclass(frozen=True, slots=True)
class First:
    """An open connection that others go with.

    Args:
        number: the connection's.
        pid: who opened it.
        inode: of its socket, by which others that hold it are known (a server that forks).
        decision: about it.
        told: what policy was told of it.
        role: our side of its handshake, and of theirs: FTP's client is TLS's client whoever connects (RFC 4217, 7).
        name: whom the server's certificate names; a data connection goes to an address that nobody has resolved.
    """

    number: int
    pid: int
    inode: int
    decision: Decision
    told: Facts
    role: Role
    name: str | None


class Firsts:
    """Those that are open now, by the address of the other end."""

    __slots__ = ("_count", "_living")

    def __init__(self) -> None:
        self._living: dict[str, dict[int, First]] = {}
        self._count = 0

    @contextmanager
    def living(self, address: str, first: First | None) -> Iterator[None]:
        """Remember a connection for as long as this lasts.

        Args:
            address: of the other end.
            first: None for one that others do not go with.
        """
        if first is None or self._count >= MOST:
            yield
            return
        self._count += 1
        self._living.setdefault(address, {})[first.number] = first
        try:
            yield
        finally:
            self._count -= 1
            del self._living[address][first.number]
            if not self._living[address]:
                del self._living[address]

    def of(self, program: Program, address: str) -> First | None:
        """Find the connection that another one with this address goes with: of this process, or one that it holds."""
        living = self._living.get(address)
        if not living:
            return None
        own = next((first for first in reversed(living.values()) if first.pid == program.pid), None)
        if own is not None:
            return own
        held = holds(program.pid, {first.inode: first.number for first in living.values()})
        return None if held is None else living[held]


def inode_of(fd: int) -> int:
    """Return what tells this socket from all others."""
    return os.fstat(fd).st_ino

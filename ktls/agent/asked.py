"""What the agent was asked, checked and with its sockets: the step between the channel and a connection."""

from dataclasses import dataclass
from socket import socket

from ktls.agent.messages import Address, Request, RequestKind, plain_address
from ktls.agent.programs import Program


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with its sockets and its sender.

    Args:
        request: what the shim says.
        r: the TCP socket.
        b: the agent's end of the gate.
        program: who sent it.
    """

    request: Request
    r: socket
    b: socket
    program: Program

    def facts_for_report(self, number: int, name: str | None) -> dict[str, object]:
        """Return what every line about the connection says; `name` is what the program resolved, where that counts."""
        local, remote = self.addresses()
        return {
            "id": number,
            "pid": self.program.pid,
            "program": self.program.path,
            "user": self.program.user or str(self.program.uid),
            "group": ",".join(self.program.group_names) or str(self.program.gid),
            "direction": "outbound" if self.request.kind is RequestKind.CONNECT else "inbound",
            "local": address_text(local),
            "remote": address_text(remote),
            "remote_name": name,
        }

    def addresses(self) -> tuple[Address, Address]:
        """Return our end and the other end of R. A peer that has gone already is known from the request alone."""
        local, remote = self.r.getsockname(), self.request.address
        if remote is None:
            try:
                remote = self.r.getpeername()
            except OSError:
                remote = ("", 0)
        return (plain_address(local[0]), local[1]), (plain_address(remote[0]), remote[1])


def address_text(address: Address) -> str:
    """Return an address and port as people write them.

    >>> address_text(("2001:db8::1", 443))
    '[2001:db8::1]:443'
    """
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""Put a session's keys where its engine is."""

from socket import socket

from ktls import kernel
from ktls.ciphers import Role, Version
from ktls.errors import KernelError, PeerClosed
from ktls.kernel_errors import NotEstablished
from ktls.probe import Capabilities
from ktls.session import Session
from offload.engine import Choice, Engine, choose
from policy.model import Action

FALLING_BACK = ("auto", "no-nic")
"""Engines of a rule that let the relay step in where the kernel refuses."""


class KeyInstaller:
    """One connection's way into the kernel, or past it.

    Args:
        sock: R.
        action: of the rule.
        capabilities: what the kernel can do.
    """

    __slots__ = ("_action", "_capabilities", "_refusal", "_sock")

    def __init__(self, sock: socket, action: Action, capabilities: Capabilities) -> None:
        self._sock, self._action, self._capabilities = sock, action, capabilities
        self._refusal: str | None = None

    def attach(self) -> None:
        """Attach the ULP while TCP is ESTABLISHED, which it needs. It is transparent until keys come.

        Raises:
            PeerClosed: the peer has gone: nothing else takes a connection out of ESTABLISHED.
            KernelError: the kernel refuses, and the rule takes nothing else.
        """
        action = self._action
        if action.engine == "relay" or action.application_controlled or not self._capabilities.kernel_tls:
            return
        try:
            kernel.attach(self._sock)
        except NotEstablished as error:
            raise PeerClosed("the peer closed the connection before the handshake") from error
        except KernelError as error:
            self._refused(error)

    def install(self, session: Session) -> Choice:
        """Choose the engine; with one of the kernel's, put the keys in.

        Raises:
            EngineUnavailable: the rule's engine cannot serve the session.
            KernelError: the kernel refuses, and the rule takes nothing else or it is too late.
        """
        action = self._action
        choice = choose(
            action.engine,
            self._capabilities,
            session.version,
            session.suite,
            application_controlled=action.application_controlled,
            device=self._device(),
        )
        if choice.engine is Engine.RELAY:
            return choice
        if self._refusal is None:
            try:
                kernel.install_tx(self._sock, session.tx)
            except KernelError as error:
                self._refused(error)
        if self._refusal is not None:
            return Choice(Engine.RELAY, f"the kernel refused: {self._refusal}")
        kernel.install_rx(self._sock, session.rx)  # no way back from here: our direction is encrypted
        return choice

    def gate_flags(self, session: Session) -> str:
        """Return the letters that tell the shim what to mind (docs/protocol.md)."""
        letters = {
            "s": self._action.eof == "strict",
            "p": self._capabilities.poll_partial_record,
            "k": self._capabilities.rekey and session.version is Version.TLS13,
            "t": session.role is Role.CLIENT and session.version is Version.TLS13,
            "w": session.role is Role.CLIENT,
        }
        return "".join(letter for letter, applies in letters.items() if applies)

    def _device(self) -> str | None:
        """The card that could do it; looked for only where there is one that can."""
        if not self._capabilities.tx_devices:
            return None
        from ktls.route import device_to  # noqa: PLC0415 - heavy, and for machines with such a card

        return device_to(self._sock.getpeername()[0])

    def _refused(self, error: KernelError) -> None:
        if self._action.engine not in FALLING_BACK:
            raise error
        self._refusal = error.message

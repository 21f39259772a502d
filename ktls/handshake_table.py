"""What a handshake can be, what can happen to it, and what it asks for: the words of `ktls.handshake`, as data.

    IDLE --START--> WAIT_..._HELLO --RECORD--> NEGOTIATING --FINISH--> ESTABLISHED
                          |                         |                       |
                          +--------- END_OF_FILE, TIME_OUT, REFUSE ---------+ TIME_OUT only --> FAILED

What is not in `TRANSITIONS` cannot happen: it raises and leaves the state as it was.
"""

from dataclasses import dataclass
from enum import Enum, auto

from ktls.ciphers import Role
from ktls.errors import KtlsError, UsageError
from ktls.session import Session


@dataclass(frozen=True, slots=True)
class SendBytes:
    """Send this, all of it, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class NeedBytes:
    """Read at most so many bytes, and give them to `Handshake.receive`."""

    count: int


@dataclass(frozen=True, slots=True)
class Established:
    """The handshake is done; what was to be sent comes before this."""

    session: Session


@dataclass(frozen=True, slots=True)
class Failed:
    """The handshake has failed for good; the alert, if there is one, comes before this."""

    error: KtlsError


Event = SendBytes | NeedBytes | Established | Failed


class State(Enum):
    """Where a handshake is."""

    IDLE = auto()
    WAIT_CLIENT_HELLO = auto()
    """A server that has not had a whole record."""
    WAIT_SERVER_HELLO = auto()
    """A client that has sent its first flight and has not had a whole record."""
    NEGOTIATING = auto()
    ESTABLISHED = auto()
    FAILED = auto()


class Input(Enum):
    """What may happen to it."""

    START = auto()
    BYTES = auto()
    """Some were received."""
    RECORD = auto()
    """They made one whole."""
    END_OF_FILE = auto()
    TIME_OUT = auto()
    """Time may run out at any moment, also while our last flight is being sent."""
    FINISH = auto()
    """Both sides' Finished have been exchanged, or ours only needs to be sent."""
    REFUSE = auto()
    """The peer, OpenSSL or we will not go on."""


_Row = dict[Input, State]


def _rows(first: State) -> dict[State, _Row]:
    ends: _Row = {Input.END_OF_FILE: State.FAILED, Input.TIME_OUT: State.FAILED, Input.REFUSE: State.FAILED}
    return {
        State.IDLE: {Input.START: first, Input.TIME_OUT: State.FAILED},
        first: {Input.BYTES: first, Input.RECORD: State.NEGOTIATING, **ends},
        State.NEGOTIATING: {
            Input.BYTES: State.NEGOTIATING,
            Input.RECORD: State.NEGOTIATING,
            Input.FINISH: State.ESTABLISHED,
            **ends,
        },
        State.ESTABLISHED: {Input.TIME_OUT: State.FAILED},
        State.FAILED: {Input.TIME_OUT: State.FAILED},
    }


TRANSITIONS: dict[Role, dict[State, _Row]] = {
    Role.CLIENT: _rows(State.WAIT_SERVER_HELLO),
    Role.SERVER: _rows(State.WAIT_CLIENT_HELLO),
}


def next_state(role: Role, state: State, what: Input) -> State:
    """Look the next state up.

    Raises:
        UsageError: this cannot happen in this state.

    >>> next_state(Role.SERVER, State.IDLE, Input.START)
    <State.WAIT_CLIENT_HELLO: 2>
    """
    try:
        return TRANSITIONS[role][state][what]
    except KeyError:
        raise UsageError(f"{what.name} cannot happen to a handshake that is {state.name}") from None

"""Writing a revision: which of its pieces are stored already, and where each stands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from policy.store.order import rising
from policy.store.pieces import Piece
from policy.store.read import places
from policy.store.records import Activation, Revision, write_time
from policy.store.schema import activation, entry, piece, revision

STEP = 1 << 32
"""Between neighbours at first: half of it can be taken some thirty times before all pieces get new places."""
ASKED_AT_ONCE = 500  # hashes in one question

_Place = tuple[str, int, int]
"""(hash, position, since) of a piece of the newest revision."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to come from the newest revision to the next.

    Args:
        closed: the places that are not in it any more.
        opened: (position, piece) for those that are new, or stand elsewhere.
    """

    closed: tuple[_Place, ...]
    opened: tuple[tuple[int, Piece], ...]


def plan(old: Sequence[_Place], new: Sequence[Piece]) -> Plan:
    """Find the fewest entries to write.

    Args:
        old: the newest revision, in order.
        new: the next one, in order.
    """
    at = {place[0]: place[1] for place in old}
    kept = rising([at[one.hash] for one in new if one.hash in at])
    positions = _positions([at[one.hash] if at.get(one.hash) in kept else None for one in new])
    if positions is None:  # no place is left between two neighbours: all are set anew
        return Plan(tuple(old), tuple(((number + 1) * STEP, one) for number, one in enumerate(new)))
    opened = ((position, one) for position, one in zip(positions, new, strict=True) if position not in kept)
    return Plan(tuple(place for place in old if place[1] not in kept), tuple(opened))


def _positions(known: Sequence[int | None]) -> list[int] | None:
    """Fill in the missing of rising numbers, evenly; None where too few are free."""
    filled: list[int] = []
    missing = 0
    for number in (*known, None) if not known or known[-1] is None else known:
        at_end = len(filled) + missing == len(known)
        if number is None and not at_end:
            missing += 1
            continue
        low = filled[-1] if filled else 0
        high = low + STEP * (missing + 1) if number is None else number
        if high - low <= missing:
            return None
        filled += [low + (high - low) * (one + 1) // (missing + 1) for one in range(missing)]
        missing = 0
        if number is not None:
            filled.append(number)
    return filled


def write_revision(connection: Connection, new: Revision, pieces: Sequence[Piece]) -> None:
    """Write the revision that follows the newest.

    Args:
        connection: in the transaction that may write.
        new: numbered one higher than the newest.
        pieces: of its document.
    """
    planned = plan(places(connection), pieces)
    _write_pieces(connection, [one for _, one in planned.opened])
    closing = update(entry).where(entry.c.since == bindparam("of_since"), entry.c.position == bindparam("at"))
    if planned.closed:
        connection.execute(
            closing.values(until=new.number),
            [{"of_since": since, "at": position} for _, position, since in planned.closed],
        )
    if planned.opened:
        connection.execute(
            insert(entry),
            [
                {
                    "since": new.number,
                    "position": position,
                    "piece": one.hash,
                    "kind": one.kind,
                    "name": one.name,
                    "part": one.part,
                }
                for position, one in planned.opened
            ],
        )
    # Last: from here on the database refuses to change any of it.
    connection.execute(
        insert(revision),
        {
            "number": new.number,
            "hash": new.hash,
            "parent": new.parent,
            "author": new.author,
            "time": write_time(new.time),
            "message": new.message,
            "base": str(new.base),
            "content": new.content,
            "policy": new.policy,
        },
    )


def write_activation(connection: Connection, new: Activation) -> None:
    """Write the activation that follows the last."""
    connection.execute(
        insert(activation),
        {
            "number": new.number,
            "previous": new.number - 1 or None,
            "revision": new.revision.number,
            "author": new.author,
            "time": write_time(new.time),
            "returns_to": new.returns_to,
        },
    )


def _write_pieces(connection: Connection, pieces: Sequence[Piece]) -> None:
    stored: set[str] = set()
    for some in _some(pieces):
        stored.update(connection.scalars(select(piece.c.hash).where(piece.c.hash.in_([one.hash for one in some]))))
    columns = ("hash", "kind", "name", "part", "data", "text")
    missing = [{name: getattr(one, name) for name in columns} for one in pieces if one.hash not in stored]
    if missing:
        connection.execute(insert(piece), missing)


def _some(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    for start in range(0, len(pieces), ASKED_AT_ONCE):
        yield pieces[start : start + ASKED_AT_ONCE]

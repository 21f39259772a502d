"""Reading what is stored, on a connection that the caller has opened, and seeing that it is what its hash says."""

import hashlib
import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from ktls.errors import UsageError
from policy.problems import quote
from policy.store.errors import Damaged, NoSuchRevision
from policy.store.pieces import Piece, join
from policy.store.records import SHORT, Activation, Revision, read_time
from policy.store.schema import activation, entry, piece, revision

HASH_LEAST = 4  # digits of a hash that stand for it
_parent = revision.alias("parent")
_REVISIONS = select(revision, _parent.c.hash.label("parent_hash")).outerjoin(
    _parent, revision.c.parent == _parent.c.number
)


def head(connection: Connection) -> Revision | None:
    """Return the newest revision, None where there is none."""
    found = connection.execute(_REVISIONS.order_by(revision.c.number.desc()).limit(1)).first()
    return None if found is None else _revision(found)


def find(connection: Connection, name: int | str) -> Revision:
    """Return a revision by its number or by how its hash begins.

    Raises:
        NoSuchRevision: none has that, or several.
        UsageError: it is neither.
    """
    word = str(name).lower()
    if word.isdecimal() and word.isascii() and len(word) <= 9:
        found = connection.execute(_REVISIONS.where(revision.c.number == int(word))).first()
        if found is not None:
            return _revision(found)
        if len(word) < HASH_LEAST:
            raise NoSuchRevision(f"there is no revision {word}")
    if not re.fullmatch(rf"[0-9a-f]{{{HASH_LEAST},64}}", word):
        raise UsageError(
            f"{quote(str(name))} is neither a revision's number nor {HASH_LEAST} or more digits of its hash"
        )
    rows = connection.execute(_REVISIONS.where(revision.c.hash.startswith(word)).limit(3)).all()
    if len(rows) == 1:
        return _revision(rows[0])
    if not rows:
        raise NoSuchRevision(f"there is no revision {word}")
    names = ", ".join(f"{row.number} ({row.hash[:SHORT]})" for row in rows)
    raise NoSuchRevision(f"{word} may be several revisions: {names}", hint="give more digits, or the number")


def history(connection: Connection, most: int | None = None) -> list[Revision]:
    """Return the revisions, the newest first."""
    return [_revision(row) for row in connection.execute(_REVISIONS.order_by(revision.c.number.desc()).limit(most))]


def document(connection: Connection, of: Revision) -> str:
    """Return the text of a revision, as it was committed.

    Raises:
        Damaged: what is stored is something else.
    """
    text = join(connection.scalars(_in_force(select(piece.c.text), of.number)))
    if hashlib.sha256(text.encode()).hexdigest() != of.content:
        raise Damaged(f"revision {of}: the stored policy is not the one that was committed")
    return text


def pieces(connection: Connection, of: Revision) -> list[Piece]:
    """Return the pieces of a revision, in order."""
    columns = select(piece.c.kind, piece.c.name, piece.c.part, piece.c.data, piece.c.text)
    return [Piece(*row) for row in connection.execute(_in_force(columns, of.number))]


def places(connection: Connection) -> list[tuple[str, int, int]]:
    """Return (hash, position, since) for each piece of the newest revision, in order."""
    chosen = select(entry.c.piece, entry.c.position, entry.c.since).where(entry.c.until.is_(None))
    return [tuple(row) for row in connection.execute(chosen.order_by(entry.c.position))]


def activations(connection: Connection, most: int | None = None) -> list[Activation]:
    """Return the activations, the newest first."""
    chosen = select(activation).order_by(activation.c.number.desc()).limit(most)
    return [_activation(connection, row) for row in connection.execute(chosen).all()]


def active(connection: Connection) -> Activation | None:
    """Return the activation in force, None where nothing has been activated."""
    return next(iter(activations(connection, 1)), None)


def before(connection: Connection, of: Activation) -> Activation | None:
    """Return the activation that a roll-back of this one returns to, None where there is none."""
    if of.stands_for == 1:
        return None
    chosen = select(activation).where(activation.c.number == of.stands_for - 1)
    return _activation(connection, connection.execute(chosen).one())


def _in_force(columns: Select[Any], number: int) -> Select[Any]:
    joined = columns.join_from(entry, piece, entry.c.piece == piece.c.hash)
    held = (entry.c.since <= number) & (entry.c.until.is_(None) | (entry.c.until > number))
    return joined.where(held).order_by(entry.c.position)


def _revision(row: Row[Any]) -> Revision:
    has = row._mapping
    found = Revision(
        number=has["number"],
        parent=has["parent"],
        parent_hash=has["parent_hash"] or "",
        author=has["author"],
        time=read_time(has["time"]),
        message=has["message"],
        base=Path(has["base"]),
        content=has["content"],
        policy=has["policy"],
    )
    if found.hash != has["hash"]:
        raise Damaged(f"revision {found.number}: author, time, message or content are not those that were committed")
    return found


def _activation(connection: Connection, row: Row[Any]) -> Activation:
    has = row._mapping
    of = find(connection, has["revision"])
    return Activation(has["number"], of, has["author"], read_time(has["time"]), has["returns_to"])

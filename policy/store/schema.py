"""The tables, as SQLAlchemy sees them. What makes them is policy/store/migrations, which a test holds against this.

A revision is a row, and the pieces in force at it. A piece is stored once, under its hash. An entry says that a piece
is at a place of the document from the revision `since` up to, and not with, the revision `until`: history is a line,
and so a revision that changes one rule of 100,000 closes one entry and adds one.

Entries are written first and their revision last, which seals them: the database refuses entries for, and changes to, a
revision that is there. The rest of what it refuses stands at each table.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

CHANNEL = "ktls_policy"
"""Where PostgreSQL tells of an activation; the payload is its number."""
VERSION_TABLE = "policy_schema"
"""Where Alembic keeps the version of the tables."""

metadata = MetaData()

piece = Table(
    "policy_piece",
    metadata,
    Column("hash", Text, CheckConstraint("length(hash) = 64"), primary_key=True),
    Column("kind", Text, CheckConstraint("kind IN ('top', 'rule', 'action', 'keyring')"), nullable=False),
    Column("name", Text, nullable=False),
    Column("part", Integer, CheckConstraint("part >= 0"), nullable=False),
    Column("data", Text),
    Column("text", Text, nullable=False),
    UniqueConstraint("hash", "kind", "name", "part"),  # for the foreign key of entries
    CheckConstraint("(kind = 'top') = (name = '')", "only_the_top_has_no_name"),
    CheckConstraint("(part = 0) = (data IS NOT NULL)", "the_first_part_has_the_data"),
    CheckConstraint("replace(text, '-----BEGIN', '') = text", "no_pem_in_text"),
    CheckConstraint("data IS NULL OR replace(data, '-----BEGIN', '') = data", "no_pem_in_data"),
)

revision = Table(
    "policy_revision",
    metadata,
    Column("number", Integer, CheckConstraint("number > 0"), primary_key=True, autoincrement=False),
    Column("hash", Text, CheckConstraint("length(hash) = 64"), nullable=False, unique=True),
    Column("parent", Integer, ForeignKey("policy_revision.number")),
    Column("author", Text, CheckConstraint("length(author) > 0"), nullable=False),
    Column("time", Text, CheckConstraint("time LIKE '____-__-__T__:__:__.______Z'"), nullable=False),
    Column("message", Text, CheckConstraint("length(message) > 0"), nullable=False),
    Column("base", Text, CheckConstraint("substr(base, 1, 1) = '/'"), nullable=False),
    Column("content", Text, CheckConstraint("length(content) = 64"), nullable=False),
    Column("policy", Text, CheckConstraint("length(policy) = 12"), nullable=False),
    # With the foreign key and the primary key: history is a line without gaps.
    CheckConstraint("coalesce(parent, 0) = number - 1", "follows_its_parent"),
    CheckConstraint("replace(message, '-----BEGIN', '') = message", "no_pem_in_message"),
    CheckConstraint("replace(author, '-----BEGIN', '') = author", "no_pem_in_author"),
)

entry = Table(
    "policy_entry",
    metadata,
    Column(
        "since",
        Integer,
        ForeignKey("policy_revision.number", deferrable=True, initially="DEFERRED"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("until", Integer, ForeignKey("policy_revision.number", deferrable=True, initially="DEFERRED")),
    Column("piece", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("part", Integer, nullable=False),
    ForeignKeyConstraint(
        ["piece", "kind", "name", "part"],
        ["policy_piece.hash", "policy_piece.kind", "policy_piece.name", "policy_piece.part"],
    ),
    CheckConstraint("until > since", "ends_after_it_began"),
)
_OPEN = text("until IS NULL")
# Every revision has once been the newest, so what holds for the newest holds for all.
Index("policy_names_are_unique", *(entry.c[name] for name in ("kind", "name", "part")), unique=True,
      sqlite_where=_OPEN, postgresql_where=_OPEN)  # fmt: skip
Index("policy_positions_are_unique", entry.c.position, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)
Index("policy_entry_until", entry.c.until)

activation = Table(
    "policy_activation",
    metadata,
    Column("number", Integer, CheckConstraint("number > 0"), primary_key=True, autoincrement=False),
    Column("previous", Integer, ForeignKey("policy_activation.number")),
    Column("revision", Integer, ForeignKey("policy_revision.number"), nullable=False),
    Column("author", Text, CheckConstraint("length(author) > 0"), nullable=False),
    Column("time", Text, CheckConstraint("time LIKE '____-__-__T__:__:__.______Z'"), nullable=False),
    Column("returns_to", Integer),
    UniqueConstraint("number", "revision"),  # for the foreign key below
    # A return to an activation is one of its revision.
    ForeignKeyConstraint(["returns_to", "revision"], ["policy_activation.number", "policy_activation.revision"]),
    CheckConstraint("coalesce(previous, 0) = number - 1", "follows_previous"),
    CheckConstraint("returns_to < previous", "returns_to_an_earlier_one"),
    CheckConstraint("replace(author, '-----BEGIN', '') = author", "no_pem_in_author"),
)

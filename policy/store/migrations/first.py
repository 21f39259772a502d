"""The tables of the first version, and the guards that keep what is stored as it is."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TABLES = ("policy_piece", "policy_revision", "policy_entry", "policy_activation")
NEXT = "(SELECT coalesce(max(number), 0) + 1 FROM policy_revision)"
SEALED = "policy: entries are written for the next revision only; those of a revision that is there are sealed"
NO_TOP = "policy: a revision has a top level"


def upgrade() -> None:
    """Make the tables and their guards."""
    _piece()
    _revision()
    _entry()
    _activation()
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def downgrade() -> None:
    """Take it all away, with what is stored."""
    for table in reversed(TABLES):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for function in ("policy_refuse", "policy_check_entry", "policy_check_revision", "policy_tell"):
            op.execute(f"DROP FUNCTION {function}()")


# --- tables ----------------------------------------------------------------------------------------------------------


def _text(name: str, check: str = "", *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, *([sa.CheckConstraint(check)] if check else []), nullable=nullable)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, sa.CheckConstraint("number > 0"), primary_key=True, autoincrement=False)


def _no_pem(column: str) -> sa.CheckConstraint:
    what = f"replace({column}, '-----BEGIN', '') = {column}"
    return sa.CheckConstraint(f"{column} IS NULL OR {what}" if column == "data" else what, f"no_pem_in_{column}")


def _time() -> sa.Column[str]:
    return _text("time", "time LIKE '____-__-__T__:__:__.______Z'")


def _piece() -> None:
    op.create_table(
        "policy_piece",
        sa.Column("hash", sa.Text, sa.CheckConstraint("length(hash) = 64"), primary_key=True),
        _text("kind", "kind IN ('top', 'rule', 'action', 'keyring')"),
        _text("name"),
        sa.Column("part", sa.Integer, sa.CheckConstraint("part >= 0"), nullable=False),
        _text("data", nullable=True),
        _text("text"),
        sa.UniqueConstraint("hash", "kind", "name", "part"),
        sa.CheckConstraint("(kind = 'top') = (name = '')", "only_the_top_has_no_name"),
        sa.CheckConstraint("(part = 0) = (data IS NOT NULL)", "the_first_part_has_the_data"),
        _no_pem("text"),
        _no_pem("data"),
    )


def _revision() -> None:
    op.create_table(
        "policy_revision",
        _number("number"),
        sa.Column("hash", sa.Text, sa.CheckConstraint("length(hash) = 64"), nullable=False, unique=True),
        sa.Column("parent", sa.Integer, sa.ForeignKey("policy_revision.number")),
        _text("author", "length(author) > 0"),
        _time(),
        _text("message", "length(message) > 0"),
        _text("base", "substr(base, 1, 1) = '/'"),
        _text("content", "length(content) = 64"),
        _text("policy", "length(policy) = 12"),
        sa.CheckConstraint("coalesce(parent, 0) = number - 1", "follows_its_parent"),
        _no_pem("message"),
        _no_pem("author"),
    )


def _entry() -> None:
    def of_revision() -> sa.ForeignKey:
        return sa.ForeignKey("policy_revision.number", deferrable=True, initially="DEFERRED")

    op.create_table(
        "policy_entry",
        sa.Column("since", sa.Integer, of_revision(), primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True),
        sa.Column("until", sa.Integer, of_revision()),
        _text("piece"),
        _text("kind"),
        _text("name"),
        sa.Column("part", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["piece", "kind", "name", "part"],
            ["policy_piece.hash", "policy_piece.kind", "policy_piece.name", "policy_piece.part"],
        ),
        sa.CheckConstraint("until > since", "ends_after_it_began"),
    )
    is_open = sa.text("until IS NULL")
    for name, columns in (
        ("policy_names_are_unique", ["kind", "name", "part"]),
        ("policy_positions_are_unique", ["position"]),
    ):
        op.create_index(name, "policy_entry", columns, unique=True, sqlite_where=is_open, postgresql_where=is_open)
    op.create_index("policy_entry_until", "policy_entry", ["until"])


def _activation() -> None:
    op.create_table(
        "policy_activation",
        _number("number"),
        sa.Column("previous", sa.Integer, sa.ForeignKey("policy_activation.number")),
        sa.Column("revision", sa.Integer, sa.ForeignKey("policy_revision.number"), nullable=False),
        _text("author", "length(author) > 0"),
        _time(),
        sa.Column("returns_to", sa.Integer),
        sa.UniqueConstraint("number", "revision"),
        sa.ForeignKeyConstraint(["returns_to", "revision"], ["policy_activation.number", "policy_activation.revision"]),
        sa.CheckConstraint("coalesce(previous, 0) = number - 1", "follows_previous"),
        sa.CheckConstraint("returns_to < previous", "returns_to_an_earlier_one"),
        _no_pem("author"),
    )


# --- guards ----------------------------------------------------------------------------------------------------------

MAY_INSERT_ENTRY = f"NEW.since = {NEXT} AND NEW.until IS NULL"
MAY_CLOSE_ENTRY = f"""OLD.until IS NULL AND NEW.until = {NEXT} AND NEW.since = OLD.since
    AND NEW.position = OLD.position AND NEW.piece = OLD.piece AND NEW.kind = OLD.kind AND NEW.name = OLD.name
    AND NEW.part = OLD.part"""
HAS_TOP = "EXISTS (SELECT 1 FROM policy_entry WHERE until IS NULL AND kind = 'top' AND part = 0)"


def _guard_sqlite() -> None:
    def guard(name: str, event: str, table: str, refused: str, why: str) -> None:
        op.execute(
            f"CREATE TRIGGER policy_{name} BEFORE {event} ON {table} WHEN {refused} "
            f"BEGIN SELECT RAISE(ABORT, '{why}'); END"
        )

    for table in TABLES:
        why = f"policy: what is in {table} is never changed"
        if table != "policy_entry":
            guard(f"update_{table}", "UPDATE", table, "true", why)
        guard(f"delete_{table}", "DELETE", table, "true", why)
        # INSERT OR REPLACE would delete without asking the guard above.
        key = "hash" if table == "policy_piece" else "number"
        if table != "policy_entry":
            guard(
                f"replace_{table}",
                "INSERT",
                table,
                f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})",  # noqa: S608 - the names above
                f"policy: that {key} is in {table} already",
            )
    # Nor may it replace a revision of the same hash, or an entry that has the name or the place of a new one.
    guard(
        "replace_hash",
        "INSERT",
        "policy_revision",
        "EXISTS (SELECT 1 FROM policy_revision WHERE hash = NEW.hash)",
        "policy: that hash is in policy_revision already",
    )
    guard(
        "replace_entry",
        "INSERT",
        "policy_entry",
        """EXISTS (SELECT 1 FROM policy_entry WHERE until IS NULL AND kind = NEW.kind AND name = NEW.name
        AND part = NEW.part)
        OR EXISTS (SELECT 1 FROM policy_entry WHERE until IS NULL AND position = NEW.position)""",
        "policy: that name or position is in the revision already",
    )
    guard("insert_entry", "INSERT", "policy_entry", f"NOT ({MAY_INSERT_ENTRY})", SEALED)
    guard("update_entry", "UPDATE", "policy_entry", f"NOT coalesce({MAY_CLOSE_ENTRY}, false)", SEALED)
    guard("insert_revision", "INSERT", "policy_revision", f"NOT {HAS_TOP}", NO_TOP)


def _guard_postgresql() -> None:
    def function(name: str, body: str) -> None:
        op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")

    refuse = "RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE ="
    function("policy_refuse", f"{refuse} 'policy: what is in ' || TG_TABLE_NAME || ' is never changed';")
    function(
        "policy_check_entry",
        f"""IF TG_OP = 'INSERT' THEN
            IF {MAY_INSERT_ENTRY} THEN RETURN NEW; END IF;
        ELSIF {MAY_CLOSE_ENTRY} THEN RETURN NEW; END IF;
        {refuse} '{SEALED}';""",
    )
    function("policy_check_revision", f"IF {HAS_TOP} THEN RETURN NEW; END IF; {refuse} '{NO_TOP}';")
    # Nobody hears it before the activation is committed.
    function("policy_tell", "PERFORM pg_notify('ktls_policy', CAST(NEW.number AS text)); RETURN NULL;")
    for table in TABLES:
        event = "DELETE" if table == "policy_entry" else "UPDATE OR DELETE"
        each = "FOR EACH ROW EXECUTE FUNCTION"
        op.execute(f"CREATE TRIGGER policy_keep BEFORE {event} ON {table} {each} policy_refuse()")
        op.execute(
            f"CREATE TRIGGER policy_keep_all BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION policy_refuse()"
        )
    op.execute(f"CREATE TRIGGER policy_check BEFORE INSERT OR UPDATE ON policy_entry {each} policy_check_entry()")
    op.execute(f"CREATE TRIGGER policy_check BEFORE INSERT ON policy_revision {each} policy_check_revision()")
    op.execute(f"CREATE TRIGGER policy_tell AFTER INSERT ON policy_activation {each} policy_tell()")

"""The policy database: revisions that never change, and which of them is in force."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from policy.load import parse
from policy.model import Policy
from policy.problems import quote
from policy.store import pem, read
from policy.store.connect import make_engine, read_url, reading, shown, writing
from policy.store.diff import Change, compare
from policy.store.errors import Conflict, NoSuchRevision, StoreUnavailable, Unchanged
from policy.store.given import check_author, check_message, encode
from policy.store.migrate import check, migrate, version
from policy.store.pieces import split
from policy.store.records import Activation, Revision
from policy.store.write import write_activation, write_revision

BASE = Path("/etc/ktls")
"""The directory that relative paths start from in a first revision that came from no file."""

Name = Revision | int | str
"""A revision: itself, its number, or how its hash begins."""


def open_store(url: str, *, upgrade: bool = False) -> "Store":
    """Open a policy database.

    Args:
        url: "sqlite:////path/of.db", the path alone, or "postgresql://user@host/database".
        upgrade: make the tables, or bring them to this program's version; without it such a database is refused.

    Raises:
        UsageError: the URL is of no database that can be used.
        SchemaError: the tables are not there, or are older or newer than this program.
        StoreUnavailable: it cannot be reached, or is no database.
    """
    where = read_url(url)
    engine = make_engine(where, create=upgrade)
    try:
        if upgrade:
            with writing(engine) as connection:
                migrate(connection)
        with reading(engine) as connection:
            check(connection)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine)


class Store:
    """An open policy database. Threads may share it; close it, or use it as a context manager."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<policy database {shown(self._engine.url)}>"

    def close(self) -> None:
        """Give its connections back."""
        self._engine.dispose()

    # --- looking ---

    def version(self) -> str:
        """Return the version of the tables."""
        with reading(self._engine) as connection:
            return str(version(connection))

    def head(self) -> Revision | None:
        """Return the newest revision, None where there is none yet."""
        with reading(self._engine) as connection:
            return read.head(connection)

    def revision(self, name: Name) -> Revision:
        """Return a revision by its number, or by four or more digits its hash begins with.

        Raises:
            NoSuchRevision: none has that, or several.
            UsageError: it is neither.
        """
        if isinstance(name, Revision):
            return name
        with reading(self._engine) as connection:
            return read.find(connection, name)

    def history(self, most: int | None = None) -> list[Revision]:
        """Return the revisions, the newest first."""
        with reading(self._engine) as connection:
            return read.history(connection, most)

    def document(self, name: Name) -> str:
        """Return a revision's text, letter by letter as it was committed.

        Raises:
            NoSuchRevision: as `revision`.
            Damaged: what is stored is something else.
        """
        of = self.revision(name)
        with reading(self._engine) as connection:
            return read.document(connection, of)

    def policy(self, name: Name, *, elsewhere: bool = False) -> Policy:
        """Return a revision compiled, ready to decide.

        Args:
            name: of the revision.
            elsewhere: as for `commit`.

        Raises:
            NoSuchRevision: as `revision`.
            PolicyError: it is not right here and now, as when a file that it names is not there.
        """
        of = self.revision(name)
        return parse(self.document(of).encode(), of.file, files=not elsewhere)

    def diff(self, old: Name, new: Name) -> tuple[Change, ...]:
        """Return what a revision says differently from another, by rule, action and keyring.

        Raises:
            NoSuchRevision: as `revision`.
        """
        was, now = self.revision(old), self.revision(new)
        with reading(self._engine) as connection:
            return compare(read.pieces(connection, was), read.pieces(connection, now))

    def active(self) -> Activation | None:
        """Return the activation in force, None where nothing has been activated yet."""
        with reading(self._engine) as connection:
            return read.active(connection)

    def activations(self, most: int | None = None) -> list[Activation]:
        """Return the activations, the last first."""
        with reading(self._engine) as connection:
            return read.activations(connection, most)

    # --- writing ---

    def commit(
        self,
        document: str,
        *,
        author: str,
        message: str,
        parent: Name | None,
        file: Path | None = None,
        elsewhere: bool = False,
    ) -> Revision:
        """Store a policy as the newest revision. It is not in force before it is activated.

        Args:
            document: the text. It is stored as it is, and only when it is right.
            author: whoever commits, one line.
            message: why.
            parent: the revision that it was made from, which must be the newest; None for the first.
            file: where it came from, for messages, and for the directory that relative paths in it start from; that of
                the parent where none is given.
            elsewhere: the keyrings' files are on other hosts, so do not look for them here.

        Raises:
            PolicyError: it is not right, or holds keys or certificates instead of their paths.
            Conflict: the parent is not the newest revision.
            Unchanged: it says, letter by letter, what its parent says.
            UsageError: author or message are missing or too long.
        """
        author, message = check_author(author), check_message(message)
        named = None if parent is None else self.revision(parent)
        head = self.head()
        _refuse_conflict(head, named)
        if file is None:
            file = (BASE if head is None else head.base) / "policy.toml"
        data = encode(document, file)
        pem.refuse(document, file)
        content = hashlib.sha256(data).hexdigest()
        base = file.absolute().parent
        if head is not None and (head.content, head.base) == (content, base):
            raise Unchanged(f"nothing to commit: this is what revision {head} says")
        policy = parse(data, file, files=not elsewhere)
        pieces = split(document)
        new = Revision(
            number=1 if head is None else head.number + 1,
            parent=None if head is None else head.number,
            parent_hash="" if head is None else head.hash,
            author=author,
            time=datetime.now(UTC),
            message=message,
            base=base,
            content=content,
            policy=policy.revision,
        )
        try:
            with writing(self._engine) as connection:
                _refuse_conflict(read.head(connection), named)
                write_revision(connection, new, pieces)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, IntegrityError):  # somebody who does not keep to the lock
                _refuse_conflict(self.head(), named)
            raise
        return new

    def activate(self, name: Name, author: str, *, elsewhere: bool = False) -> Activation:
        """Put a revision in force. One that is in force already stays so, and nothing is written.

        Args:
            name: of the revision.
            author: whoever does it, one line.
            elsewhere: as for `commit`; each agent looks for the files of its host.

        Raises:
            NoSuchRevision: as `revision`.
            PolicyError: it is not right any more here and now; the one in force stays.
        """
        author = check_author(author)
        of = self.revision(name)
        self.policy(of, elsewhere=elsewhere)
        with writing(self._engine) as connection:
            last = read.active(connection)
            if last is not None and last.revision.number == of.number:
                return last
            new = Activation(1 if last is None else last.number + 1, of, author, datetime.now(UTC))
            write_activation(connection, new)
        return new

    def rollback(self, author: str, *, elsewhere: bool = False) -> Activation:
        """Put the revision in force that was so before; done again, the one before that.

        Args:
            author: whoever does it, one line.
            elsewhere: as for `activate`.

        Raises:
            NoSuchRevision: there was none.
            PolicyError: it is not right any more here and now; the one in force stays.
        """
        author = check_author(author)
        with reading(self._engine) as connection:
            last = read.active(connection)
            target = None if last is None else read.before(connection, last)
        if last is None or target is None:
            raise NoSuchRevision("no other revision was in force before", hint="activate one by its number")
        self.policy(target.revision, elsewhere=elsewhere)
        new = Activation(last.number + 1, target.revision, author, datetime.now(UTC), target.stands_for)
        with writing(self._engine) as connection:
            now = read.active(connection)
            if now is not None and now.number != last.number:
                raise Conflict(
                    f"revision {now.revision} was activated by {quote(now.author)} in the meantime",
                    hint="see whether that is what you want to undo",
                )
            write_activation(connection, new)
        return new


def _refuse_conflict(head: Revision | None, parent: Revision | None) -> None:
    if (head.hash if head else None) == (parent.hash if parent else None):
        return
    newest = (
        f"revision {head}, by {quote(head.author)}: {quote(head.message)}" if head else "none: there is no revision"
    )
    raise Conflict(f"the newest is {newest}; this was made from {f'revision {parent}' if parent else 'none'}")

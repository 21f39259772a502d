"""Changing what the policy database holds: add, edit, remove. Each change is a new revision, not yet in force."""

import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from ktls.errors import KtlsError, UsageError
from policy.admin.source import database_option, open_database
from policy.admin.stored import author_option, who

if TYPE_CHECKING:
    from policy.store import Revision, Store
    from policy.store.pieces import Kind

message_option = click.option("--message", "-m", help="Why; what was done by default.")
_KIND = click.argument("kind", type=click.Choice(["rule", "action", "keyring"]))


def _newest(store: "Store") -> tuple["Revision", str]:
    head = store.head()
    if head is None:
        raise UsageError("the database has no policy yet", hint="`ktls policy import FILE` commits the first")
    return head, store.document(head)


def _said(made: "Revision") -> None:
    click.echo(f"committed as revision {made}; `ktls policy activate` puts it in force")


@click.command("add")
@click.argument("file", type=click.File("r"), default="-")
@click.option("--before", metavar="RULE", help="Put it in front of this rule; at the end by default.")
@message_option
@author_option
@database_option
def add_command(
    file: IO[str], before: str | None, message: str | None, author: str | None, database: str | None
) -> None:
    """Add one rule, action or keyring, read from FILE or standard input as it would stand in a policy.

    \b
      ktls policy add telnet.toml -m "nobody telnets"
      ktls policy add --before "everything else" < rule.toml
    """
    from policy.store import edits  # noqa: PLC0415 - heavy, and an extra

    text = file.read()
    with open_database(database) as store:
        head, document = _newest(store)
        changed = edits.add(document, text, before=before)
        first = next((line for line in text.splitlines() if line.strip().startswith("name")), "").partition("=")[2]
        made = store.commit(changed, author=who(author), message=message or f"add {first.strip()}", parent=head)
    _said(made)


@click.command("remove")
@_KIND
@click.argument("name")
@message_option
@author_option
@database_option
def remove_command(kind: "Kind", name: str, message: str | None, author: str | None, database: str | None) -> None:
    """Take out one rule, action or keyring, with the comments above it."""
    from policy.store import edits  # noqa: PLC0415 - heavy, and an extra

    with open_database(database) as store:
        head, document = _newest(store)
        changed = edits.remove(document, kind, name)
        made = store.commit(changed, author=who(author), message=message or f"remove {kind} {name}", parent=head)
    _said(made)


@click.command("edit")
@message_option
@author_option
@database_option
def edit_command(message: str | None, author: str | None, database: str | None) -> None:
    """Change the newest revision in $VISUAL or $EDITOR. What is wrong is told, and your text is kept."""
    with open_database(database) as store:
        head, document = _newest(store)
        path = Path(tempfile.mkdtemp(prefix="ktls-policy-")) / "policy.toml"
        path.write_text(document, newline="")
        click.edit(filename=str(path))
        changed = path.read_bytes().decode(errors="surrogateescape")
        if changed == document:
            _drop(path)
            click.echo("nothing was changed")
            return
        try:
            made = store.commit(changed, author=who(author), message=message or "edit", parent=head)
        except KtlsError:
            click.echo(f"your text is kept in {path}", err=True)
            raise
        _drop(path)
    _said(made)


def _drop(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def commit_file(file: Path, message: str | None, author: str | None, database: str | None) -> None:
    """Commit a policy file as the newest revision; used by `import`."""
    from policy.document import read_file  # noqa: PLC0415 - only for this command

    data = read_file(file)
    with open_database(database) as store:
        text = message or f"import {file.name}"
        made = store.commit(
            data.decode(errors="surrogateescape"), author=who(author), message=text, parent=store.head(), file=file
        )
    _said(made)


COMMANDS = (add_command, edit_command, remove_command)

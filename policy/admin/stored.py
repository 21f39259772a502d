"""The policy database: init, history, diff, export, activate, rollback, watch."""

import signal
import sys
import threading
from pathlib import Path

import click

from ktls.errors import PolicyError, UsageError
from policy.admin.files import EXIT_FINDINGS
from policy.admin.keyring_report import broken_keyrings
from policy.admin.output import json_option, show_json, show_table
from policy.admin.source import database_option, find_revision, open_database

author_option = click.option("--author", help="Who does it; your login name by default.")


def who(author: str | None) -> str:
    """Name the author of a change."""
    from policy.store import default_author  # noqa: PLC0415 - heavy, and an extra

    return author or default_author()


@click.command("init")
@database_option
def init_command(database: str | None) -> None:
    """Make the tables of a policy database, or bring them up to this version."""
    with open_database(database, upgrade=True) as store:
        click.echo(f"{store!r} is ready, version {store.version()}")


@click.command("history")
@database_option
@click.option("--number", "-n", "most", type=click.IntRange(1), help="Only the newest.")
@json_option
def history_command(database: str | None, most: int | None, as_json: bool) -> None:
    """List the revisions, the newest first, and which is in force."""
    with open_database(database) as store:
        revisions, active = store.history(most), store.active()
    number = active.revision.number if active else None
    if as_json:
        show_json(
            [
                {"number": one.number, "hash": one.hash, "author": one.author, "time": one.time.isoformat()}
                | {"message": one.message, "policy": one.policy, "active": one.number == number}
                for one in revisions
            ]
        )
        return
    rows = [
        (
            "*" if one.number == number else "",
            one.number,
            one.hash[:12],
            f"{one.time:%Y-%m-%d %H:%M}",
            one.author,
            first,
        )
        for one in revisions
        for first in one.message.splitlines()[:1]
    ]
    show_table(("", "REVISION", "HASH", "TIME (UTC)", "AUTHOR", "MESSAGE"), rows, empty="no revisions yet")


@click.command("diff")
@click.argument("old", default="active")
@click.argument("new", default="head")
@database_option
@json_option
def diff_command(old: str, new: str, database: str | None, as_json: bool) -> None:
    """Say what one revision says differently from another, by rule, action and keyring; from active to head by default.

    Exit status: 0 nothing, 1 something.
    """
    with open_database(database) as store:
        changes = store.diff(find_revision(store, old), find_revision(store, new))
    if as_json:
        show_json(
            [
                {"kind": one.kind, "name": one.name, "what": one.what, "moved": one.moved}
                | {"keys": [{"key": key.key, "old": key.old, "new": key.new} for key in one.keys]}
                for one in changes
            ]
        )
    else:
        rows: list[tuple[object, ...]] = []
        for one in changes:
            what = f"{one.what}, moved" if one.moved and one.what != "moved" else one.what
            keys = [(key.key, _value(key.old), _value(key.new)) for key in one.keys] or [("", "", "")]
            rows += [(one.kind, one.name, what, *key) for key in keys]
        show_table(("KIND", "NAME", "WHAT", "KEY", "WAS", "IS"), rows, empty="nothing is different")
    sys.exit(EXIT_FINDINGS if changes else 0)


def _value(value: object) -> str:
    return "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@click.command("export")
@click.argument("revision", default="active")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write it here, not on standard output.")
@database_option
def export_command(revision: str, output: Path | None, database: str | None) -> None:
    """Write a revision as the file it was imported from, letter by letter."""
    with open_database(database) as store:
        text = store.document(find_revision(store, revision))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        with output.open("x", newline="") as written:
            written.write(text)
    except OSError as error:
        raise UsageError(f"{output}: {error.strerror}", hint="no file is written over") from error


@click.command("activate")
@click.argument("revision", default="head")
@click.option("--keyrings", is_flag=True, help="Open its keyrings here first, and stop where one is wrong.")
@author_option
@database_option
def activate_command(revision: str, keyrings: bool, author: str | None, database: str | None) -> None:
    """Put a revision in force, the newest by default: every agent that follows the database takes it.

    It is checked here first, as its agents will: a policy that has a mistake is not activated.
    """
    with open_database(database) as store:
        of = find_revision(store, revision)
        if keyrings and (wrong := tuple(broken_keyrings(store.document(of).encode(), of.file))):
            raise PolicyError("\n".join(wrong), hint="the revision in force stays")
        done = store.activate(of, who(author))
    click.echo(f"revision {done.revision} is in force")


@click.command("rollback")
@author_option
@database_option
def rollback_command(author: str | None, database: str | None) -> None:
    """Put the revision in force again that was so before; once more goes one further back."""
    with open_database(database) as store:
        done = store.rollback(who(author))
    click.echo(f"revision {done.revision} is in force again")


@click.command("watch")
@database_option
@click.option("--number", "-n", "most", type=click.IntRange(1), help="End after so many.")
def watch_command(database: str | None, most: int | None) -> None:
    """Print each revision that comes into force, as agents learn of it, until interrupted."""
    import os  # noqa: PLC0415 - only for this command

    from policy.admin.source import default_database  # noqa: PLC0415 - as above
    from policy.store.follow import Followed, Follower  # noqa: PLC0415 - heavy, and an extra

    ended, left = threading.Event(), [most or sys.maxsize]

    def tell(followed: Followed) -> None:
        if followed.source == "database":
            click.echo(f"revision {followed.number} ({followed.hash[:12]}) is in force")
            left[0] -= 1
        else:
            click.echo("no revision is in force")
        if left[0] <= 0:
            ended.set()

    url = database or default_database(os.environ)
    follower = Follower(url, snapshot=None, deliver=tell, say=lambda text: click.echo(text, err=True))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    tell(follower.start())
    ended.wait()
    follower.stop()


COMMANDS = (
    init_command,
    history_command,
    diff_command,
    export_command,
    activate_command,
    rollback_command,
    watch_command,
)

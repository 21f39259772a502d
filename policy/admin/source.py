"""Where a command finds the policy it is about: a file, or a revision of the database as "@active", "@head" or "@7"."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ktls.errors import UsageError

if TYPE_CHECKING:
    from policy.model import Policy
    from policy.store import Revision, Store

VARIABLE = "KTLS_POLICY_DATABASE"
ACTIVE = "@active"


def complete_source(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the name of a policy for a shell: of a file, or of a revision that has a name."""
    if typed.startswith("@"):
        return [CompletionItem(name) for name in ("@active", "@head") if name.startswith(typed)]
    return [CompletionItem(typed, type="file")]


policy_argument = click.argument("source", metavar="FILE|@REVISION", shell_complete=complete_source)
optional_policy_argument = click.argument(
    "source",
    metavar="[FILE|@REVISION]",
    shell_complete=complete_source,
    envvar="KTLS_POLICY",
    default=ACTIVE,
)
"""As `policy_argument`; who names none means what is in force."""
database_option = click.option(
    "--database",
    metavar="URL|PATH",
    envvar=VARIABLE,
    show_envvar=True,
    help="sqlite:////path, a path, or postgresql://user@host/name; a file of your own by default.",
)


def default_database(environment: Mapping[str, str]) -> str:
    """Name the database of somebody who names none: root's in /var/lib/ktls, else in the user's state directory.

    >>> default_database({"XDG_STATE_HOME": "/s"})
    '/s/ktls/policy.db'
    """
    if environment.get("XDG_STATE_HOME"):
        return str(Path(environment["XDG_STATE_HOME"], "ktls", "policy.db"))
    if os.geteuid() == 0:
        return "/var/lib/ktls/policy.db"
    return str(Path(environment.get("HOME", "/"), ".local/state/ktls/policy.db"))


def open_database(database: str | None, *, upgrade: bool = False) -> "Store":
    """Open the policy database.

    Args:
        database: as --database gives it; None for the default.
        upgrade: make its tables, or bring them up to date.

    Raises:
        KtlsError: it cannot be used.
    """
    try:
        from policy.store import open_store  # noqa: PLC0415 - heavy, and an extra
    except ModuleNotFoundError as error:
        raise UsageError(str(error), hint="pip install 'ktls[database]'") from error
    url = database or default_database(os.environ)
    if upgrade and "://" not in url:
        Path(url).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open_store(url, upgrade=upgrade)


def find_revision(store: "Store", name: str) -> "Revision":
    """Find a revision by what people call it: "active", "head", a number, or how its hash begins; "@" may be in front.

    Raises:
        UsageError: there is none.
    """
    word = name.removeprefix("@")
    if word == "head" and (head := store.head()) is not None:
        return head
    if word == "active" and (active := store.active()) is not None:
        return active.revision
    if word in ("head", "active"):
        raise UsageError(
            f"no revision is {word} yet", hint="`ktls policy import FILE` commits one, `activate` activates it"
        )
    return store.revision(int(word) if word.isascii() and word.isdigit() else word)


def load_source(source: str, database: str | None = None) -> "Policy":
    """Load a policy from a file, or from the database where it is called "@active", "@head", "@7" or "@1f0c...".

    Raises:
        KtlsError: it cannot be loaded.
    """
    from policy.load import parse  # noqa: PLC0415 - only for commands that are about a policy

    return parse(*read_source(source, database))


def read_source(source: str, database: str | None = None) -> tuple[bytes, Path]:
    """Read a policy's text; as `load_source`.

    Returns:
        The text, and the file that it is or was.

    Raises:
        KtlsError: it cannot be read.
    """
    if not source.startswith("@"):
        from policy.document import read_file  # noqa: PLC0415 - only where a file is meant

        return read_file(Path(source)), Path(source)
    with open_database(database or os.environ.get(VARIABLE)) as store:
        of = find_revision(store, source)
        return store.document(of).encode(), of.file

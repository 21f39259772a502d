"""Policies from elsewhere: import."""

import sys
from pathlib import Path

import click

from ktls.errors import UsageError
from policy.admin.edited import commit_file, message_option
from policy.admin.files import EXIT_FINDINGS
from policy.admin.output import json_option, show_json
from policy.admin.source import database_option
from policy.admin.stored import author_option


@click.command("import")
@click.option(
    "--from", "kind", type=click.Choice(["toml", "at-tls"]), default="toml", show_default=True, help="What it is."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Where a translation goes; else standard output.")
@click.argument("file", type=click.Path(path_type=Path))
@message_option
@author_option
@database_option
@json_option
def import_command(
    kind: str,
    output: Path | None,
    file: Path,
    message: str | None,
    author: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Commit a policy file to the database, or translate one of IBM AT-TLS.

    \b
      ktls policy import site.toml -m "the first one"
      ktls policy import --from at-tls pagent_ttls.conf -o site.toml

    A translation goes into a file, to be read before it is committed. Nothing is lost silently: what has no counterpart
    is named, with its line.

    Exit status: 0 done, 1 a translation has notes to be read, 2 the file is wrong.
    """
    if kind == "toml":
        commit_file(file, message, author, database)
    else:
        _translate(file, output, as_json)


def _translate(file: Path, output: Path | None, as_json: bool) -> None:
    from policy.attls.translate import translate  # noqa: PLC0415 - only for this command
    from policy.document import read_file  # noqa: PLC0415 - as above

    made = translate(read_file(file).decode(errors="replace"), str(file))
    if output is not None:
        try:
            with output.open("x") as written:
                written.write(made.text)
        except OSError as error:
            raise UsageError(
                f"{output}: {error.strerror}", hint="nothing is written over; name another file"
            ) from error
    if as_json:
        show_json({"policy": made.text, "notes": [{"line": at, "note": what} for at, what in made.notes]})
    else:
        if output is None:
            click.echo(made.text, nl=False)
        for at, what in made.notes:
            click.echo(f"{file}:{at}: {what}", err=True)
    sys.exit(EXIT_FINDINGS if made.notes else 0)


COMMANDS = (import_command,)

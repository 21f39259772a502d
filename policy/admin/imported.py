"""Policies from elsewhere: import."""

import sys
from pathlib import Path

import click

from ktls.errors import UsageError
from policy.admin.files import EXIT_FINDINGS
from policy.admin.output import json_option, show_json


@click.command("import")
@click.option("--from", "kind", type=click.Choice(["at-tls"]), required=True, help="What kind of file it is.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write the policy here, not on standard output.")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def import_command(kind: str, output: Path | None, file: Path, as_json: bool) -> None:
    """Translate an IBM AT-TLS policy file. Nothing is lost silently: what has no counterpart is named, with its line.

    \b
      ktls policy import --from at-tls pagent_ttls.conf -o site.toml
      ktls policy check site.toml

    Exit status: 0 everything has a counterpart, 1 there are notes to be read, 2 the file is wrong.
    """
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
        show_json({"from": kind, "policy": made.text, "notes": [{"line": at, "note": what} for at, what in made.notes]})
    else:
        if output is None:
            click.echo(made.text, nl=False)
        for at, what in made.notes:
            click.echo(f"{file}:{at}: {what}", err=True)
    sys.exit(EXIT_FINDINGS if made.notes else 0)


COMMANDS = (import_command,)

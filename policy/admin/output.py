"""How the commands answer: tables for people, one JSON value for programs, the same facts in both."""

import json
import sys
from collections.abc import Iterable, Sequence

import click

PIPED_WIDTH = 500
"""Columns of a table that goes into a file or a pipe, where there is no terminal to wrap for."""

json_option = click.option("--json", "as_json", is_flag=True, help="For programs: one JSON value.")


def show_json(value: object) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table.

    Args:
        columns: their titles.
        rows: a cell a column.
        empty: what to say when there are no rows.
    """
    from rich.console import Console  # noqa: PLC0415 - only where a table is shown
    from rich.table import Table  # noqa: PLC0415 - as above

    listed = list(rows)
    if not listed:
        click.echo(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*("" if cell is None else str(cell) for cell in row), style=None)
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, markup=False, highlight=False)
    with console.capture() as shown:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in shown.get().splitlines()))

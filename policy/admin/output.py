"""How the commands answer: tables for people, one JSON value for programs, the same facts in both."""

import json
import sys
from collections.abc import Iterable, Sequence

import click

PIPED_WIDTH = 500
"""Columns of a table that goes into a file or a pipe, where there is no terminal to wrap for."""

json_option = click.option("--json", "as_json", is_flag=True, help="For programs: one JSON value.")


def count(number: int, one: str, many: str = "") -> str:
    """Say how many there are.

    >>> count(0, "error"), count(1, "error"), count(2, "policy", "policies")
    ('no errors', '1 error', '2 policies')
    """
    return f"{number or 'no'} {one if number == 1 else many or one + 's'}"


def show_json(value: object) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, blocks: bool = False) -> None:
    """Print a table.

    Args:
        columns: their titles.
        rows: a cell a column.
        empty: what to say when there are no rows.
        blocks: on a terminal that is too narrow for it, give each row some lines, a cell each.
    """
    from rich.console import Console  # noqa: PLC0415 - only where a table is shown
    from rich.table import Table  # noqa: PLC0415 - as above

    listed = list(rows)
    if not listed:
        click.echo(empty)
        return
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, markup=False, highlight=False)
    if blocks and sys.stdout.isatty() and _width(columns, listed) > console.width:
        click.echo("\n\n".join(_block(columns, row) for row in listed))
        return
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*("" if cell is None else str(cell) for cell in row), style=None)
    with console.capture() as shown:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in shown.get().splitlines()))


def _width(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    return sum(1 + max(map(len, map(str, cells))) for cells in zip(columns, *rows, strict=True))


def _block(columns: Sequence[str], row: Sequence[object]) -> str:
    widest = max(map(len, columns))
    return "\n".join(
        f"{name:<{widest}} {cell}" for name, cell in zip(columns, row, strict=True) if cell not in (None, "")
    )

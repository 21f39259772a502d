"""docs/semantics.md, made from the rows: `python -m tests.contract.table`."""

from pathlib import Path

from tests.contract.row import ROWS, Row, load_rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "semantics.md"
HEAD = """\
# What a program sees: the contract

A program under `ktls run` sees what plain TCP would have shown it. Each line here is a promise with a test that holds
it, on both engines. A test in `tests/contract/rows` runs twice, by the same code: on plain TCP and under `ktls run`;
what it sees must be the same. Where we knowingly differ the line says how, and the test checks that.

This page is made from the tests: `python -m tests.contract.table`.
"""


def render(rows: list[Row]) -> str:
    """The page."""
    parts = [HEAD]
    for group in dict.fromkeys(row.group for row in rows):
        module = __import__(f"tests.contract.rows.{group}", fromlist=["__doc__"])
        title = (module.__doc__ or group).strip().splitlines()[0].rstrip(".")
        parts.append(
            f"\n## {title}\n\n| a program does | TCP gives | kernel | relay | held by |\n|---|---|---|---|---|\n"
        )
        parts += [
            f"| {' | '.join(map(_cell, (row.does, row.gives, row.kernel, row.relay)))} | `{_place(row)}` |\n"
            for row in rows
            if row.group == group
        ]
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _place(row: Row) -> str:
    return row.test.removeprefix("tests/").removeprefix(str(ROWS.name))


if __name__ == "__main__":
    PAGE.write_text(render(load_rows()))

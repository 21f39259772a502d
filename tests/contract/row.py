"""The rows of docs/semantics.md: what a program does, what TCP gives, and the code that finds out.

A row is a function in tests/contract/rows/<group>.py. It is run twice, by the same code: once on plain TCP and once
under `ktls run`, where both ends or one of them are covered. What it returns must be the same both times, so a row
cannot promise what TCP itself does not give. Where we knowingly differ, the row says so and checks the difference.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.contract.world import World

Run = Callable[["World"], Any]
ROWS = Path(__file__).parent / "rows"
SAME = "the same"


@dataclass(frozen=True)
class Row:
    """One promise.

    Attributes:
        name: of the function.
        group: of its module.
        does: what a program does.
        gives: what plain TCP gives.
        kernel, relay: what we give, by engine.
        test: where the promise is held.
        run: the function; None for a row that another test of the suite holds.
        root: it needs to be root.
        engines: where it runs; a row that is too much for a small kernel says so.
    """

    name: str
    group: str
    does: str
    gives: str
    kernel: str
    relay: str
    test: str
    run: Run | None = None
    root: bool = False
    engines: tuple[str, ...] = ("relay", "kernel")


_ROWS: list[Row] = []


def row(
    does: str,
    gives: str,
    *,
    kernel: str = SAME,
    relay: str = SAME,
    root: bool = False,
    engines: tuple[str, ...] = ("relay", "kernel"),
) -> Callable[[Run], Run]:
    """Make a row of a function."""

    def register(run: Run) -> Run:
        name, group = run.__name__, run.__module__.rpartition(".")[2]
        test = f"tests/contract/rows/{group}.py::{name}"
        _ROWS.append(Row(name, group, does, gives, kernel, relay, test, run, root, engines))
        return run

    return register


def held_by(test: str, does: str, gives: str, *, kernel: str = SAME, relay: str = SAME) -> None:
    """Make a row of a test elsewhere in the suite, tests/<file>.py::<test>, because it needs what a row cannot have."""
    import inspect

    caller = inspect.currentframe()
    assert caller
    assert caller.f_back
    group = str(caller.f_back.f_globals["__name__"]).rpartition(".")[2]
    _ROWS.append(Row(test.rpartition("::")[2], group, does, gives, kernel, relay, test))


def load_rows() -> list[Row]:
    """Every row, group by group in the order of the modules' names, each in the order of its module."""
    for path in sorted(ROWS.glob("*.py")):
        importlib.import_module(f"tests.contract.rows.{path.stem}")
    return list(_ROWS)

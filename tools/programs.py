"""Write docs/programs.md from what the scenarios of tests/programs noted: `tools/programs.py` (`make programs`)."""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("relay", "kernel")
DASH = "-"

HEAD = """\
# Real programs

Unmodified programs as Debian packages them, or as their languages bring them, under `ktls run`. One scripted scenario
each, in `tests/programs`, is part of every `make test`: natively with the relay, and with kTLS in user-mode Linux. Data
goes both ways and is compared; where it makes sense the program is once the covered server of a foreign TLS client and
once the covered client of a foreign TLS server. Afterwards the agents' logs must show that every connection was
protected by the engine in question and ended in order, and the agents' descriptors must be back where they were.

This page is made by that suite: `make programs` runs it with larger loads, once without us and once with us at both
ends, on the two engines, and writes what came out. It ran on
{machine}.

**Throughput** is `without us -> with us`, on one machine whose processors do both ends and both agents, so it is what a
change of ours moves and not what a network would show. The relay is a process in Python. User-mode Linux has one
processor, slow system calls and plain C ciphers: its figures say that it works, and nothing about a real kernel.
What has no figure `passes`, or, with a `-`, was not part of that engine's run.

"""

TABLE = """\
| program | version | measured | relay | kernel (user-mode Linux) |
|---|---|---|---|---|
"""

FOUND = """
## What was found

"""

Row = dict[str, Any]


def number(value: float | None) -> str:
    """Three digits are enough."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(rows: dict[str, Row], program: str, unit: str | None) -> str:
    """What one engine gave: the rates, or that the scenario passed."""
    if program not in rows:
        return DASH
    rate = rows[program]["rates"].get(unit)
    return f"{number(rate.get('plain'))} -> {number(rate.get('covered'))}" if rate else "passes"


def render(results: dict[str, dict[str, Any]]) -> str:
    """Return the page.

    Args:
        results: what each engine's run wrote, by engine.
    """
    rows = {engine: results.get(engine, {}).get("rows", {}) for engine in ENGINES}
    programs = sorted({program for engine in ENGINES for program in rows[engine]}, key=str.casefold)
    lines, found = [], []
    for program in programs:
        both = [rows[engine][program] for engine in ENGINES if program in rows[engine]]
        units = list(dict.fromkeys(unit for row in both for unit in row["rates"])) or [None]
        for unit in units:
            name, version = (program, both[0]["version"]) if unit == units[0] else ("", "")
            cells = [name, version, unit or DASH, *(cell(rows[engine], program, unit) for engine in ENGINES)]
            lines.append(f"| {' | '.join(cells)} |\n")
        notes = list(dict.fromkeys(note for row in both for note in row["found"]))
        found += [f"- **{program}**: {note.rstrip('.')}.\n" for note in notes]
    machine = "; ".join(f"{results[engine]['machine']} ({engine})" for engine in ENGINES if engine in results)
    quiet = "Programs without a line here worked at once.\n"
    return HEAD.format(machine=machine) + TABLE + "".join(lines) + FOUND + "".join(found) + "\n" + quiet


def main() -> int:
    """Render what build/programs-<engine>.json hold; 1 when a run is missing."""
    files = {engine: ROOT / "build" / f"programs-{engine}.json" for engine in ENGINES}
    if missing := [str(path.relative_to(ROOT)) for path in files.values() if not path.exists()]:
        print(f"missing: {', '.join(missing)}; `make programs` makes them", file=sys.stderr)
        return 1
    page = render({engine: json.loads(path.read_text()) for engine, path in files.items()})
    (ROOT / "docs/programs.md").write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the scenarios found, kept in build/programs-<engine>.json for tools/programs.py."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build"


def debian_version(package: str) -> str:
    """The version of an installed Debian package, as upstream calls it: "1.22.1" of "1:1.22.1-9+deb12u1"."""
    words = ["dpkg-query", "-W", "-f", "${source:Upstream-Version}", package]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@dataclass
class Results:
    """One run's rows, by program."""

    engine: str
    rows: dict[str, dict] = field(default_factory=dict)

    def row(self, program: str, version: str, found: str) -> None:
        row = self.rows.setdefault(program, {"version": version, "found": [], "rates": {}})
        if found and found not in row["found"]:
            row["found"].append(found)

    def rate(self, program: str, unit: str, value: float, *, covered: bool) -> None:
        self.rows[program]["rates"].setdefault(unit, {})["covered" if covered else "plain"] = value

    def path(self) -> Path:
        return BUILD / f"programs-{self.engine}.json"

    def write(self) -> None:
        BUILD.mkdir(exist_ok=True)
        machine = f"Linux {os.uname().release.partition('-')[0]} with {os.cpu_count()} CPU"
        whole = {"machine": machine, "rows": self.rows}
        self.path().write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")

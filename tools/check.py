"""Run the project's checks and sum them up: `tools/check.py lint native uml qemu` (`make test` runs all of these).

Every step runs even when an earlier one failed, tests' output streams (linters speak only of what they found; what runs
in user-mode Linux, beside the rest, is shown when it has ended), and the end is one table and one line of counts.
Steps that need the lab are left out where it is missing, unless KTLS_REQUIRE_LAB=1, which makes them fail.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTEST = (sys.executable, "-m", "pytest", "-q")
LAB = str(ROOT / "tools/lab")
FAST = ("ktls", "policy", "offload", "shim", "e2e")
NO_CACHE = ("-p", "no:cacheprovider")  # the lab's file system may be read-only

# The end of pytest's last line: "3 failed, 120 passed, 2 skipped in 4.21s".
_COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed)")
_LAST_LINE = re.compile(r"^=*\s*\d+ (?:passed|failed|errors?|skipped|deselected|xfailed).* in [\d.]+s")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Command:
    """One program of a step.

    Attributes:
        words: the command line.
        variables: additions to the environment.
        needs: programs on PATH or files without which it cannot run.
        quiet: show what it prints only if it fails.
        held: show what it prints when it has ended, since another step streams meanwhile.
    """

    words: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    quiet: bool = False
    held: bool = False


@dataclass(slots=True)
class Result:
    """How a step ended."""

    step: str
    status: str = "failed"
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)


def sources(pattern: str) -> tuple[str, ...]:
    """List files of the checkout by a pattern, relative to its root."""
    return tuple(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(pattern)))


def steps() -> dict[str, list[Command]]:
    """Name the steps and what they run."""
    tool = {name: str(BIN / name) for name in ("ruff", "mypy", "lint-imports", "clang-format")}
    c_files = (*sources("ktls/shim/*.[ch]"), *sources("tests/**/*.c"))
    both = tuple(folder for folder in ("tests/lab", "tests/e2e", "tests/contract") if (ROOT / folder).is_dir())
    kernel = {"KTLS_TEST_ENGINE": "kernel", "KTLS_REQUIRE_LAB": "1"}
    return {
        "lint": [
            Command((tool["ruff"], "check", "."), quiet=True),
            Command((tool["ruff"], "format", "--check", "."), quiet=True),
            Command((tool["mypy"],), quiet=True),
            Command((tool["lint-imports"],), quiet=True),
            Command((tool["clang-format"], "--dry-run", "--Werror", *c_files), quiet=True),
        ],
        # Everyday work: no booted kernels, no agents as processes but in a few tests.
        "fast": [Command((*PYTEST, "-m", "not lab and not slow", *(f"tests/{folder}" for folder in FAST)))],
        "native": [Command((*PYTEST, "-m", "not lab", "tests", "tools/bench"))],
        "uml": [
            Command(
                (LAB, "uml", "--", *PYTEST, *NO_CACHE, *both, "tests/programs"), kernel, ("linux.uml", LAB), held=True
            ),
        ],
        "qemu": [
            Command((LAB, "qemu", "--", *PYTEST, *NO_CACHE, "-m", "qemu", *both), kernel, ("qemu-system-x86_64", LAB)),
        ],
    }


def run(step: str, commands: list[Command]) -> Result:
    """Run a step's commands, all of them, and add up what their tests counted."""
    result = Result(step)
    start = time.monotonic()
    missing = [need for command in commands for need in command.needs if shutil.which(need) is None]
    if missing:
        print(f"--- {step}: {', '.join(missing)} missing", flush=True)
        result.status = "failed" if os.environ.get("KTLS_REQUIRE_LAB") == "1" else "left out"
        return result
    failed = [command for command in commands if not passes(step, command, result.counts)]
    result.seconds = time.monotonic() - start
    result.status = "failed" if failed else "passed"
    return result


def passes(step: str, command: Command, counts: dict[str, int]) -> bool:
    """Run one command, streaming what it prints."""
    words = [Path(word).name if word.startswith(str(BIN)) else word for word in command.words]
    print(f"--- {step}: {' '.join(words)}"[:160], flush=True)
    environment = {**os.environ, **command.variables}
    output = subprocess.PIPE
    with subprocess.Popen(
        command.words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        held = []
        for line in process.stdout:
            if command.quiet or command.held:
                held.append(line)
            else:
                show_bytes(line)
            if not command.quiet:
                count(line.decode(errors="replace"), counts)
    if process.returncode != 0 or command.held:
        if command.held:
            held.insert(0, f"--- {step}: what it said\n".encode())
        show_bytes(b"".join(held))
    return process.returncode == 0


def show_bytes(data: bytes) -> None:
    """Pass output on at once, whatever it is."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def count(line: str, counts: dict[str, int]) -> None:
    """Add what pytest's last line says; other lines say nothing."""
    text = _COLOURS.sub("", line).strip()
    if _LAST_LINE.match(text):
        for number, kind in _COUNTS.findall(text):
            name = "failed" if kind.startswith("error") else kind
            counts[name] = counts.get(name, 0) + int(number)


def show(results: list[Result]) -> None:
    """Print one line a step, and the counts of all tests."""
    print("\n--- summary")
    for result in results:
        counts = ", ".join(f"{number} {kind}" for kind, number in result.counts.items())
        print(f"{result.step:8} {result.status:9} {result.seconds:6.1f} s  {counts}")
    total = {kind: sum(result.counts.get(kind, 0) for result in results) for kind in ("passed", "failed", "skipped")}
    if any(total.values()):
        print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped", flush=True)


def main(names: list[str]) -> int:
    """Run the named steps; 0 when all that ran passed."""
    known = steps()
    if unknown := [name for name in names if name not in known]:
        print(f"no such step: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    # User-mode Linux has one processor: the rest goes on beside it.
    beside = [name for name in names if all(command.held for command in known[name])]
    with ThreadPoolExecutor(max_workers=1) as pool:
        others = {name: pool.submit(run, name, known[name]) for name in beside}
        done = {name: run(name, known[name]) for name in names if name not in beside}
    results = [others[name].result() if name in others else done[name] for name in names]
    show(results)
    return int(any(result.status == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The summary of `make test` counts what ran and hides no failure."""

import os
import sys

import pytest

from tools import check


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("3 passed in 0.74s", {"passed": 3}),
        ("1 failed, 37 passed, 2 skipped in 2.08s", {"failed": 1, "passed": 37, "skipped": 2}),
        ("==== 2 failed, 1 error in 1.00s ====", {"failed": 3}),
        ("\x1b[32m\x1b[1m5 passed\x1b[0m\x1b[32m in 1.0s\x1b[0m", {"passed": 5}),
        ("12 passed, 3 deselected in 63.20s (0:01:03)", {"passed": 12}),
        ("5 passed", {}),
    ],
)
def test_pytests_last_line_is_counted_and_no_other(line, counts):
    found: dict[str, int] = {}
    check.count(line, found)
    assert found == counts


def step(script, **options):
    return check.run("step", [check.Command((sys.executable, "-c", script), **options)])


def test_step_passes_with_its_commands_and_streams_what_they_say(capfdbinary):
    result = step("print('2 passed in 0.1s')")
    assert (result.status, result.counts) == ("passed", {"passed": 2})
    assert b"2 passed in 0.1s" in capfdbinary.readouterr().out


def test_one_failed_command_fails_the_step_and_the_others_still_run():
    commands = [check.Command((sys.executable, "-c", f"raise SystemExit({status})")) for status in (1, 0)]
    assert check.run("step", commands).status == "failed"


@pytest.mark.parametrize(("status", "shown"), [(0, False), (1, True)])
def test_quiet_command_speaks_only_when_it_fails(capfdbinary, status, shown):
    step(f"print('find' + 'ings'); raise SystemExit({status})", quiet=True)
    assert (b"\nfindings\n" in capfdbinary.readouterr().out) is shown


@pytest.mark.parametrize(("required", "status"), [("", "left out"), ("1", "failed")])
def test_step_without_its_lab_is_left_out_unless_it_is_required(monkeypatch, required, status):
    monkeypatch.setitem(os.environ, "KTLS_REQUIRE_LAB", required)
    assert step("", needs=("/nonexistent/lab",)).status == status


def test_summary_closes_with_the_counts_of_all_steps(capsys):
    check.show([check.Result("a", "passed", 1.0, {"passed": 2, "skipped": 1}), check.Result("b", counts={"failed": 3})])
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 3 failed, 1 skipped"


def test_unknown_step_is_an_error(capsys):
    assert check.main(["nosuch"]) == 2
    assert "native" in capsys.readouterr().err

"""The report: lines that other programs read."""

import json
import os
from pathlib import Path

import pytest

from ktls.agent.report import Report


def test_an_event_is_one_json_line_without_what_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "log"
    report = Report(path)
    report.write("open", {"id": 1, "rule": None, "peer": "CN=ü\n"})
    report.close()
    (line,) = path.read_text().splitlines()
    event = json.loads(line)
    assert event.pop("time").endswith("+00:00")
    assert event == {"event": "open", "agent": os.getpid(), "id": 1, "peer": "CN=ü\n"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_agents_append_to_one_file(tmp_path: Path) -> None:
    reports = [Report(tmp_path / "log") for _ in range(2)]
    for number in range(100):
        reports[number % 2].write("open", {"id": number})
    for report in reports:
        report.close()
    assert [json.loads(line)["id"] for line in (tmp_path / "log").read_text().splitlines()] == list(range(100))


def test_without_a_path_nothing_is_written() -> None:
    Report(None).write("open", {})


def test_a_full_disk_loses_lines_and_says_so_later(tmp_path: Path) -> None:
    report = Report(Path("/dev/full"))
    for _ in range(3):
        report.write("open", {})
    assert report.lost == 3
    report.close()
    after = Report(tmp_path / "log")
    after.lost = 3
    after.write("open", {})
    after.write("open", {})
    assert [json.loads(line).get("lost") for line in (tmp_path / "log").read_text().splitlines()] == [3, None]
    after.close()


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(2)):
        Report(tmp_path / "absent" / "log")

"""One line for each connection, in files that never outgrow their bound."""

import os
from pathlib import Path

import pytest

from ktls.agent.ledger import Ledger


def kept(path: Path) -> list[bytes]:
    older = path.with_name(path.name + ".1")
    return (older.read_bytes() if older.exists() else b"").splitlines() + path.read_bytes().splitlines()


def test_only_the_last_word_about_a_connection_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state" / "records")
    for event in ("open", "end", "clear", "malformed"):
        ledger.write(event, event.encode() + b"\n")
    ledger.close()
    assert kept(tmp_path / "state" / "records") == [b"end", b"clear"]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "records").stat().st_mode & 0o777 == 0o600


def test_the_oldest_go_when_the_bound_is_reached(tmp_path: Path) -> None:
    path, most = tmp_path / "records", 1000
    ledger = Ledger(path, most)
    for number in range(1000):
        ledger.write("end", b"%09d\n" % number)
    ledger.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= most
    assert kept(path)[-50:] == [b"%09d" % number for number in range(950, 1000)]
    assert len(list(tmp_path.iterdir())) == 2


def test_several_agents_share_the_files_and_lose_no_line(tmp_path: Path) -> None:
    path, agents, each = tmp_path / "records", 4, 200
    children = []
    for agent in range(agents):
        if (pid := os.fork()) == 0:
            ledger = Ledger(path, 16000)  # half of it is not quite what all of them write: it turns once
            for number in range(each):
                ledger.write("end", b"%d %04d\n" % (agent, number))
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    lines = kept(path)
    assert len(lines) == len(set(lines)) == agents * each


def test_files_that_somebody_removed_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "records"
    ledger = Ledger(path)
    ledger.write("end", b"a\n")
    path.unlink()
    ledger.write("end", b"b\n")
    assert path.read_bytes() == b"b\n"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "records").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Ledger(tmp_path / "records").write("end", b"x\n")

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.store.errors import SnapshotError
from policy.store.snapshot_file import Snapshot, load, save

SNAPSHOT = Snapshot(7, "a" * 64, Path("/etc/ktls"), "# ours\r\nversion = 1 # \u00e4\n")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state" / "policy.snapshot"
    save(path, SNAPSHOT)
    return path


def test_it_comes_back_as_it_was(path):
    assert load(path) == SNAPSHOT
    save(path, Snapshot(8, "b" * 64, Path("/etc/ktls"), "version = 1"))
    assert load(path).number == 8
    assert SNAPSHOT.file == Path("/etc/ktls/revision-7")


def test_only_its_owner_may_read_it_and_nothing_else_is_left(path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_said_and_the_old_one_stays(path, tmp_path):
    with pytest.raises(SnapshotError, match="cannot be written: File exists"):
        save(path / "below", SNAPSHOT)
    folder = tmp_path / "folder"
    (folder / "policy").mkdir(parents=True)
    with pytest.raises(SnapshotError, match="cannot be written: Is a directory"):
        save(folder / "policy", SNAPSHOT)
    assert [one.name for one in folder.iterdir()] == ["policy"]
    assert load(path) == SNAPSHOT


@pytest.mark.parametrize("place", [0, 30, 90, 160, -1])
def test_a_changed_letter_is_noticed(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match=r"is not as it was written|is not a policy's snapshot"):
        load(path)


@given(st.binary(max_size=200) | st.sampled_from([b"[" * 60_000, b"{}", b"null\n", b"[]\nx"]))
def test_any_bytes_are_our_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "policy.snapshot"
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match="is not"):
        load(path)


def test_half_a_file_is_noticed(path):
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SnapshotError):
        load(path)


def test_what_others_may_write_is_not_used(path):
    path.chmod(0o620)
    with pytest.raises(SnapshotError, match="has mode 0620, so that others may write it"):
        load(path)
    if os.geteuid() == 0:
        path.chmod(0o600)
        os.chown(path, 12345, 0)
        with pytest.raises(SnapshotError, match="belongs to user 12345"):
            load(path)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, why in (
        ("fifo", "is not a file"),
        ("loop", "symbolic links"),
        ("none", "No such file"),
        ("", "directory"),
    ):
        with pytest.raises(SnapshotError, match=why):
            load(tmp_path / name)

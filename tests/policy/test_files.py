import os

import pytest

from ktls.errors import PolicyError
from policy.files import FILE_MAX, readable


def refused(path, **options) -> str:
    with pytest.raises(PolicyError) as caught:
        readable(path, **options)
    return caught.value.message


def test_a_file_that_can_be_read_is_fine(tmp_path):
    (tmp_path / "file").write_text("x")
    readable(tmp_path / "file")


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / ("long" * 40)  # a path is told in full
    assert refused(path) == f'cannot read "{path}": No such file or directory'


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_is_not_for_us(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0)
    assert "Permission denied" in refused(tmp_path / "file")


def test_a_loop_of_links(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "loop" in refused(tmp_path / "a")


def test_a_fifo_is_no_file_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert "is not a file" in refused(tmp_path / "fifo")


def test_a_directory_will_do_only_where_it_is_said_to(tmp_path):
    readable(tmp_path, directory=True)
    assert "is not a file" in refused(tmp_path)


def test_sizes_have_bounds(tmp_path):
    (tmp_path / "empty").touch()
    assert "has 0 bytes" in refused(tmp_path / "empty")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(FILE_MAX + 1)
    assert f"1 to {FILE_MAX} are permitted" in refused(tmp_path / "large")


def test_looking_leaves_no_descriptor(tmp_path, fd_count):
    (tmp_path / "file").write_text("x")
    before = fd_count()
    readable(tmp_path / "file")
    refused(tmp_path)
    assert fd_count() == before

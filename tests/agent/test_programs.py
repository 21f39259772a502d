"""What is known of the sender of a request, and who else holds a socket."""

import errno
import grp
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ktls.agent.programs import holders, program_of


def test_a_process_is_described_by_its_proc_files() -> None:
    program = program_of(os.getpid(), os.getuid(), os.getgid())
    assert program.path == os.path.realpath(sys.executable)
    assert program.user == pwd.getpwuid(os.getuid()).pw_name
    assert set(program.groups) == set(os.getgroups())
    assert program.group_names[0] == grp.getgrgid(os.getgid()).gr_name


def test_a_process_that_is_gone_is_known_by_its_user_alone() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    program = program_of(child.pid, 4_000_000_000, 1)
    assert (program.path, program.user, program.groups, program.unit) == (None, None, (), None)
    assert program.uid == 4_000_000_000


def test_the_unit_is_the_innermost_of_the_cgroups_path(monkeypatch) -> None:
    text = "1:name=systemd:/ignored\n0::/user.slice/user-1.slice/user@1.service/app.slice/app@x.service/inner\n"
    monkeypatch.setattr(Path, "read_text", lambda _: text)
    assert program_of(os.getpid(), 0, 0).unit == "app@x.service"


def test_a_socket_is_held_while_another_process_has_it() -> None:
    a, b = socket.socketpair()
    inode, ours = os.fstat(a.fileno()).st_ino, os.fstat(b.fileno()).st_ino
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[a.fileno()])
    try:
        assert holders(frozenset({inode, ours})) == {inode}  # our own copies do not count
    finally:
        child.communicate()
    assert holders(frozenset({inode, ours})) == frozenset()
    a.close()
    b.close()


def test_beyond_the_bound_everything_counts_as_held() -> None:
    """A premature close_notify cuts a live connection; a late one costs nothing."""
    assert holders(frozenset({1, 2}), most=0) == {1, 2}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("where", ["/proc", f"/proc/{os.getppid()}/fd"])
def test_when_nothing_more_can_be_opened_everything_counts_as_held(
    number: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.listdir

    def exhausted(path: str) -> list[str]:
        if path == where:
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(os, "listdir", exhausted)
    assert holders(frozenset({1, 2})) == {1, 2}

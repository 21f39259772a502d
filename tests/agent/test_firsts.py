"""Which connection another one goes with."""

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime

from ktls.agent import firsts as f
from ktls.agent.firsts import First, Firsts, inode_of
from ktls.agent.programs import program_of
from ktls.ciphers import Role
from policy.decide import Decision
from policy.model import Action, Facts, Verdict

DECISION = Decision(Verdict.TLS, Action(secondary=True), "ftp", "rule ftp fits", "0")
TOLD = Facts(direction="outbound", remote=("192.0.2.1", 21), when=datetime.now(UTC))
ME = program_of(os.getpid(), os.getuid(), os.getgid())


def first(number: int, pid: int = ME.pid, inode: int = 0) -> First:
    return First(number, pid, inode, DECISION, TOLD, Role.CLIENT, None)


def test_one_of_the_same_process_and_host_while_it_lives():
    table = Firsts()
    assert table.of(ME, "192.0.2.1") is None
    with table.living("192.0.2.1", first(1)):
        assert table.of(ME, "192.0.2.1") == first(1)
        assert table.of(ME, "192.0.2.2") is None
        with table.living("192.0.2.1", first(2)):
            assert table.of(ME, "192.0.2.1") == first(2)  # the latest
        assert table.of(ME, "192.0.2.1") == first(1)
    assert table.of(ME, "192.0.2.1") is None


def test_another_process_goes_with_it_when_it_holds_the_socket():
    table = Firsts()
    wait = [sys.executable, "-c", "input()"]
    with socket.socket() as sock:
        sock.set_inheritable(True)
        heir = subprocess.Popen(wait, stdin=subprocess.PIPE, close_fds=False)
        stranger = subprocess.Popen(wait, stdin=subprocess.PIPE)
        try:
            with table.living("192.0.2.1", first(1, pid=1, inode=inode_of(sock.fileno()))):
                assert table.of(program_of(heir.pid, 0, 0), "192.0.2.1") is not None
                assert table.of(program_of(stranger.pid, 0, 0), "192.0.2.1") is None
                assert table.of(program_of(0, 0, 0), "192.0.2.1") is None
        finally:
            for process in (heir, stranger):
                process.communicate(b"\n")


def test_connections_that_nothing_goes_with_are_not_remembered():
    table = Firsts()
    with table.living("192.0.2.1", None):
        assert table.of(ME, "192.0.2.1") is None


def test_the_table_is_bounded(monkeypatch):
    monkeypatch.setattr(f, "MOST", 1)
    table = Firsts()
    with table.living("192.0.2.1", first(1)), table.living("192.0.2.2", first(2)):
        assert table.of(ME, "192.0.2.2") is None
        assert table.of(ME, "192.0.2.1") is not None
    with table.living("192.0.2.2", first(2)):
        assert table.of(ME, "192.0.2.2") is not None

"""An agent starts out of the program's sight."""

import json
import logging
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ktls import spawn
from ktls.errors import AgentUnreachable, Denied, UsageError


def say_ready(send: int) -> None:
    os.write(send, spawn.READY)
    os.close(send)


def report_to(fifo: Path):
    """Make an agent that tells a FIFO what it is, once it is up."""

    def body(path: Path, send: int) -> None:
        say_ready(send)
        status = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "session": os.getsid(0),
            "open": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()),
            "cwd": str(Path.cwd()),
            "path": str(path),
        }
        fifo.write_text(json.dumps(status))

    return body


@pytest.fixture
def directory(tmp_path):
    return spawn.runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)})


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_agent_is_no_child_in_another_session_and_holds_nothing_of_ours(directory, fifo):
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    path = spawn.start_agent(report_to(fifo), directory, None)
    os.close(theirs)
    agent = json.loads(fifo.read_text())
    assert os.read(ours, 1) == b""  # end of file: nobody else has it
    os.close(ours)
    assert agent["parent"] != os.getpid()
    assert agent["session"] != os.getsid(0)
    assert agent["session"] != agent["pid"]  # so it can never take a terminal
    assert [fd for fd in agent["open"] if fd < 3] == [0, 1, 2]
    assert len(agent["open"]) == 4  # and the one that lists them
    assert agent["cwd"] == "/"
    assert agent["path"] == str(path)


def test_program_has_no_child_to_wait_for(directory, fifo):
    child = os.fork()
    if child == 0:
        spawn.start_agent(report_to(fifo), directory, None)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            os._exit(0)
        os._exit(1)
    fifo.read_text()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_failure_to_start_is_told_in_the_agents_own_words(directory):
    def body(path: Path, send: int) -> None:
        raise Denied("the keyring web cannot be opened")

    with pytest.raises(AgentUnreachable, match="the keyring web cannot be opened"):
        spawn.start_agent(body, directory, None)
    assert not directory.exists()


def test_a_crash_at_start_is_told_too(directory):
    def body(path: Path, send: int) -> None:
        raise RuntimeError("boom")

    with pytest.raises(AgentUnreachable, match="RuntimeError: boom"):
        spawn.start_agent(body, directory, None)


def test_agent_killed_at_start_is_an_error(directory):
    def body(path: Path, send: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(AgentUnreachable, match="without a word"):
        spawn.start_agent(body, directory, None)


def test_agent_that_never_answers_is_given_up(directory, fifo, monkeypatch):
    monkeypatch.setattr(spawn, "START_DEADLINE", 0.01)

    def body(path: Path, send: int) -> None:
        fifo.read_text()

    with pytest.raises(AgentUnreachable, match="no answer within"):
        spawn.start_agent(body, directory, None)
    fifo.write_text("go")


def test_what_the_agent_says_later_goes_to_the_log(directory, tmp_path):
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)

    def body(path: Path, send: int) -> None:
        say_ready(send)
        raise RuntimeError("much later")

    spawn.start_agent(body, directory, log)
    os.set_blocking(reader, True)
    with os.fdopen(reader) as said:
        assert said.read() == "ktls agent: RuntimeError: much later\n"


def test_nothing_goes_to_streams_of_the_launcher_whose_numbers_are_the_agents_now(directory, tmp_path, monkeypatch):
    """What a logger or a stream of theirs wrote would go into whichever connection has the number."""
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)

    def body(path: Path, send: int) -> None:
        pairs = [socket.socketpair() for _ in range(20)]
        say_ready(send)
        logging.getLogger("ktls").warning("a warning")
        sys.stderr.write("a line\n")
        found = select.select([sock for pair in pairs for sock in pair], [], [], 0)[0]
        os.write(2, f"{len(found)} sockets were written to\n".encode())

    with (tmp_path / "theirs").open("w") as theirs:
        handler = logging.StreamHandler(theirs)
        logging.getLogger().addHandler(handler)
        monkeypatch.setattr(sys, "stderr", theirs)
        try:
            spawn.start_agent(body, directory, log)
        finally:
            logging.getLogger().removeHandler(handler)
    os.set_blocking(reader, True)
    with os.fdopen(reader) as said:
        assert said.read() == "a warning\na line\n0 sockets were written to\n"


def test_agent_starts_where_standard_input_and_output_are_closed(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"""
import os
from pathlib import Path
os.closerange(0, 3)
from ktls import spawn
def body(path, send):
    os.write(send, spawn.READY)
    os.close(send)
    Path({str(fifo)!r}).write_text("served")
spawn.start_agent(body, spawn.runtime_directory({{"XDG_RUNTIME_DIR": {str(tmp_path)!r}}}), None)
"""
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as program:
        assert fifo.read_text() == "served"
    assert program.returncode == 0


def test_runtime_directory_is_fresh_and_private(tmp_path):
    first = spawn.runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)})
    second = spawn.runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert first != second
    assert first.parent == tmp_path
    assert stat.S_IMODE(first.stat().st_mode) == 0o700


@pytest.mark.parametrize("value", ["", "relative", "/nonexistent", "/" + "x" * 100])
def test_runtime_directory_falls_back_to_tmp(value):
    directory = spawn.runtime_directory({"XDG_RUNTIME_DIR": value})
    assert directory.parent == Path("/tmp")
    directory.rmdir()


def test_no_runtime_directory_at_all_is_an_error(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        spawn.runtime_directory({})

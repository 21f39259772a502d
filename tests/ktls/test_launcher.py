"""`ktls run`: what it refuses, and what the program it becomes finds."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ktls import launcher, limits
from ktls.errors import AgentUnreachable, Denied, PolicyError, Uncovered, UsageError

pytestmark = pytest.mark.skipif(not launcher.SHIM.exists(), reason="the shim is not built")


@pytest.fixture
def agent(tmp_path):
    """A socket that takes channels in, as an agent's does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen(8)
        yield server


def run(*arguments, agent=None, environment=None, **options):
    """Run `ktls run` with these arguments to its end."""
    variables = {**os.environ, **(environment or {})}
    if agent is not None:
        variables["KTLS_AGENT"] = agent.getsockname()
    words = [sys.executable, "-m", "ktls", "run", *map(str, arguments)]
    return subprocess.run(words, env=variables, capture_output=True, text=True, check=False, timeout=60, **options)


def python(script, *arguments, **options):
    """Run a Python script under `ktls run`."""
    return run("--", sys.executable, "-c", script, *arguments, **options)


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_help_teaches_with_examples():
    result = run("--help")
    assert result.returncode == 0
    assert "ktls run --inbound 8443" in result.stdout
    assert "Exit status" in result.stdout


def test_mistake_on_the_command_line_is_status_2_with_a_hint():
    result = run("--inbound", "x", "--", "true")
    assert result.returncode == 2
    assert result.stderr.startswith("ktls: --inbound x: not a port")
    assert "hint: " in result.stderr


def test_nothing_to_protect_is_status_2():
    result = run("--", "true")
    assert result.returncode == 2
    assert "nothing says which connections to protect" in result.stderr


def test_policy_comes_before_everything_else(tmp_path):
    result = run("--policy", tmp_path / "missing.toml", "--", "nosuch-command")
    assert result.returncode == 2
    assert "missing.toml" in result.stderr
    assert "nosuch-command" not in result.stderr


def test_command_that_is_not_there_is_status_127(agent):
    result = run("--", "nosuch-command", agent=agent)
    assert result.returncode == 127
    assert result.stderr == "ktls: nosuch-command: command not found\n"


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc"])
def test_command_that_cannot_be_executed_is_status_126(agent, path):
    assert run("--", path, agent=agent).returncode == 126


def test_static_program_is_refused(agent):
    result = run("--", "/sbin/ldconfig", "-V", agent=agent)
    assert result.returncode == 126
    assert "statically linked" in result.stderr
    assert result.stdout == ""


def test_static_program_runs_in_clear_when_told_so(agent):
    result = run("--allow-uncovered", "--", "/sbin/ldconfig", "-V", agent=agent)
    assert result.returncode == 0
    assert "ldconfig" in result.stdout
    assert "in clear, as --allow-uncovered says" in result.stderr


def test_no_agent_is_an_error_and_nothing_runs(tmp_path):
    result = run("--", "echo", "ran", environment={"KTLS_AGENT": str(tmp_path / "nobody")})
    assert result.returncode == 125
    assert "no agent answers" in result.stderr
    assert result.stdout == ""


def test_log_belongs_to_an_agent_of_its_own(agent, tmp_path):
    result = run("--log", tmp_path / "log", "--", "true", agent=agent)
    assert result.returncode == 2
    assert "--log and --observe are for an agent of its own" in result.stderr


def test_missing_shim_is_refused(agent, tmp_path):
    result = run("--", "true", agent=agent, environment={"KTLS_SHIM": str(tmp_path / "libktls.so")})
    assert result.returncode == 126
    assert "no shim at" in result.stderr


def test_shim_whose_path_ld_preload_cannot_hold_is_refused(agent, tmp_path):
    shim = tmp_path / "a b" / "libktls.so"
    result = run("--", "true", agent=agent, environment={"KTLS_SHIM": str(shim)})
    assert "LD_PRELOAD has no way to write" in result.stderr


# --- what the program finds -------------------------------------------------------------------------------------------


def test_program_takes_over_the_process_and_its_exit_status(agent):
    words = [sys.executable, "-m", "ktls", "run", "--", "sh", "-c", "echo $$; exit 7"]
    environment = {**os.environ, "KTLS_AGENT": agent.getsockname()}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate(timeout=60)
    assert int(out) == process.pid
    assert process.returncode == 7


def test_program_killed_by_a_signal_is_seen_to_be(agent):
    assert run("--", "sh", "-c", "kill -TERM $$", agent=agent).returncode == -signal.SIGTERM


def test_program_is_called_as_it_was_named(agent):
    result = run("--", "sh", "-c", 'echo "$0 in $(pwd) $1"', "me", "x  y", agent=agent, cwd="/")
    assert result.stdout == "me in / x  y\n"
    words = run("--", "cat", "/proc/self/cmdline", agent=agent).stdout
    assert words == "cat\0/proc/self/cmdline\0"


def test_environment_is_the_programs_own_and_three_more(agent):
    result = run("--", "env", "-0", agent=agent, environment={"MINE": "1"})
    found = dict(entry.split("=", 1) for entry in result.stdout.split("\0") if entry)
    assert found["MINE"] == "1"
    assert found["LD_PRELOAD"] == str(launcher.SHIM)
    assert found["KTLS_AGENT"] == agent.getsockname()
    assert int(found["KTLS_FD_BASE"]) >= limits.BASE_MIN


def test_libraries_preloaded_before_come_after_the_shim():
    environment = launcher.covered_environment({"LD_PRELOAD": "a.so"}, ["san.so", "shim.so"], Path("/agent"), 100)
    assert environment["LD_PRELOAD"] == "san.so:shim.so:a.so"


def test_channel_is_at_twice_the_base_and_nothing_else_is_added(agent):
    # Raw system calls: the shim keeps these descriptors out of the program's sight.
    script = """
import ctypes, os
from pathlib import Path
base = int(os.environ["KTLS_FD_BASE"])
print(os.readlink(f"/proc/self/fd/{2 * base}").split(":")[0], len(list(Path("/proc/self/fd").iterdir())))
flags = Path(f"/proc/self/fdinfo/{2 * base}").read_text().split("flags:")[1].split()[0]
print(int(flags, 8) & os.O_CLOEXEC, int(flags, 8) & os.O_NONBLOCK)
"""
    assert python(script, agent=agent).stdout.split() == ["socket", "5", "0", "0"]


def test_agent_finds_the_programs_process_behind_the_channel(agent):
    result = run("--", "sh", "-c", "echo $$", agent=agent)
    channel, _ = agent.accept()
    with channel:
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert int.from_bytes(credentials[:4], sys.byteorder) == int(result.stdout)
        assert channel.recv(1) == b""  # the program is gone, and so is the channel


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_signals_are_as_the_shell_left_them(agent, ignored):
    """SIGPIPE is not ignored, though Python does that for itself; what the shell ignores (nohup, &) stays so."""
    words = [sys.executable, "-m", "ktls", "run", "--", "grep", "Sig", "/proc/self/status"]
    shell = ["sh", "-c", f'trap "" {int(ignored)}; exec "$@"', "sh", *words]
    options: dict = {"env": {**os.environ, "KTLS_AGENT": agent.getsockname()}, "capture_output": True, "text": True}
    bare, found = (
        dict(line.split(":\t") for line in subprocess.run(each, check=True, **options).stdout.splitlines())
        for each in ([*shell[:4], *words[5:]], shell)
    )
    assert found["SigIgn"] == bare["SigIgn"]
    assert int(found["SigIgn"], 16) & 1 << (ignored - 1)
    assert found["SigBlk"] == bare["SigBlk"]


def test_pipe_of_the_shell_closes_with_the_program(agent):
    assert run("--", "sh", "-c", "yes | head -n 1", agent=agent).stdout == "y\n"


def test_io_uring_is_not_implemented(agent):
    script = "import ctypes; l = ctypes.CDLL(None, use_errno=True); l.syscall(425, 1, None); print(ctypes.get_errno())"
    assert python(script, agent=agent).stdout == "38\n"


def test_the_soft_limit_is_the_programs_and_the_hard_one_leaves_room_for_hidden_descriptors(agent):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    result = run("--", "grep", "open files", "/proc/self/limits", agent=agent)
    environment = run("--", "printenv", "KTLS_FD_BASE", agent=agent)
    base = int(environment.stdout)
    assert base == limits.choose_base(soft, hard)
    assert [int(number) for number in result.stdout.split()[3:5]] == [min(soft, base), hard]
    assert hard >= 2 * base + limits.SPARE


def test_program_under_ktls_run_may_say_ktls_run_again(agent):
    inner = f"{sys.executable} -m ktls run -- printenv KTLS_FD_BASE"
    result = run("--", "sh", "-c", f"printenv KTLS_FD_BASE; {inner}", agent=agent)
    first, second = result.stdout.split()
    assert first == second


def test_program_under_ktls_run_cannot_change_its_policy(agent, tmp_path):
    inner = f"{sys.executable} -m ktls run --outbound 8443 -- true"
    result = run("--", "sh", "-c", inner, agent=agent)
    assert result.returncode == 2
    assert "already runs under `ktls run`" in result.stderr


# --- an agent of its own ----------------------------------------------------------------------------------------------


def agents_of(directory):
    """Name the agents' directories that are left."""
    return list(directory.glob("ktls-*"))


def test_own_agent_serves_and_is_gone_after_the_program(tmp_path):
    script = "import os, sys; print(os.path.exists(os.environ['KTLS_AGENT'])); sys.exit(3)"
    words = ["--outbound", "9", "--", sys.executable, "-c", script]
    result = run(*words, environment={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert result.stderr == ""
    assert result.stdout == "True\n"
    assert result.returncode == 3


def test_agent_that_cannot_start_is_status_125_and_nothing_runs(tmp_path, tls_files):
    text = tls_files.cert.read_text()
    (tmp_path / "broken.pem").write_text(text.replace("A", "B"))
    words = ["--inbound", "8443", "--cert", tmp_path / "broken.pem", "--key", tls_files.key, "--", "echo", "ran"]
    result = run(*words, environment={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert result.returncode in (2, 125)
    assert "broken.pem" in result.stderr
    assert result.stdout == ""
    assert agents_of(tmp_path) == []


def test_log_that_cannot_be_written_is_said_at_once(tmp_path):
    result = run("--outbound", "9", "--log", "/nonexistent/log", "--", "echo", "ran")
    assert result.returncode == 2
    assert "--log /nonexistent/log: No such file or directory" in result.stderr


# --- the pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("x"), 2),
        (PolicyError("x"), 2),
        (Denied("x"), 2),
        (AgentUnreachable("x"), 125),
        (Uncovered("x"), 126),
        (launcher.CommandNotRunnable("x"), 126),
        (launcher.CommandNotFound("x"), 127),
    ],
)
def test_exit_status_tells_whose_fault_it_was(error, status):
    assert launcher.exit_status(error) == status


def test_command_is_found_in_the_order_of_path(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        program = tmp_path / name / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    search = f"{tmp_path}/none:{tmp_path}/two:{tmp_path}/one"
    assert launcher.find_command("program", search) == tmp_path / "two/program"
    (tmp_path / "two/program").chmod(0o644)
    assert launcher.find_command("program", search) == tmp_path / "one/program"


def test_empty_part_of_path_is_the_current_directory(tmp_path, monkeypatch):
    shutil.copy("/bin/true", tmp_path / "program")
    monkeypatch.chdir(tmp_path)
    assert launcher.find_command("program", "/nowhere:").resolve() == tmp_path / "program"
    with pytest.raises(launcher.CommandNotFound):
        launcher.find_command("program", "/nowhere")


@pytest.mark.parametrize("name", ["", "./nosuch", "/nowhere/nosuch"])
def test_names_that_are_no_command(name):
    with pytest.raises(launcher.CommandNotFound):
        launcher.find_command(name, "/bin")


def test_connecting_leaves_no_time_limit_and_no_flag_behind(agent):
    with contextlib.closing(launcher.connect(Path(agent.getsockname()))) as channel:
        assert channel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == bytes(16)
        assert os.get_blocking(channel.fileno())

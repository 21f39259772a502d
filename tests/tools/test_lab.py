"""tools/lab: the pure parts, the handling of a kernel's process with a stand-in, and the real kernels where they are.

Runs on the host: it is what starts the lab, so it is not marked `lab` (which is for what runs inside).
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.labkernels import cache, cli, fetch, guest, packages, qemu, setup, uml
from tools.labkernels.errors import LabError, Missing
from tools.labkernels.job import Job, guest_environment, guest_order

PROJECT = Path(__file__).resolve().parents[2]
LAB = PROJECT / "tools/lab"
PYTHON = PROJECT / ".venv/bin/python"
BOOT = 150  # seconds: what no boot takes, not even beside others on few processors; only a bound
pytestmark = pytest.mark.timeout(3 * BOOT)


def job(command=("true",), directory=Path("/srv"), **settings) -> Job:
    return Job(command=command, directory=directory, environment={}, **settings)


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended. The output as it was: subprocess's own text mode would turn \\r\\n into \\n."""

    returncode: int
    stdout: str
    stderr: str


def run_program(words: Sequence[str | Path], cwd: Path = PROJECT, **variables: str) -> Done:
    done = subprocess.run(
        words, cwd=cwd, env=os.environ | variables, capture_output=True, timeout=2 * BOOT, check=False
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def run_lab(*arguments: str, cwd: Path = PROJECT, **variables: str) -> Done:
    return run_program([LAB, *arguments], cwd, **variables)


def processes_naming(text: str) -> list[str]:
    """Command lines, of processes that are not zombies, in which the text occurs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in words:
            found.append(words)
    return found


# --- what a command gets --------------------------------------------------------------------------------------------


def test_the_environment_is_the_hosts_with_the_venv_first_and_scratch_space_of_its_own(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    host = {"PATH": "/usr/bin", "LANG": "C.UTF-8", "KTLS_POLICY": "p.toml", "TMPDIR": "/x", "KTLS_AGENT": "/run/a"}
    environment = guest_environment(host, tmp_path, "uml")
    assert environment["PATH"].split(":")[:2] == [f"{tmp_path}/.venv/bin", "/usr/bin"]
    assert "/usr/sbin" in environment["PATH"].split(":")
    assert environment["LANG"] == "C.UTF-8"
    assert environment["KTLS_POLICY"] == "p.toml"
    assert environment["TMPDIR"] == "/run/ktls-lab"
    assert environment["KTLS_LAB"] == "uml"
    assert "KTLS_AGENT" not in environment


def test_pytest_options_of_the_host_are_kept(tmp_path):
    environment = guest_environment({"PYTEST_ADDOPTS": "-x"}, tmp_path, "qemu")
    assert environment["PYTEST_ADDOPTS"] == "-x -p no:cacheprovider"


@pytest.mark.parametrize("folder", ["/run/user/0", "/dev/shm/x", "/proc/self", "/sys"])
def test_a_current_directory_that_the_guest_has_of_its_own_is_refused(folder):
    with pytest.raises(LabError, match="is not the same in the guest"):
        job(directory=Path(folder))


def test_the_order_says_what_to_run():
    order = json.loads(guest_order(job(command=("a", "b c")), streams=("o", "e"), modules=Path("/m"), preload=("tls",)))
    assert order["command"] == ["a", "b c"]
    assert order["directory"] == "/srv"
    assert order["streams"] == ["o", "e"]
    assert order["preload"] == ["tls"]


# --- command lines ----------------------------------------------------------------------------------------------------


def test_uml_boots_from_the_hosts_file_system_with_its_log_apart_from_the_output():
    words = uml.command_line("linux.uml", Path("/c/run"), 512, (5, 7))
    assert words[0] == "linux.uml"
    assert {"mem=512M", "rootfstype=hostfs", "rootflags=/", "init=/c/run/init", "oops=panic"} <= set(words)
    assert {"con0=null,fd:1", "ssl0=null,fd:5", "ssl1=null,fd:7"} <= set(words)
    assert "uml_dir=/c/run/" in words


def test_uml_memory_lies_on_disk_where_shared_memory_is_too_small(tmp_path):
    assert uml.memory_folder(1 << 40, tmp_path) == tmp_path
    assert uml.memory_folder(1, tmp_path, shared=tmp_path / "missing") == tmp_path
    assert uml.memory_folder(0, tmp_path, shared=Path("/")) == Path("/")


def test_uml_has_one_cpu():
    with pytest.raises(LabError, match="one CPU, not 2"):
        uml.run(job(cpus=2))


def test_qemu_emulates_with_the_cpus_and_memory_asked_for():
    kernel = qemu.Kernel("7.3.4", Path("/c/qemu-7.3.4"))
    words = qemu.command_line("qemu", kernel, Path("/c/run"), job(cpus=3, memory=768), (5, 7))
    line = " ".join(words)
    assert "-accel tcg" in line
    assert "kvm" not in line
    assert "-smp 3 -m 768M" in line
    assert "-kernel /c/qemu-7.3.4/boot/vmlinuz-7.3.4" in line
    assert "oops=panic init=/c/run/init" in line
    assert "path=/proc/self/fd/5" in line
    assert "path=/proc/self/fd/7" in line
    assert "readonly" not in line


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["uml", "--timeout", "0", "--", "true"], "greater than 0"),
        (["uml", "--timeout", "nan", "--", "true"], "greater than 0"),
        (["uml", "--memory", "2", "--", "true"], "not a size like 512M or 2G"),
        (["uml", "--memory", "64M", "--", "true"], "less than the 128M"),
        (["qemu", "--cpus", "0", "--", "true"], "from 1 to 64"),
        (["uml"], "COMMAND"),
        (["vmware", "--", "true"], "invalid choice"),
    ],
)
def test_a_wrong_command_line_says_what_is_allowed(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        cli.parser().parse_args(arguments)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_the_command_keeps_its_own_options():
    options = cli.parser().parse_args(["uml", "--memory", "1G", "--", "sh", "-c", "exit 3", "--timeout", "--"])
    assert options.command == ["sh", "-c", "exit 3", "--timeout", "--"]
    assert options.memory == 1024
    assert options.timeout is None


# --- where the kernel comes from --------------------------------------------------------------------------------------


def test_the_archive_is_read_from_both_formats_of_apt():
    texts = [
        "# deb http://commented.example/debian x main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main # why\n"
        "deb-src http://source.example/debian bookworm main\n"
        "deb http://one.example/debian bookworm-updates main\n",
        "Types: deb\nURIs: http://sec.example/debian-security  http://two.example/debian/\nSuites: bookworm\n",
    ]
    uris = fetch.archive_uris(texts)
    assert uris == ["http://one.example/debian", "http://sec.example/debian-security", "http://two.example/debian/"]
    assert fetch.debian_archive(uris) == "http://one.example/debian"
    assert fetch.debian_archive(uris[1:]) == "http://two.example/debian"
    assert fetch.debian_archive(["http://x.example/debian-security"]) == fetch.DEFAULT_URI


def test_only_apts_own_source_files_are_read(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("first")
    (tmp_path / "sources.list.d/a.sources").write_text("second")
    (tmp_path / "sources.list.d/a.sources.save").write_text("not this")
    assert list(fetch.source_files(tmp_path)) == ["first", "second"]


def test_the_wanted_kernel_else_the_newest_of_the_generic_flavour():
    names = [f"linux-binary-unsigned-{version}+deb13{flavour}-amd64"
             for version in ("7.2.9", "7.10.1", "7.4.0") for flavour in ("", "-cloud", "-rt")]  # fmt: skip
    assert fetch.newest(names) == "7.10.1+deb13-amd64"
    assert fetch.newest([*names, f"linux-binary-unsigned-{fetch.WANTED}"]) == fetch.WANTED
    assert fetch.newest(["linux-image-7.10.1+deb13-amd64", "linux-binary-unsigned-7.1.1+deb13-cloud-amd64"]) is None


@pytest.mark.parametrize(
    ("module", "kept"),
    [
        ("net/tls/tls.ko.xz", True),
        ("crypto/ccm.ko.xz", True),
        ("drivers/net/tun.ko.xz", True),
        ("drivers/net/ethernet/intel/e1000/e1000.ko.xz", False),
        ("drivers/gpu/drm/drm.ko.xz", False),
        ("fs/9p/9p.ko.xz", True),
        ("network/x.ko", False),
    ],
)
def test_the_modules_that_are_kept(module, kept):
    assert fetch.is_kept(Path(module)) is kept


def test_an_archive_out_of_reach_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "source_files", lambda: ["deb file:///nonexistent/debian x main"])
    with pytest.raises(LabError, match="failed with file:///nonexistent/debian trixie-backports"):
        fetch.fetch_kernel()
    assert [path.name for path in cache.cache_folder().iterdir()] == ["fetch.lock"]


def test_a_kernel_in_the_cache_is_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = cache.cache_folder() / "qemu-7.9.9+deb13-amd64"
    (place / "lib/modules").mkdir(parents=True)
    (place / "boot").mkdir()
    (place / "boot/vmlinuz-7.9.9+deb13-amd64").touch()
    monkeypatch.setattr(fetch.Apt, "run", lambda *_, **__: pytest.fail("apt was run"))
    assert fetch.fetch_kernel() == place
    assert qemu.find_kernel().version == "7.9.9+deb13-amd64"


# --- what is missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["uml", "qemu"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(kernel, tmp_path):
    (tmp_path / "python3").symlink_to(PYTHON)
    done = run_lab(kernel, "--", "true", PATH=str(tmp_path))
    assert done.returncode == 125
    package = {"uml": "user-mode-linux", "qemu": "qemu-system-x86"}[kernel]
    hint = next(line for line in done.stderr.splitlines() if "apt-get" in line)
    assert hint.startswith(f"tools/lab: sudo apt-get install --no-install-recommends {package} ")
    assert done.stdout == ""


def test_several_programs_of_one_package_name_it_once(tmp_path):
    assert packages.missing_packages({"no-such-1": "one", "no-such-2": "one", "sh": "dash"}, "/bin") == ["one"]


def test_setup_without_root_names_the_packages(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setitem(setup.PROGRAMS, "uml", {"no-such-program": "no-such-package"})
    with pytest.raises(Missing) as caught:
        setup.setup("uml", PROJECT)
    assert caught.value.hint == "sudo apt-get install --no-install-recommends no-such-package"


def test_virtme_ng_missing_is_said_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(Missing) as caught:
        qemu.virtme_python(tmp_path)
    assert caught.value.hint == f"{tmp_path}/.venv/bin/python -m pip install virtme-ng"


def test_status_says_what_is_missing_in_text_and_json(tmp_path):
    done = run_lab("status", "qemu", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.startswith("qemu: not ready")
    (answer,) = json.loads(run_lab("status", "qemu", "--json", XDG_CACHE_HOME=str(tmp_path)).stdout)
    assert answer["ready"] is False
    assert answer["problem"]
    assert answer["hint"]


# --- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache_is_where_xdg_says(tmp_path):
    assert cache.cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/ktls/lab")
    assert cache.cache_folder({"XDG_CACHE_HOME": "relative", "HOME": "/h"}) == Path("/h/.cache/ktls/lab")
    with pytest.raises(LabError, match="blank, comma or quote"):
        cache.cache_folder({"XDG_CACHE_HOME": "/with blank"})


def test_a_runs_folder_goes_with_it_and_takes_those_of_killed_runs_along(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = cache.cache_folder() / "runs"
    with cache.run_folder() as living:
        (living / "order.json").touch()
        dead = runs / "dead"
        dead.mkdir()
        (dead / "order.json").touch()
        with cache.run_folder() as other:
            assert {path.name for path in runs.iterdir()} == {living.name, other.name}
    assert list(runs.iterdir()) == []


def test_what_fails_while_it_is_built_is_not_there(tmp_path):
    place = tmp_path / "kernel"

    def build() -> None:
        with cache.building(place) as part:
            (part / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build()
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_finds_the_lock_held(tmp_path):
    with cache.locked(tmp_path / "x") as first, cache.locked(tmp_path / "x", wait=False) as second:
        assert first
        assert not second


# --- a kernel's process, with a stand-in ------------------------------------------------------------------------------

DRIVER = """
import sys
from pathlib import Path
from tools.labkernels import machine
from tools.labkernels.errors import LabError
pipes = machine.Pipes.open()
out, err = pipes.write_ends
folder = Path(sys.argv[1])
script = sys.argv[2].replace("OUT", f"/proc/self/fd/{out}").replace("ERR", f"/proc/self/fd/{err}")
kernel = machine.Machine("stand-in", ("sh", "-c", script), folder, float(sys.argv[3]))
try:
    with machine.stopping_on_signals():
        sys.exit(machine.run(kernel, pipes))
except LabError as error:
    print(type(error).__name__, error.message, error.log, file=sys.stderr)
    sys.exit(error.status)
"""


def stand_in(folder: Path, script: str, timeout: float = 30) -> list[str]:
    folder.mkdir(exist_ok=True)
    return [sys.executable, "-c", DRIVER, str(folder), script, str(timeout)]


def run_stand_in(folder: Path, script: str, timeout: float = 30) -> Done:
    return run_program(stand_in(folder, script, timeout))


def test_status_and_both_streams_are_passed_on(tmp_path):
    done = run_stand_in(tmp_path, "echo o >OUT; echo e >ERR; echo log; echo '{\"status\": 7}' > status.json; exit 1")
    assert (done.returncode, done.stdout, done.stderr) == (7, "o\n", "e\n")


def test_no_status_is_a_lost_machine_with_the_end_of_its_log(tmp_path):
    done = run_stand_in(tmp_path, "echo out >OUT; echo Kernel panic; exit 0")
    assert done.returncode == 125
    assert done.stdout == "out\n"
    assert "LostMachine" in done.stderr
    assert "Kernel panic" in done.stderr


def test_a_guest_that_cannot_start_the_command_is_not_the_commands_failure(tmp_path):
    done = run_stand_in(tmp_path, 'echo \'{"error": "modprobe failed"}\' > status.json')
    assert done.returncode == 125
    assert "could not run the command\nmodprobe failed" in done.stderr


def test_a_timeout_ends_processes_in_every_session(tmp_path):
    mark = f"{tmp_path.name}-4242"
    script = f"setsid sh -c 'sleep 4242; : {mark}' & sh -c 'sleep 4242; : {mark}' & echo up >OUT; sleep 4242; : {mark}"
    done = run_stand_in(tmp_path, script, timeout=2)
    assert done.returncode == 124
    assert done.stdout == "up\n"
    assert processes_naming(mark) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_ended_by_a_signal_nothing_is_left(tmp_path, number):
    folder = tmp_path / "run"
    mark = f"{tmp_path.name}-4343"
    with subprocess.Popen(stand_in(folder, f"echo up >OUT; sleep 4343; : {mark}"), cwd=PROJECT, stdout=-1) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == b"up\n"
        lab.send_signal(number)
        # The keeper that outlives a SIGKILL holds this end, too.
        lab.wait(30)
    assert lab.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert eventually(lambda: processes_naming(mark) == [])
    assert number != signal.SIGKILL or eventually(lambda: not folder.exists())


def eventually(condition) -> bool:
    """Whether something comes true that another process does: within 20 s, which is only a bound."""
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_the_guest_carries_every_byte_as_it_is(tmp_path):
    data = bytes(range(256)) * 1000
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as line:
        guest.carry(source.fileno(), line.fileno())
    assert (tmp_path / "out").read_bytes() == data


# --- the kernels ------------------------------------------------------------------------------------------------------

ATTACH = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
    one.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
    print(one.getsockopt(socket.IPPROTO_TCP, 31, 16).rstrip(b"\\0").decode())
"""
LOOK = f"""
uname -r; pwd; echo "$GREETING"; test -e /proc/net/tls_stat && echo tls_stat
test -t 1 || echo 'no terminal'; printf 'a\\r\\nb\\n'; id -u; cat /proc/sys/kernel/hostname
touch "$TMPDIR/x" && echo scratch; ip -o link show lo | grep -c UP
.venv/bin/python -c {shlex.quote(ATTACH)}
echo error >&2; exit 3
"""


@pytest.fixture(params=["uml", pytest.param("qemu", marks=pytest.mark.slow)])
def kernel(request) -> str:
    """A lab kernel that is ready; skipped, or failing where the lab is required, when it is not."""
    if "KTLS_LAB" in os.environ:
        pytest.skip("this is a lab kernel already")
    status = setup.status(request.param, PROJECT)
    if not status.ready and os.environ.get("KTLS_REQUIRE_LAB") != "1":
        pytest.skip(str(status))
    assert status.ready, str(status)
    return request.param


@pytest.mark.slow
def test_a_command_runs_with_ktls_in_the_same_place_and_its_status_comes_back(kernel, record_property):
    done = run_lab(kernel, "--timeout", str(BOOT), "--", "sh", "-c", LOOK, GREETING="two  words")
    release, *lines = done.stdout.split("\n")
    record_property("kernel", release)
    assert lines == [
        str(PROJECT), "two  words", "tls_stat", "no terminal", "a\r", "b", "0", "ktls-lab", "scratch", "1", "tls", "",
    ]  # fmt: skip
    assert done.stderr == "error\n"
    assert done.returncode == 3
    assert release == setup.status(kernel, PROJECT).version


@pytest.mark.slow
def test_a_crash_is_a_lost_machine(kernel):
    done = run_lab(
        kernel, "--timeout", str(BOOT), "--", "sh", "-c", "echo before; sleep 1; echo c > /proc/sysrq-trigger"
    )
    assert done.returncode == 125
    assert "before" in done.stdout
    assert "the kernel went away without a status" in done.stderr
    assert "sysrq triggered crash" in done.stderr


@pytest.mark.slow
def test_output_streams_while_the_command_runs_and_a_signal_leaves_nothing(kernel, tmp_path):
    folder = tmp_path / "ktls/lab"
    folder.mkdir(parents=True)
    for place in cache.cache_folder().glob("qemu-*-amd64"):
        (folder / place.name).symlink_to(place)
    command = [LAB, kernel, "--", "sh", "-c", "echo up; sleep 4444"]
    variables = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=PROJECT, env=variables, stdout=subprocess.PIPE) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == b"up\n"
        assert processes_naming(f"init={folder}")
        lab.terminate()
        assert lab.wait(BOOT) == 143
    assert processes_naming(f"init={folder}") == []
    assert list((folder / "runs").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["uml"], indirect=True)
@pytest.mark.parametrize(("command", "status"), [("kill -9 $$", 137), ("exec no-such-program", 127)])
def test_in_a_folder_under_tmp_and_ended_otherwise(kernel, tmp_path, command, status):
    done = run_lab(kernel, "--", "sh", "-c", f"echo written > here; {command}", cwd=tmp_path)
    assert done.returncode == status
    assert (tmp_path / "here").read_text() == "written\n"


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["uml"], indirect=True)
def test_large_output_arrives_whole(kernel):
    size = 20_000_000
    done = run_lab(kernel, "--", "sh", "-c", f"yes | head -c {size}; sleep 100 & exit 0")
    assert done.returncode == 0
    assert done.stdout == "y\n" * (size // 2)

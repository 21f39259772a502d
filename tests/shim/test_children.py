"""What a covered program starts is covered too, or it is not started: the launcher's judgement (ktls/elf.py) again."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ktls import elf
from ktls.errors import Uncovered
from tests.ktls.test_elf import make_elf, make_go_elf, write
from tests.shim.harness import SHIM, output

STATIC = "/sbin/ldconfig"  # libc's own, always there and always static

# A child that tries to become another program: prints the errno, or "started" where the pipe ended with its exec.
TRY = """
def attempt(start):
    reading, writing = os.pipe()
    nowhere = os.open(os.devnull, os.O_RDWR) if os.path.exists(os.devnull) else reading
    pid = os.fork()
    if pid == 0:
        os.dup2(nowhere, 1)
        try:
            start()
        except OSError as error:
            os.write(writing, errno.errorcode[error.errno].encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    print(os.read(reading, 1000).decode() or "started", flush=True)
"""


def try_exec(preloaded, path, **options) -> str:
    (word,) = output(preloaded(TRY + "attempt(lambda: os.execv(path, [path]))", path=str(path), **options))
    return word


def launcher_refuses(path: Path) -> bool:
    """What ktls/elf.py says of the same file."""
    try:
        elf.check_covered(path, elf.read_image(SHIM), elf.read_image(Path(sys.executable)).loader)
    except Uncovered:
        return True
    return False


FILES = {
    "static": make_elf(loader=None),
    "32-bit": make_elf(word=1),
    "another machine": make_elf(machine=183),
    "another libc": make_elf(loader=b"/lib/ld-musl-x86_64.so.1"),
    "go": make_go_elf(),
    "a loader's name too long": make_elf(size=5000),
    "cut short": make_elf()[:100],
    "no end to the loader's name": make_elf()[:-1] + b"x",
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_what_the_shim_cannot_reach_is_not_started_and_everybody_is_told(preloaded, agent, tmp_path, data):
    path = write(tmp_path / "program", data)
    assert launcher_refuses(path)
    assert try_exec(preloaded, path) == "EPERM"
    text, allowed = agent.notices.get(timeout=20)
    assert text.startswith(f"{path} ")
    assert not allowed


def test_a_script_is_judged_by_its_interpreter(preloaded, tmp_path):
    assert try_exec(preloaded, write(tmp_path / "good", b"#!/bin/true -x\n")) == "started"
    assert try_exec(preloaded, write(tmp_path / "bad", f"#! {STATIC}\n".encode())) == "EPERM"


def test_a_script_that_runs_itself_is_refused(preloaded, tmp_path):
    loop = tmp_path / "loop"
    assert try_exec(preloaded, write(loop, f"#!{loop}\n".encode())) == "ELOOP"


def test_a_text_without_first_line_is_the_shells(preloaded, tmp_path):
    text = write(tmp_path / "text", b"echo $1\n")
    assert try_exec(preloaded, text) == "ENOEXEC"
    code = "import ctypes; ctypes.CDLL(None).execvp(path.encode(), (ctypes.c_char_p * 3)(b'x', b'said', None))"
    assert output(preloaded(code, path=str(text))) == ["said"]


def test_what_is_no_program_is_the_kernels_to_refuse(preloaded, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("no program")
    assert try_exec(preloaded, plain) == "EACCES"
    assert try_exec(preloaded, tmp_path) == "EACCES"
    assert try_exec(preloaded, tmp_path / "nothing") == "ENOENT"


def test_the_loader_itself_may_be_started(preloaded):
    loader = elf.read_image(Path(sys.executable)).loader
    assert loader
    assert try_exec(preloaded, loader) == "started"


WAYS = {
    "execve": "os.execve(STATIC, [STATIC, '-V'], {})",
    "execvp": "os.execvp('ldconfig', ['ldconfig', '-V'])",
    "fexecve": "os.execve(os.open(STATIC, os.O_RDONLY), ['x', '-V'], {})",
    "execveat": "(libc.execveat(-100, STATIC.encode(), argv, None, 0), fail())",
    "execveat, by descriptor": "(libc.execveat(os.open(STATIC, os.O_PATH), b'', argv, None, 0x1000), fail())",
    "syscall(SYS_execve)": "(libc.syscall(59, STATIC.encode(), argv, None), fail())",
    "execl": "(libc.execl(STATIC.encode(), b'x', b'-V', None), fail())",
    "execlp": "(libc.execlp(b'ldconfig', b'x', b'-V', None), fail())",
    "posix_spawn": "os.posix_spawn(STATIC, [STATIC, '-V'], os.environ)",
    "posix_spawnp": "os.posix_spawnp('ldconfig', ['ldconfig', '-V'], os.environ)",
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of execve")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_every_way_to_start_a_program_is_judged(preloaded, way):
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
argv = (ctypes.c_char_p * 3)(b"x", b"-V", None)
os.environ["PATH"] = "/nowhere::/usr/bin:/sbin"
def fail():
    raise OSError(ctypes.get_errno(), "refused")
attempt(lambda: {way})
"""
    assert output(preloaded(TRY + code, STATIC=STATIC)) == ["EPERM"]


def test_told_so_it_starts_in_clear_with_a_warning(preloaded, agent):
    program = preloaded(TRY + "attempt(lambda: os.execv(path, [path, '-V']))", path=STATIC, allow_uncovered=True)
    out, err = program.communicate(timeout=30)
    assert out == "started\n"
    assert f"ktls: {STATIC} is statically linked: WARNING: it runs in clear" in err
    assert agent.notices.get(timeout=20) == (f"{STATIC} is statically linked", True)


def test_a_program_cannot_allow_its_children_what_it_was_not_allowed_itself(preloaded):
    code = """
os.environ["KTLS_UNCOVERED"] = "allow"
os.execve(sys.executable, [sys.executable, "-c", "import os; print(os.environ.get('KTLS_UNCOVERED'))"], os.environ)
"""
    assert output(preloaded(code)) == ["None"]


def test_words_of_ours_do_not_go_out_on_a_connection(preloaded, agent):
    code = """
ours, theirs = socket.socketpair()
os.dup2(theirs.fileno(), 2)
attempt(lambda: os.execv(path, [path]))
ours.setblocking(False)
try:
    print(ours.recv(100))
except BlockingIOError:
    print("silence")
"""
    assert output(preloaded(TRY + code, path=STATIC)) == ["EPERM", "silence"]
    assert agent.notices.get(timeout=20) == (f"{STATIC} is statically linked", False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_a_program_that_changes_identity_is_refused(preloaded, tmp_path, mode):
    program = Path(shutil.copy("/bin/true", tmp_path / "program"))
    os.chown(program, 12345, 12345)
    program.chmod(mode)
    assert launcher_refuses(program)
    assert try_exec(preloaded, program) == "EPERM"


def test_a_program_with_file_capabilities_is_refused(preloaded, tmp_path):
    program = shutil.copy("/bin/true", tmp_path / "program")
    try:
        os.setxattr(program, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    except OSError as error:
        pytest.skip(f"no file capabilities here: {error}")
    assert try_exec(preloaded, program) == "EPERM"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another identity")
def test_a_program_that_may_be_run_but_not_read_is_refused(preloaded, tmp_path):
    program = Path(shutil.copy("/bin/true", tmp_path / "program"))
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    program.chmod(0o711)
    code = "os.setgid(12345); os.setuid(12345); attempt(lambda: os.execv(path, [path]))"
    assert output(preloaded(TRY + code, path=str(program))) == ["EACCES"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root directory")
def test_where_the_shim_cannot_be_found_nothing_is_started(preloaded, tmp_path):
    for library in ("/bin/true", *libraries("/bin/true")):
        target = tmp_path / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    code = "os.chroot(root); attempt(lambda: os.execv('/bin/true', ['true']))"
    assert output(preloaded(TRY + code, root=str(tmp_path))) == ["EACCES"]


def libraries(program: str) -> list[str]:
    """What the loader needs for a program, itself included."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split()
    return [word for word in listed if word.startswith("/")]


def test_system_and_popen_cover_their_shell_whatever_the_environment_became(preloaded):
    code = """
import ctypes
libc = ctypes.CDLL(None)
libc.clearenv()
libc.system(b"echo system $KTLS_FD_BASE")
libc.popen.restype = ctypes.c_void_p
stream = libc.popen(b"echo popen $KTLS_FD_BASE", b"w")
libc.pclose(ctypes.c_void_p(stream))
libc.getenv.restype = ctypes.c_char_p
print(libc.getenv(b"KTLS_FD_BASE"))
"""
    assert output(preloaded(code)) == ["system 1000", "popen 1000", "None"]

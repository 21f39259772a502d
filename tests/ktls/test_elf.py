"""Which programs the shim reaches, told from their files."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls import elf
from ktls.errors import Uncovered

X86_64 = 62
LOADER = "/lib64/ld-linux-x86-64.so.2"
SHIM = elf.Image(64, X86_64, None)


def make_elf(*, loader: bytes | None = LOADER.encode(), machine: int = X86_64, word: int = 2, size: int | None = None):
    """Build the smallest file that has the headers in question."""
    ident = b"\x7fELF" + bytes([word, 1, 1]) + bytes(9)
    count = 0 if loader is None else 1
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    if loader is None:
        return header
    length = len(loader) + 1 if size is None else size
    return header + struct.pack("<IIQQQQQQ", elf.PT_INTERP, 4, 120, 0, 0, length, length, 1) + loader + b"\0"


def make_go_elf() -> bytes:
    """A dynamically linked program with the note that Go's linker leaves."""
    data = make_elf()
    headers, rest = data[64:120], data[120:]
    ident = data[:56] + struct.pack("<H", 2) + data[58:64]
    note = struct.pack("<III4s8s", 4, 8, 4, b"Go\0\0", b"build id")
    moved = bytearray(headers)
    struct.pack_into("<Q", moved, 8, 176)
    second = struct.pack("<IIQQQQQQ", elf.PT_NOTE, 4, 176 + len(rest), 0, 0, len(note), len(note), 4)
    return bytes(ident + moved + second + rest + note)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def check(path: Path) -> None:
    elf.check_covered(path, SHIM, LOADER)


def test_real_program_is_covered():
    program = elf.read_image(Path(sys.executable))
    assert program.loader is not None
    elf.check_covered(Path(sys.executable), elf.Image(64, program.machine, None), program.loader)


def test_dynamic_program_is_covered(tmp_path):
    check(write(tmp_path / "program", make_elf()))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (make_elf(loader=None), "statically linked"),
        (make_elf(word=1), "32-bit"),
        (make_elf(machine=183), "for ELF machine 183"),
        (make_elf(loader=b"/lib/ld-musl-x86_64.so.1"), "loaded by /lib/ld-musl-x86_64.so.1"),
        (make_go_elf(), "is a Go program"),
        (make_elf(size=5000), "loader path of 5000 bytes"),
        (make_elf()[:100], "points past the end"),
        (make_elf()[:30], "neither an ELF program nor a script"),
        (b"", "neither an ELF program nor a script"),
        (b"echo no first line\n" * 10, "neither an ELF program nor a script"),
    ],
)
def test_what_the_shim_cannot_reach_is_refused_with_the_reason(tmp_path, data, words):
    with pytest.raises(Uncovered, match=words):
        check(write(tmp_path / "program", data))


def test_the_loader_as_a_program_is_covered(tmp_path):
    check(write(tmp_path / Path(LOADER).name, make_elf(loader=None)))


def test_go_is_known_by_its_sections_too(tmp_path):
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text('__attribute__((section(".go.buildinfo"), used)) static int x = 1; int main(void) { return 0; }')
    subprocess.run(["cc", "-o", program, source], check=True)
    with pytest.raises(Uncovered, match="is a Go program"):
        check(program)


def test_the_loader_may_live_elsewhere(tmp_path):
    check(write(tmp_path / "program", make_elf(loader=b"/opt/glibc/ld-linux-x86-64.so.2")))


def test_script_is_judged_by_its_interpreter(tmp_path):
    static = write(tmp_path / "static", make_elf(loader=None))
    dynamic = write(tmp_path / "dynamic", make_elf())
    check(write(tmp_path / "good", f"#!{dynamic} -x\n".encode()))
    with pytest.raises(Uncovered, match=r"static is statically linked"):
        check(write(tmp_path / "bad", f"#! {static}\n".encode()))


def test_scripts_run_by_scripts_are_followed_as_deep_as_the_kernel_does(tmp_path):
    inner = write(tmp_path / "program", make_elf())
    for depth in range(elf.SCRIPT_DEPTH - 1):
        inner = write(tmp_path / f"script{depth}", f"#!{inner}\n".encode())
    check(inner)
    with pytest.raises(Uncovered, match="more than 5 deep"):
        check(write(tmp_path / "one-too-many", f"#!{inner}\n".encode()))


def test_script_that_runs_itself_is_refused(tmp_path):
    loop = tmp_path / "loop"
    with pytest.raises(Uncovered, match="more than 5 deep"):
        check(write(loop, f"#!{loop}\n".encode()))


def test_script_without_its_interpreter_is_refused(tmp_path):
    with pytest.raises(Uncovered, match="/nowhere/sh cannot be checked: No such file"):
        check(write(tmp_path / "script", b"#!/nowhere/sh\n"))


@pytest.mark.parametrize(
    ("head", "interpreter"),
    [
        (b"#!/bin/sh\n", "/bin/sh"),
        (b"#! \t/usr/bin/env python3 -u\n", "/usr/bin/env"),
        (b"#!/bin/sh", "/bin/sh"),
        (b"#!/bin/sh\t-e\n", "/bin/sh"),
        (b"#!\n/bin/sh\n", None),
        (b"#!" + b"/x" * 200, None),
        (b"# !/bin/sh\n", None),
    ],
)
def test_interpreter_is_read_as_the_kernel_reads_it(head, interpreter):
    assert elf.script_interpreter(head) == interpreter


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(("mode", "words"), [(0o4755, "set-user-ID"), (0o2755, "set-group-ID")])
def test_program_that_changes_identity_is_refused(tmp_path, mode, words):
    program = write(tmp_path / "program", make_elf())
    os.chown(program, 12345, 12345)
    program.chmod(mode)
    with pytest.raises(Uncovered, match=words):
        check(program)


def test_set_user_id_to_ourselves_changes_nothing(tmp_path):
    program = write(tmp_path / "program", make_elf())
    program.chmod(0o4755)
    check(program)


def test_program_with_file_capabilities_is_refused(tmp_path):
    program = write(tmp_path / "program", make_elf())
    # struct vfs_cap_data, revision 2: CAP_NET_RAW permitted and effective (include/uapi/linux/capability.h).
    try:
        os.setxattr(program, "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    except OSError as error:
        pytest.skip(f"no file capabilities here: {error}")
    with pytest.raises(Uncovered, match="file capabilities"):
        check(program)


@given(st.binary(max_size=300).map(lambda tail: b"\x7fELF\x02\x01\x01" + tail))
def test_any_bytes_give_an_image_or_a_refusal(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    try:
        image = elf.read_image(path)
    except Uncovered:
        return
    assert image.bits == 64

"""Whether LD_PRELOAD reaches a program: what its file says before it runs.

The dynamic loader honours LD_PRELOAD, so a program without one (static, static-pie), of another word size or machine,
or with another C library's loader, would run with its connections in clear and no word of it. musl's loader, for one,
silently skips a library that it cannot load. Go programs speak to the kernel past libc, even dynamically linked ones.
Set-user-ID programs and those with file capabilities make the loader ignore LD_PRELOAD. Each of these is refused, and
so is whatever cannot be understood. The shim judges alike before every exec (ktls/shim/covered.c).

`#!` scripts are judged by their interpreter, as deep as the kernel itself follows them.

Sources: elf(5); fs/binfmt_script.c and fs/exec.c (Linux 6.1: BINPRM_BUF_SIZE 256, five rewrites); ld.so(8).
"""

import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from ktls.errors import Uncovered

ELF_MAGIC = b"\x7fELF"
SCRIPT_HEAD = 256  # bytes of a script's first line that the kernel looks at
SCRIPT_DEPTH = 5  # scripts run by scripts, before the kernel says ELOOP
PROGRAM_HEADERS_MAX = 65536  # bytes; the kernel's own bound in load_elf_phdrs()
PATH_MAX = 4096
SECTIONS_MAX = 512
PT_INTERP, PT_NOTE = 3, 4
GO_NOTE = struct.pack("<III4s", 4, 0, 4, b"Go\0\0")  # its build ID: name size, any size, type, name
GO_SECTIONS = (b".go.buildinfo\0", b".gopclntab\0")

_IDENT = struct.Struct("<4sBBB9x")  # magic, class, data, version
_HEADER64 = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM64 = struct.Struct("<IIQQQQQQ")
_SECTION64 = struct.Struct("<IIQQQQIIQQ")


class Image(NamedTuple):
    """What an ELF file's headers say.

    Attributes:
        bits: 32 or 64.
        machine: e_machine, for example 62 for x86-64; 0 where `bits` is 32.
        loader: path of the dynamic loader (PT_INTERP); None for a static program.
        go: it was linked by Go.
    """

    bits: int
    machine: int
    loader: str | None
    go: bool = False


def read_image(path: Path) -> Image:
    """Read an ELF file's headers.

    Args:
        path: an ELF executable or library.

    Returns:
        What the headers say.

    Raises:
        Uncovered: the file cannot be read or is no well-formed little-endian ELF file.

    >>> read_image(Path("/bin/sh")).bits
    64
    """
    try:
        with path.open("rb", buffering=0) as file:
            return _image(file.fileno(), path)
    except OSError as error:
        raise Uncovered(f"{path} cannot be checked: {error.strerror}") from error


def _image(fd: int, path: Path) -> Image:
    head = os.pread(fd, _HEADER64.size, 0)
    if len(head) < _HEADER64.size or head[:4] != ELF_MAGIC:
        raise Uncovered(f"{path} is neither an ELF program nor a script with a #! line")
    _, word, order, _ = _IDENT.unpack_from(head)
    if word not in (1, 2) or order != 1:
        raise Uncovered(f"{path} is an ELF file of unknown class {word} or byte order {order}")
    if word == 1:
        return Image(32, 0, None)
    _, _, machine, _, _, table, sections, _, _, entry_size, entries, _, count, names = _HEADER64.unpack(head)
    if entry_size != _PROGRAM64.size or entries * entry_size > PROGRAM_HEADERS_MAX:
        raise Uncovered(f"{path} has a malformed ELF header: {entries} program headers of {entry_size} bytes")
    loader, go = None, _has_go_sections(fd, sections, min(count, SECTIONS_MAX), names)
    for kind, _, offset, _, _, size, _, _ in _PROGRAM64.iter_unpack(_read(fd, table, entries * entry_size, path)):
        if kind == PT_INTERP:
            if not 1 < size <= PATH_MAX:
                raise Uncovered(f"{path} has a malformed ELF header: a loader path of {size} bytes")
            loader = os.fsdecode(_read(fd, offset, size, path).split(b"\0", 1)[0])
        elif kind == PT_NOTE:
            note = _peek(fd, offset, len(GO_NOTE))
            go = go or (note[:4], note[8:]) == (GO_NOTE[:4], GO_NOTE[8:])
    return Image(64, machine, loader, go)


def _has_go_sections(fd: int, table: int, count: int, names: int) -> bool:
    headers = _peek(fd, table, count * _SECTION64.size)
    sections = list(_SECTION64.iter_unpack(headers[: len(headers) // _SECTION64.size * _SECTION64.size]))
    if names >= len(sections):
        return False  # a program needs no section headers; the note tells as well
    start = sections[names][4]
    longest = max(map(len, GO_SECTIONS))
    return any(_peek(fd, start + section[0], longest).startswith(GO_SECTIONS) for section in sections)


def _peek(fd: int, offset: int, size: int) -> bytes:
    # Past the largest file offset pread() raises, before it there may just be nothing.
    return os.pread(fd, size, offset) if offset < 1 << 62 else b""


def _read(fd: int, offset: int, size: int, path: Path) -> bytes:
    data = _peek(fd, offset, size)
    if len(data) != size:
        raise Uncovered(f"{path} has a malformed ELF header: it points past the end of the file")
    return data


def script_interpreter(head: bytes) -> str | None:
    """Find the interpreter in a script's first line, as the kernel does.

    Args:
        head: the file's first bytes, at least 256 of them where it is that long.

    Returns:
        The interpreter's path, or None for what is no script (or one the kernel would refuse).

    >>> script_interpreter(b"#! /usr/bin/env python3\\nprint()")
    '/usr/bin/env'
    """
    if not head.startswith(b"#!"):
        return None
    line, newline, _ = head[2:SCRIPT_HEAD].partition(b"\n")
    words = line.strip(b" \t").replace(b"\t", b" ").split(b" ", 1)
    if not newline and len(head) >= SCRIPT_HEAD and len(words) < 2:
        return None  # the path itself may be cut short
    return os.fsdecode(words[0].split(b"\0", 1)[0]) or None


def check_covered(path: Path, shim: Image, loader: str | None) -> None:
    """Refuse a program that the shim would not be loaded into.

    Args:
        path: the file to be executed; symbolic links are followed.
        shim: the shim's own headers.
        loader: the dynamic loader of a program that is known to work with the shim; None accepts any.

    Raises:
        Uncovered: it says why.
    """
    current = path
    for _ in range(SCRIPT_DEPTH):
        _check_privileges(current)
        interpreter = script_interpreter(_head(current))
        if interpreter is None:
            _check_image(current, read_image(current), shim, loader)
            return
        current = Path(interpreter)
    raise Uncovered(f"{path} is a script run by a script, more than {SCRIPT_DEPTH} deep")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), SCRIPT_HEAD, 0)
    except OSError as error:
        raise Uncovered(f"{path} cannot be checked: {error.strerror}") from error


def _check_privileges(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise Uncovered(f"{path} cannot be checked: {error.strerror}") from error
    hint = "run it from an account that needs no such privilege"
    if status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid():
        raise Uncovered(f"{path} is set-user-ID: the loader would ignore the shim", hint=hint)
    if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP and status.st_gid != os.getegid():
        raise Uncovered(f"{path} is set-group-ID: the loader would ignore the shim", hint=hint)
    try:
        os.getxattr(path, "security.capability")
    except OSError:
        return  # none, or a file system that has none
    raise Uncovered(f"{path} has file capabilities: the loader would ignore the shim", hint=hint)


def _check_image(path: Path, image: Image, shim: Image, loader: str | None) -> None:
    if image.bits != shim.bits:
        raise Uncovered(f"{path} is a {image.bits}-bit program, the shim is {shim.bits}-bit")
    if image.machine != shim.machine:
        raise Uncovered(f"{path} is for ELF machine {image.machine}, the shim for {shim.machine}")
    if image.go:
        raise Uncovered(f"{path} is a Go program: it speaks to the kernel past the shim")
    if image.loader is None and loader is not None and path.name == Path(loader).name:
        return  # the loader itself, started as a program, honours LD_PRELOAD
    if image.loader is None:
        raise Uncovered(
            f"{path} is statically linked: no shim can be loaded into it",
            hint="use a dynamically linked build of it",
        )
    if loader is not None and Path(image.loader).name != Path(loader).name:
        raise Uncovered(f"{path} is loaded by {image.loader}, the shim is built for {loader}")

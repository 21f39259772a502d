"""Close one way around the shim: io_uring, whose reads and writes are no calls of libc.

A seccomp filter makes io_uring_setup() fail with ENOSYS, as on a kernel built without it, so programs fall back to
epoll. It does nothing else, survives exec and is inherited. It needs no_new_privs, under which set-user-ID programs
started by the program gain no privilege (they would have lost the shim).

Sources: seccomp(2); include/uapi/linux/{seccomp,filter,bpf_common}.h. io_uring_setup is number 425 on every
architecture but Alpha, so the filter need not look at the architecture; x32 sets bit 30 of the same number.
"""

import ctypes
import errno
import os
import struct

from ktls.errors import Uncovered

IO_URING_SETUP = 425
X32_SYSCALL_BIT = 0x40000000

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000

# BPF operations: load a word, and with a constant, jump if equal, return a constant.
_LOAD, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_SYSCALL_NUMBER = 0  # offset of `nr` in struct seccomp_data
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, constant


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def filter_program() -> bytes:
    """Assemble the filter.

    Returns:
        An array of struct sock_filter.

    >>> len(filter_program())
    40
    """
    return b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (_LOAD, 0, 0, _SYSCALL_NUMBER),
            (_AND, 0, 0, 0xFFFFFFFF & ~X32_SYSCALL_BIT),
            (_JUMP_EQUAL, 0, 1, IO_URING_SETUP),
            (_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSYS),
            (_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        )
    )


def forbid_io_uring() -> None:
    """Make io_uring_setup() fail in this process and all it will start. It cannot be undone.

    Raises:
        Uncovered: this kernel has no seccomp filters, or refuses one.
    """
    program = filter_program()
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    bpf = _Program(len(program) // _INSTRUCTION.size, program)
    if (
        prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0
        or prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(bpf), zero, zero) != 0
    ):
        reason = os.strerror(ctypes.get_errno())
        raise Uncovered(
            f"io_uring cannot be switched off, this kernel refuses a seccomp filter: {reason}",
            hint="--allow-uncovered runs the program all the same; what it does through io_uring is in clear",
        )

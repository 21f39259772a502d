"""io_uring is switched off, and nothing else."""

import errno
import subprocess
import sys

from ktls import seccomp

SCRIPT = """
import ctypes, os
from ktls.seccomp import forbid_io_uring
libc = ctypes.CDLL(None, use_errno=True)
forbid_io_uring()
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    return ctypes.get_errno() if result < 0 else 0
if os.fork() == 0:  # what it starts is under it too
    print(call(425, 1, None), call(425 | 0x40000000, 1, None), call(39), call(424, -1, 0, None, 0), flush=True)
    os._exit(0)
os.wait()
"""


def test_io_uring_setup_is_not_implemented_and_other_calls_are_untouched():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    setup, x32_setup, getpid, neighbour = (int(word) for word in result.stdout.split())
    assert setup == x32_setup == errno.ENOSYS
    assert getpid == 0
    assert neighbour == errno.EBADF  # pidfd_send_signal of no descriptor


def test_filter_ends_in_allow():
    program = seccomp.filter_program()
    assert program[-4:] == seccomp.SECCOMP_RET_ALLOW.to_bytes(4, sys.byteorder)

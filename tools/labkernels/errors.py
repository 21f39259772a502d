"""What the lab itself can fail with, and the exit statuses for that (those of timeout(1))."""

TIMED_OUT = 124
LAB_FAILED = 125
CANNOT_RUN = 126
NOT_FOUND = 127


class LabError(Exception):
    """The lab could not do its part; the command did not run, or nobody knows how it ended.

    Args:
        message: one sentence, what is wrong.
        hint: what to do about it, a command where there is one.
        log: the end of the kernel's log, where there is one.
    """

    status = LAB_FAILED

    def __init__(self, message: str, *, hint: str = "", log: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log


class Missing(LabError):
    """A package, a program or a kernel that is not on this machine."""


class LostMachine(LabError):
    """The kernel went away without saying how the command ended: a crash, never the command's failure."""


class TimedOut(LabError):
    """The time given with --timeout is over; the kernel and all in it are gone."""

    status = TIMED_OUT

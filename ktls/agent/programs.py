"""Who is asking: what /proc and the user database say about the sender of a request.

The process and its user come from the kernel (SCM_CREDENTIALS). Everything else is read while the program waits for its
verdict; whatever cannot be read is None, and a rule that asks for it does not match.
"""

import grp
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EMFILE, ENFILE, ENOMEM
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
EXHAUSTED = (EMFILE, ENFILE, ENOMEM)
"""Errnos of an open() that say nothing about what was to be opened."""


@dataclass(frozen=True, slots=True)
class Program:
    """The process behind a request.

    Args:
        pid: its number, 0 when unknown.
        path: its executable.
        uid: its user.
        gid: its group.
        user: the user's name.
        groups: its other groups.
        group_names: of all of them, as far as they have names.
        unit: its systemd unit.
    """

    pid: int
    path: str | None
    uid: int
    gid: int
    user: str | None
    groups: tuple[int, ...]
    group_names: tuple[str, ...]
    unit: str | None


def program_of(pid: int, uid: int, gid: int) -> Program:
    """Look up the sender of a message."""
    groups = _groups(pid)
    return Program(
        pid=pid,
        path=_executable(pid),
        uid=uid,
        gid=gid,
        user=_user_name(uid),
        groups=groups,
        group_names=tuple(name for number in {gid: 0, **dict.fromkeys(groups)} if (name := _group_name(number))),
        unit=_unit(pid),
    )


def _executable(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115
    except OSError:
        return None


def _groups(pid: int) -> tuple[int, ...]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ()
    return tuple(int(number) for line in lines if line.startswith("Groups:") for number in line.split()[1:])


def _unit(pid: int) -> str | None:
    """The innermost part of the cgroup's path that is a unit: of cgroup v2 (``0::``), or of v1's systemd hierarchy."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" or controllers == "name=systemd":
            for part in reversed(path.split("/")):
                if part.endswith((".service", ".scope")):
                    return part
    return None


# A user database may be slow (LDAP): each user is asked for once.
@lru_cache(maxsize=1024)
def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


@lru_cache(maxsize=1024)
def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def holds(pid: int, inodes: Mapping[int, T], *, most: int = 1024) -> T | None:
    """Tell which of these sockets a process has open.

    Args:
        pid: the process; one that may not be looked into holds none.
        inodes: what each socket is called.
        most: descriptors looked at.
    """
    try:
        for number in os.listdir(f"/proc/{pid}/fd")[:most]:  # noqa: PTH208
            target = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115
            if target.startswith("socket:[") and (found := inodes.get(int(target[8:-1]))) is not None:
                return found
    except OSError:
        pass
    return None


def holders(inodes: frozenset[int], *, most: int = 100_000) -> frozenset[int]:
    """Find which sockets some process other than this one still has open.

    Copies made where the shim cannot see (a raw dup2 in posix_spawn, SCM_RIGHTS) would otherwise be cut off by a
    premature close_notify. Only processes that this one may look into are seen.

    Args:
        inodes: of the sockets.
        most: descriptors looked at before giving up.

    Returns:
        Those that are held. All of them when the bound was reached, or nothing can be opened any more: never premature
        beats always sent.

    Raises:
        OSError: there is no /proc.
    """
    try:
        return _find_holders(inodes, most)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        return inodes


def _find_holders(inodes: frozenset[int], most: int) -> frozenset[int]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: set[int] = set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - a hundred thousand Path objects are slow
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            numbers = os.listdir(f"/proc/{name}/fd")  # noqa: PTH208
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            continue  # gone, or somebody else's
        most -= len(numbers)
        if most < 0:
            return inodes
        for number in numbers:
            try:
                target = os.readlink(f"/proc/{name}/fd/{number}")  # noqa: PTH115
            except OSError:
                continue
            if target in wanted:
                found.add(wanted[target])
    return frozenset(found)

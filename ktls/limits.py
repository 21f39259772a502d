"""Room for hidden descriptors: the base and the limit that goes with it (docs/protocol.md, "Descriptors").

A program under `ktls run` uses descriptors below the base; the shim keeps a hidden one at `fd + base`, and the channel
to the agent at `2 * base`. The base is:

1. the program's own soft limit, so nothing it could do before fails now, but at least 16384 and at most 65536;
2. where the hard limit is too low for that, half of what the hard limit allows.
"""

import resource

from ktls.errors import ResourceExhausted

BASE_MIN = 16  # below this the shim does not believe the number
BASE_USUAL = 16384  # enough for most servers, and its page of the kernel's table costs little
BASE_MAX = 65536  # the shim's slot table
SPARE = 16  # descriptors above the channel


def choose_base(soft: int, hard: int) -> int:
    """Choose the base for a program's limits.

    Args:
        soft: the soft RLIMIT_NOFILE, in descriptors; -1 for none.
        hard: the hard one; -1 for none.

    Returns:
        The base, with ``2 * base + SPARE`` within the hard limit.

    Raises:
        ResourceExhausted: the hard limit leaves no room.

    >>> choose_base(1024, 1048576), choose_base(1024, 4096)
    (16384, 2040)
    """
    wanted = BASE_MAX if soft < 0 else min(max(soft, BASE_USUAL), BASE_MAX)
    base = wanted if hard < 0 else min(wanted, (hard - SPARE) // 2)
    if base < BASE_MIN:
        raise ResourceExhausted(
            f"a hard limit of {hard} open files leaves no room for the shim's own",
            hint=f"raise it (ulimit -Hn) to at least {2 * BASE_MIN + SPARE}, better to {2 * BASE_USUAL + SPARE}",
        )
    return base


def raise_limit() -> tuple[int, int]:
    """Choose the base and raise this process's soft limit to fit it.

    Returns:
        The base, and the program's own soft limit, for `restore_limit`.

    Raises:
        ResourceExhausted: the hard limit leaves no room.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    base = choose_base(soft, hard)
    needed = 2 * base + SPARE
    if 0 <= soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return base, base if soft < 0 else min(soft, base)


def restore_limit(soft: int) -> None:
    """Give the program its own soft limit: what is above stays open, and the shim knows how to get there.

    Args:
        soft: as `raise_limit` returned it.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

"""The command line: `ktls run`, `ktls agent`, `ktls probe`, `ktls version`.

`run` goes straight to the launcher; the other commands can afford click, whose group is built on first use.
"""

import sys


def main() -> int:
    """Be the `ktls` command.

    Returns:
        The exit status.
    """
    if sys.argv[1:2] == ["run"]:
        from ktls.launcher import main as run  # noqa: PLC0415 - only for this command

        return run(sys.argv[2:])
    from ktls.commands import main as commands  # noqa: PLC0415 - only for the others

    return commands(sys.argv[1:])

"""The command line of tools/soak."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable

from . import hold, mix
from .stage import SoakError
from .verdict import Verdict

DESCRIPTION = """Run covered programs under load and abuse, and check that nothing is lost and nothing is left behind.

  mix    nginx, redis and a server that waits for half-closes, and N clients that do M requests each, with pipelines,
         slow reading, aborts, half-closes, and kills of whole client processes; every byte is checked by hash
  hold   many connections open at once, each of which exchanges a little, waits, and exchanges again

Both end by themselves, and say at the end whether descriptors, memory, sockets and kernel counters are back."""

EPILOG = """Needs root: the agents' descriptors are nobody else's to see. The network namespace is its own.

examples:
  tools/soak mix                                               half a minute, this kernel, the relay engine
  tools/soak mix --clients 32 --requests 100000 --seconds 600  ten minutes, whatever is over first
  tools/lab uml -- tools/soak mix --engine kernel              kTLS, in user-mode Linux
  tools/soak hold --connections 10000

exit status: 0 all is well, 1 something was lost or left behind (the table says what), 2 it could not be run."""


def count(text: str) -> int:
    """Read a number greater than 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number greater than 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    kind = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="tools/soak", description=DESCRIPTION, epilog=EPILOG, formatter_class=kind, allow_abbrev=False
    )
    actions = top.add_subparsers(dest="action", required=True, metavar="mix|hold")
    one = actions.add_parser("mix", help="requests of every kind, with abuse", formatter_class=kind)
    one.add_argument("--clients", type=count, default=16, metavar="N", help="at once (default: %(default)s)")
    one.add_argument("--requests", type=count, default=1000, metavar="M", help="of each (default: %(default)s)")
    one.add_argument("--seconds", type=count, default=30, metavar="S", help="at most, of load (default: %(default)s)")
    one.add_argument("--seed", type=int, default=1, metavar="X", help="what each client does (default: %(default)s)")
    two = actions.add_parser("hold", help="many connections open at once", formatter_class=kind)
    two.add_argument("--connections", type=count, default=10000, metavar="N", help="(default: %(default)s)")
    two.add_argument("--seconds", type=count, default=5, metavar="S", help="to hold them (default: %(default)s)")
    for action in (one, two):
        action.add_argument(
            "--engine", choices=("relay", "kernel"), default="relay", help="never replaced (default: %(default)s)"
        )
        action.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run tools/soak; return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words)
    runs: dict[str, Callable[[argparse.Namespace], Verdict]] = {"mix": mix.run, "hold": hold.run}
    try:
        enter_own_network(words)
        verdict = runs[options.action](options)
    except SoakError as error:
        print(f"tools/soak: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(verdict.as_json()))
    else:
        verdict.show()
    return 0 if verdict.good else 1


def enter_own_network(words: list[str]) -> None:
    """Start again in a network namespace of our own: what /proc counts there is ours alone, and so are the ports.

    Raises:
        SoakError: we may not.
    """
    if os.geteuid() != 0:
        raise SoakError("must be root, to see the agents' descriptors and to have a network of its own")
    if os.environ.get("KTLS_SOAK_NETWORK") == str(os.getpid()):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    os.environ["KTLS_SOAK_NETWORK"] = str(os.getpid())  # exec keeps the number
    command = ["unshare", "--net", "--", sys.executable, sys.argv[0], *words]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise SoakError(f"unshare(1): {error.strerror}") from error

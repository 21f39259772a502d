"""The command line of tools/lab."""

import argparse
import json
import os
import re
import sys
from pathlib import Path

from . import machine, qemu, setup, uml
from .errors import LabError
from .job import Job, guest_environment

KERNELS = ("uml", "qemu")
PROJECT = Path(__file__).resolve().parents[2]


def memory_size(text: str) -> int:
    """Read a size of memory such as 512M or 2G into MiB."""
    match = re.fullmatch(r"(\d+)([MG])", text.upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 512M or 2G")
    size = int(match[1]) * (1024 if match[2] == "G" else 1)
    if size < 128:
        raise argparse.ArgumentTypeError(f"{text!r} is less than the 128M a kernel needs")
    return size


def positive(text: str) -> float:
    """Read a number of seconds greater than 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds greater than 0")
    return value


def cpu_count(text: str) -> int:
    """Read a number of CPUs, 1 to 64."""
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of CPUs from 1 to 64")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="tools/lab",
        description="Run a command as root in a lab kernel that has kTLS (docs/lab.md).",
        epilog="Exit status: the command's; 124 after --timeout, 125 when the lab failed or the kernel was lost.",
    )
    actions = top.add_subparsers(dest="action", required=True, metavar="uml|qemu|setup|status")
    for name, text in (
        ("uml", "run a command in user-mode Linux (quick, one CPU)"),
        ("qemu", "run a command on a current Debian kernel under QEMU (slow, several CPUs)"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--cpus", type=cpu_count, metavar="N", help="CPUs of the guest")
        action.add_argument("--memory", type=memory_size, default=2048, metavar="SIZE", help="512M, 2G (default)...")
        action.add_argument("--timeout", type=positive, metavar="SECONDS", help="kill everything then, exit 124")
        action.add_argument("command", nargs="+", metavar="COMMAND", help="program and arguments, after --")
    action = actions.add_parser("setup", help="install and fetch what is missing (packages: as root)")
    action.add_argument("kernel", nargs="?", choices=KERNELS, help="only this one")
    action = actions.add_parser("status", help="say what is ready; exit status 1 when something is not")
    action.add_argument("kernel", nargs="?", choices=KERNELS, help="only this one")
    action.add_argument("--json", action="store_true", help="as JSON")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run tools/lab; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        with machine.stopping_on_signals():
            return run(options)
    except LabError as error:
        if error.log:
            print(error.log, file=sys.stderr)
        print(f"tools/lab: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"tools/lab: {error.hint}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as a program that SIGPIPE ended


def run(options: argparse.Namespace) -> int:
    """Do what the command line says."""
    if options.action in KERNELS:
        return run_command(options)
    kernels = (options.kernel,) if options.kernel else KERNELS
    if options.action == "setup":
        for kernel in kernels:
            setup.setup(kernel, PROJECT)
        return 0
    found = [setup.status(kernel, PROJECT) for kernel in kernels]
    if options.json:
        print(json.dumps([status.as_json() for status in found], indent=2))
    else:
        print(*found, sep="\n")
    return 0 if all(status.ready for status in found) else 1


def run_command(options: argparse.Namespace) -> int:
    """Run the command of `tools/lab uml` or `tools/lab qemu`."""
    job = Job(
        command=tuple(options.command),
        directory=Path.cwd(),
        environment=guest_environment(os.environ, PROJECT, options.action),
        cpus=options.cpus,
        memory=options.memory,
        timeout=options.timeout,
    )
    return uml.run(job) if options.action == "uml" else qemu.run(job, PROJECT)

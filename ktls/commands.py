"""The commands that are not in a hurry, and the help that introduces them all."""

import dataclasses
import enum
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ktls.errors import KtlsError, UsageError
from ktls.launcher import complain, exit_status
from ktls.launcher import main as launch
from ktls.run_options import HELP
from ktls.sources import SNAPSHOT, find
from policy.admin.group import group as policy_group
from policy.admin.keyrings import group as keyring_group
from policy.admin.source import database_option

if TYPE_CHECKING:
    from ktls.probe import Capabilities

COMMANDS_HELP = """TLS at the socket, for programs that know nothing of it.

\b
  ktls run --inbound 8443 --cert web.pem --key web.key -- python3 -m http.server 8443
  ktls run --outbound 8443 --ca ca.pem -- curl http://localhost:8443/

A program started by `ktls run` reads and writes clear text on its sockets; policy decides which connections are TLS, an
agent outside the program does the handshake, and the kernel encrypts where it can (`ktls probe` tells).

\b
Exit status: 0 done, 2 the command line or the policy is wrong, 125 ktls itself failed;
`ktls run` has two more and otherwise gives that of the program.
"""

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main(arguments: list[str]) -> int:
    """Run a command line.

    Args:
        arguments: what follows `ktls`.

    Returns:
        The exit status.
    """
    try:
        group.main(args=arguments, prog_name="ktls", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except KtlsError as error:
        complain(error)
        return exit_status(error)
    return 0


@click.group(help=COMMANDS_HELP, context_settings=_SETTINGS)
def group() -> None:
    """Hold the commands; the text users see is COMMANDS_HELP."""


@group.command(
    "run",
    short_help="Run a program with its connections protected.",
    help=HELP,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_command(arguments: tuple[str, ...]) -> None:
    """Hand over to the launcher, which has an option parser of its own."""
    if status := launch(list(arguments)):
        sys.exit(status)


@group.command("agent", short_help="Serve several `ktls run` with one agent.")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    required=True,
    envvar="KTLS_AGENT",
    show_envvar=True,
    help="Where to listen; its directory is made if missing and must be its owner's alone.",
)
@click.option(
    "--policy",
    metavar="FILE|@REVISION",
    required=True,
    envvar="KTLS_POLICY",
    show_envvar=True,
    help="The policy for all of them; @active follows what is in force in the database.",
)
@database_option
@click.option(
    "--snapshot",
    type=click.Path(path_type=Path),
    envvar=SNAPSHOT,
    show_envvar=True,
    help="With @active: where to keep the last good policy; beside the default database by default.",
)
@click.option(
    "--without",
    type=click.Choice(["deny", "clear"]),
    default="deny",
    show_default=True,
    help="With @active: the verdict for all where there is neither database nor snapshot.",
)
@click.option("--log", type=click.Path(path_type=Path), help="Append the report here, JSON lines.")
@click.option("--observe", is_flag=True, help="Decide and record, but leave every connection clear.")
def agent_command(
    socket_path: Path,
    policy: str,
    database: str | None,
    snapshot: Path | None,
    without: str,
    log: Path | None,
    observe: bool,
) -> None:
    """Serve several `ktls run` with one agent, in the foreground, until SIGINT or SIGTERM.

    \b
      ktls agent --socket /run/user/1000/ktls/agent --policy site.toml &
      KTLS_AGENT=/run/user/1000/ktls/agent ktls run -- psql
      ktls agent --socket /run/ktls/agent --policy @active --database postgresql://ktls@db/policy

    Programs start faster this way, share the agent's sessions, and are all under one policy.
    """
    from policy.lint import warnings  # noqa: PLC0415 - only for this command

    source = find(policy, os.environ, database=database, snapshot=snapshot, allow=without == "clear")
    for warning in warnings(source.policy) if source.policy else ():
        click.echo(f"warning: {warning}", err=True)
    _private_directory(socket_path.absolute().parent)
    from ktls.agent.main import AgentSettings, run  # noqa: PLC0415 - heavy, and not before the policy is good

    settings = AgentSettings(
        source=source,
        socket_path=socket_path.absolute(),
        log=log and log.absolute(),
        observe=observe,
        shared=True,
    )
    run(settings)


def _private_directory(directory: Path) -> None:
    """Make the socket's directory, or refuse one that others may enter: they could put their own socket there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made: {error.strerror}") from error
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UsageError(
            f"{directory} can be written by others, so the agent's socket could be replaced",
            hint="choose a directory of your own, mode 0700",
        )


group.add_command(policy_group)
group.add_command(keyring_group)


@group.command("probe", short_help="Say what this kernel can do.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def probe_command(as_json: bool) -> None:
    """Say what this kernel can do, by trying it on a connection over loopback.

    \b
      ktls probe
      ktls probe --json | jq .kernel_tls
    """
    from ktls.probe import probe  # noqa: PLC0415 - only for this command

    capabilities = probe()
    if as_json:
        click.echo(json.dumps(_plain(capabilities), indent=2, sort_keys=True))
    else:
        _show(capabilities)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Turn data of ours into what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    match value:
        case enum.Enum():
            return getattr(value, "label", value.name)
        case dict():
            return {str(_plain(key)): _plain(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted((_plain(item) for item in value), key=str)
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _show(capabilities: "Capabilities") -> None:
    from rich.console import Console  # noqa: PLC0415 - only for this command
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(title=f"Linux {os.uname().release}", title_justify="left", show_header=False, box=None)
    for name, value in _plain(capabilities).items():
        table.add_row(name.replace("_", " "), _words(value))
    Console().print(table)


def _words(value: object) -> str:
    match value:
        case True:
            return "yes"
        case False:
            return "no"
        case dict():
            return "\n".join(f"{key}: {_words(item)}" for key, item in value.items()) or "none"
        case list():
            return ", ".join(_words(item) for item in value) or "none"
        case None | "":
            return "-"
        case _:
            return str(value)


@group.command("version", short_help="Say which version this is.")
def version_command() -> None:
    """Say which version this is, and which OpenSSL and kernel it works with."""
    from cryptography.hazmat.backends.openssl.backend import backend  # noqa: PLC0415 - only for this command

    click.echo(f"ktls {importlib.metadata.version('ktls')}")
    click.echo(f"{backend.openssl_version_text()}, Linux {os.uname().release}, Python {sys.version.split()[0]}")

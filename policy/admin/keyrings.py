"""`ktls keyring`: what the keyrings of a policy hold, and what is wrong with them."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ktls.errors import PolicyError
from policy.admin.files import EXIT_FINDINGS
from policy.admin.keyring_report import DAYS, printable, reports
from policy.admin.output import count, json_option, show_json, show_table
from policy.admin.source import ACTIVE, complete_source, database_option, read_source

if TYPE_CHECKING:
    from policy.admin.keyring_report import Report

HELP = """See what keyrings hold, and what is wrong with them.

\b
  ktls keyring list site.toml
  ktls keyring check --days 14 site.toml
  ktls keyring check @active

A policy is a file, or a revision of the policy database; without any it is that of $KTLS_POLICY, or @active. Keys are
opened with the rights of whoever asks, and never shown.

Exit status: 0 done, 1 something was found, 2 the command line or the policy is wrong.
"""
NAMES_SHOWN = 4
"""Names of a certificate that a table shows."""
COLUMNS = (
    *("KEYRING", "USED BY", "HOLDS", "SUBJECT", "NAMES", "ISSUER"),
    *("KEY", "OWNER OF KEY", "NOT AFTER", "DAYS", "WRONG"),
)

sources_argument = click.argument("sources", nargs=-1, metavar="[FILE|@REVISION]...", shell_complete=complete_source)


@click.group("keyring", short_help="See what keyrings hold, and what is wrong with them.", help=HELP)
def group() -> None:
    """Hold the commands; the text users see is HELP."""


def _sources(named: tuple[str, ...]) -> tuple[str, ...]:
    return named or (os.environ.get("KTLS_POLICY") or ACTIVE,)


@group.command("list")
@sources_argument
@database_option
@json_option
def list_command(sources: tuple[str, ...], database: str | None, as_json: bool) -> None:
    """List the keyrings of a policy: what each holds, whose it is, its names, and how many days are left.

    \b
      ktls keyring list site.toml
      ktls keyring list --json @active | jq '.[].keyrings[] | {name, problems}'

    A certificate has a row each: first the keyring's own, then those for clients that ask for a name. What cannot
    be read is left out, and counted under WRONG.

    Exit status: 0 done, 2 the command line or the policy is wrong.
    """
    rows: list[tuple[object, ...]] = []
    told: dict[str, object] = {}
    for source in _sources(sources):
        policy, found = reports(*read_source(source, database))
        if as_json:
            told[source] = {"revision": policy.revision, "keyrings": [_facts(report) for report in found]}
            continue
        for report in found:
            rows += [(source, *row) if len(sources) > 1 else row for row in _rows(report)]
    if as_json:
        show_json(told)
        return
    shown = [tuple(printable(str(cell)) for cell in row) for row in rows]
    columns = ("POLICY", *COLUMNS) if len(sources) > 1 else COLUMNS
    show_table(columns, shown, empty="no keyrings", blocks=True)


def _facts(report: "Report") -> dict[str, object]:
    from ktls.keyring_facts import keyring_facts  # noqa: PLC0415 - heavy

    uses = {"line": report.use.line, "rules": list(report.use.rules), "actions": list(report.use.actions)}
    problems = [report.facts(finding) for finding in report.findings]
    return keyring_facts(report.parts, datetime.now(UTC)) | uses | {"problems": problems}


def _rows(report: "Report") -> Iterator[tuple[object, ...]]:
    from ktls.keyring_facts import certificate_facts, names_of, owner_facts, short_name  # noqa: PLC0415 - heavy

    name = report.use.keyring.name
    held = report.parts.held
    users = [_few(report.use.rules), f"action {_few(report.use.actions)}" if report.use.actions else ""]
    first = (name, "; ".join(filter(None, users)) or "-", _holds(report))
    wrong = ", ".join(count(number, level) for level in ("error", "warning") if (number := report.number(level)))
    if not held or held[0].key:
        yield (*first, *[""] * (len(COLUMNS) - len(first) - 1), wrong or "-")
    for one in held:
        start = (name, "", f"for {_few(one.names)}") if one.key else first
        end = "" if one.key else wrong or "-"
        whose = owner_facts(one.private_key)
        owner = f"{whose['owner']}:{whose['group']} {whose['mode']}" if whose["owner"] else ""
        if not one.chain:
            yield (*start, "", "", "", "", owner, "", "", end)
            continue
        leaf, facts = one.chain[0], certificate_facts(one.chain[0], datetime.now(UTC))
        names = tuple(value.partition(":")[2] for value in names_of(leaf))
        yield (
            *start,
            *(short_name(leaf, "subject"), _few(names), short_name(leaf, "issuer"), facts["key"], owner),
            *(f"{leaf.not_valid_after_utc:%Y-%m-%d}", facts["days_left"], end),
        )


def _few(names: tuple[str, ...]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _holds(report: "Report") -> str:
    parts = report.parts
    own = [one for one in parts.held if not one.key]
    sni = len(parts.held) - len(own)
    lists = sum(map(len, parts.crls.values()))
    anchors = count(len(parts.trusted), "anchor") if parts.trusted or not parts.system else ""
    trust = " and ".join(word for word in (anchors, "the system's" if parts.system else "") if word)
    held = (
        f"chain of {len(own[0].chain)}" if own and own[0].chain else "",
        count(sni, "more certificate") if sni else "",
        f"trusts {trust}",
        count(lists, "CRL") if lists else "",
    )
    return ", ".join(word for word in held if word)


@group.command("check")
@sources_argument
@click.option("--days", type=click.IntRange(0), default=DAYS, show_default=True, help="Warn of what expires within.")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@database_option
@json_option
def check_command(sources: tuple[str, ...], days: int, strict: bool, database: str | None, as_json: bool) -> None:
    """Open the keyrings of a policy and say what is wrong with them, each with file, line, keyring, key and rules.

    \b
      ktls keyring check site.toml
      ktls keyring check --days 14 --strict @active      (once a day)

    An error keeps the keyring, or connections under it, from working; a warning may be meant.

    Exit status: 0 fine, 1 errors, or warnings under --strict, 2 the command line or the policy is wrong.
    """
    found: list[Report] = []
    refused: list[str] = []
    for source in _sources(sources):
        try:
            found += reports(*read_source(source, database), days)[1]
        except PolicyError as error:
            refused += error.message.splitlines()
    errors, warned = (sum(report.number(level) for report in found) for level in ("error", "warning"))
    if as_json:
        problems = [report.facts(finding) for report in found for finding in report.findings]
        show_json({"keyrings": len(found), "problems": problems, "policies": refused})
    else:
        for line in refused:
            click.echo(line, err=True)
        for report in found:
            for finding in report.findings:
                click.echo(f"{'warning: ' if finding.level == 'warning' else ''}{report.line(finding)}", err=True)
        click.echo(f"{count(len(found), 'keyring')}: {count(errors, 'error')}, {count(warned, 'warning')}")
    sys.exit(2 if refused else EXIT_FINDINGS if errors or (warned and strict) else 0)

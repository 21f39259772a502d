"""Working with records of connections: replay, suggest."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ktls.errors import PolicyError
from policy.admin.files import EXIT_FINDINGS
from policy.admin.output import json_option, show_json, show_table
from policy.admin.source import load_source, policy_argument

if TYPE_CHECKING:
    from policy.records import Records

_RECORDS = click.argument("records", nargs=-1, type=click.Path(path_type=Path))


def _read(records: tuple[Path, ...]) -> "Records":
    """Read the files named, or those that agents keep; what is no record is warned of."""
    from policy.records import kept_records, read_records  # noqa: PLC0415 - only for these commands

    paths = records or kept_records(os.environ)
    if not paths:
        raise PolicyError("no connections have been recorded", hint="name a report, or see KTLS_RECORDS")
    held = read_records(paths)
    if held.unread:
        click.echo(f"warning: {held.unread} lines are no records, and were passed over", err=True)
    return held


@click.command("replay")
@policy_argument
@_RECORDS
@json_option
def replay_command(source: str, records: tuple[Path, ...], as_json: bool) -> None:
    """Try a policy on recorded connections before it is activated, and say what would change.

    \b
      ktls policy replay new.toml
      ktls policy replay new.toml /var/log/ktls/report.jsonl

    RECORDS are reports of agents (`ktls run --log`, `ktls agent --log`); without any, what agents keep by themselves.

    Exit status: 0 nothing would change, 1 something would, 2 a file is wrong.
    """
    from policy.records import describe, replay  # noqa: PLC0415 - only for this command

    policy, held = load_source(source), _read(records)
    changes = Counter(
        (str(one.record.verdict), str(one.decision.verdict), one.decision.rule, describe(one.record.facts))
        for one in replay(policy, held.records)
    )
    total = sum(changes.values())
    if as_json:
        keys = ("from", "to", "rule", "connection", "count")
        listed = [dict(zip(keys, (*change, count), strict=True)) for change, count in changes.most_common()]
        show_json({"connections": len(held.records), "changed": total, "changes": listed})
    else:
        rows = [(count, *change) for change, count in changes.most_common()]
        show_table(("COUNT", "WAS", "WOULD BE", "BY RULE", "CONNECTION"), rows, empty="nothing would change")
        click.echo(f"{total} of {len(held.records)} connections would be decided otherwise")
    sys.exit(EXIT_FINDINGS if total else 0)


@click.command("suggest")
@_RECORDS
def suggest_command(records: tuple[Path, ...]) -> None:
    """Write rules for what was recorded, to be read and changed by a person.

    \b
      ktls policy suggest report.jsonl > site.toml
    """
    from policy.suggest import suggest  # noqa: PLC0415 - only for this command

    click.echo(suggest(_read(records).records), nl=False)


COMMANDS = (replay_command, suggest_command)

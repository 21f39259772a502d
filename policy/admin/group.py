"""The group of commands, as `ktls` shows it."""

import click

from policy.admin import edited, files, imported, recorded, stored

HELP = """Write, check, explain and try policies.

\b
  ktls policy check site.toml
  ktls policy explain site.toml --remote 10.1.2.3:5432 --program /usr/bin/psql
  ktls policy test site.toml
  ktls policy replay site.toml report.jsonl

docs/policy.md is the language. Exit status: 0 done, 1 something was found, 2 the command line or a file is wrong.
"""


@click.group("policy", short_help="Write, check, explain and try policies.", help=HELP)
def group() -> None:
    """Hold the commands; the text users see is HELP."""


for module in (files, recorded, imported, stored, edited):
    for command in module.COMMANDS:
        group.add_command(command)

"""Looking at a policy: check, list, show, explain, test, shadow."""

import sys
from pathlib import Path

import click

from ktls.errors import PolicyError
from policy.admin.keyring_report import broken_keyrings
from policy.admin.output import count, json_option, show_json, show_table
from policy.admin.source import load_source, optional_policy_argument, policy_argument

EXPECTATIONS = ".test.toml"
"""How a file of expectations ends, beside its policy."""
EXIT_FINDINGS = 1
"""Warnings under --strict, expectations that do not hold, rules that never match, verdicts that would change."""


def question_options(command: click.decorators.FC) -> click.decorators.FC:
    """Give a command the options that describe a connection."""
    for option in reversed(
        (
            click.option(
                "--direction", type=click.Choice(["outbound", "inbound"]), default="outbound", show_default=True
            ),
            click.option("--remote", metavar="ADDRESS:PORT", required=True, help="The other end."),
            click.option("--local", metavar="ADDRESS:PORT", help="Our end."),
            click.option("--name", "remote_name", metavar="HOST", help="What the program resolved."),
            click.option("--program", metavar="PATH", help="The executable."),
            click.option("--user", metavar="NAME|ID", help="Its effective user."),
            click.option("--group", metavar="NAME|ID,...", help="Its groups."),
            click.option("--unit", metavar="UNIT", help="Its systemd unit."),
            click.option("--at", metavar="TIME", help='When, as "2026-01-05T12:00"; now when missing.'),
        )
    ):
        command = option(command)
    return command


@click.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--no-keyrings", is_flag=True, help="Do not look for the files that keyrings name: they are elsewhere.")
@json_option
def check_command(files: tuple[Path, ...], strict: bool, no_keyrings: bool, as_json: bool) -> None:
    """Read policies and say what is wrong with them, each with file, line, rule and key.

    \b
      ktls policy check site.toml
      ktls policy check --strict --no-keyrings policies/*.toml      (for CI)

    Keyrings are opened: what would keep an agent from using them is an error. `ktls keyring check` says more of them.

    Exit status: 0 fine, 1 warnings under --strict, 2 errors.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for file in files:
        try:
            errors_of, warnings_of = _look_at(file, keyrings=not no_keyrings)
            found[str(file)] = {"errors": errors_of, "warnings": warnings_of}
        except PolicyError as error:
            found[str(file)] = {"errors": error.message.splitlines(), "warnings": []}
    errors, warned = (sum(len(one[kind]) for one in found.values()) for kind in ("errors", "warnings"))
    if as_json:
        show_json(found)
    else:
        for one in found.values():
            for line in one["errors"]:
                click.echo(line, err=True)
            for line in one["warnings"]:
                click.echo(f"warning: {line}", err=True)
        click.echo(f"{count(len(files), 'policy', 'policies')}: {count(errors, 'error')}, {count(warned, 'warning')}")
    sys.exit(2 if errors else EXIT_FINDINGS if warned and strict else 0)


def _look_at(file: Path, *, keyrings: bool) -> tuple[list[str], list[str]]:
    """Return the errors and warnings of one file; those of the policy itself are raised, all at once."""
    from policy.document import read_file  # noqa: PLC0415 - only for this command
    from policy.expectations import read_expectations  # noqa: PLC0415 - as above
    from policy.lint import warnings  # noqa: PLC0415 - as above
    from policy.load import parse  # noqa: PLC0415 - as above

    if file.name.endswith(EXPECTATIONS):
        read_expectations(file)
        return [], []
    data = read_file(file)
    try:
        policy = parse(data, file, files=False)
    except PolicyError:
        parse(data, file, files=keyrings)  # with the files that are not there
        raise
    return list(broken_keyrings(data, file)) if keyrings else [], list(warnings(policy))


@click.command("list")
@optional_policy_argument
@json_option
def list_command(source: str, as_json: bool) -> None:
    """List the rules in the order in which they are tried."""
    from policy.admin.describe import rule_facts, rule_row  # noqa: PLC0415 - only for this command

    policy = load_source(source)
    if as_json:
        rules = [rule_facts(rule) for rule in policy.rules]
        show_json({"revision": policy.revision, "default": str(policy.default), "rules": rules})
        return
    show_table(("PRIORITY", "RULE", "VERDICT", "ACTION", "WHEN"), map(rule_row, policy.rules), empty="no rules")
    click.echo(f"otherwise: {policy.default}   (revision {policy.revision})")


@click.command("show")
@policy_argument
@click.argument("rule")
@json_option
def show_command(source: str, rule: str, as_json: bool) -> None:
    """Show one rule with everything that it comes to: its conditions, its action with the defaults, its keyring."""
    from policy.admin.describe import rule_facts, rule_lines  # noqa: PLC0415 - only for this command
    from policy.checks import similar  # noqa: PLC0415 - as above

    rules = {one.name: one for one in load_source(source).rules}
    if rule not in rules:
        near = similar(rule, rules)
        raise PolicyError(f'{source} has no rule "{rule}"', hint=f'did you mean "{near}"?' if near else "")
    if as_json:
        show_json(rule_facts(rules[rule]))
    else:
        click.echo("\n".join(rule_lines(rules[rule])))


@click.command("explain")
@optional_policy_argument
@question_options
@click.option("--all", "show_all", is_flag=True, help="Every rule that was tried, not only the near misses.")
@json_option
def explain_command(source: str, show_all: bool, as_json: bool, **said: str | None) -> None:
    """Say which rule decides a connection, and why those before it do not.

    \b
      ktls policy explain site.toml --remote 10.1.2.3:5432 --program /usr/bin/psql --user app
      ktls policy explain site.toml --direction inbound --local 10.0.0.1:443 --remote 192.0.2.7:40000
    """
    from policy.explain import explain  # noqa: PLC0415 - only for this command
    from policy.questions import read_question  # noqa: PLC0415 - as above

    explanation = explain(load_source(source), read_question(said))
    decision, earlier = explanation.decision, [one for one in explanation.compared if one.misses]
    if as_json:
        compared = [
            {"rule": one.rule.name, "line": one.rule.line, "fits": one.fits, "misses": one.misses, "near": one.near}
            for one in explanation.compared
        ]
        facts = {"verdict": str(decision.verdict), "rule": decision.rule, "reason": decision.reason}
        show_json(facts | {"revision": decision.revision, "compared": compared})
        return
    click.echo(f"{decision.verdict}: {decision.reason}")
    decider = next((one for one in explanation.compared if not one.misses), None)
    for text in decider.fits if decider else ():
        click.echo(f"  {text}")
    shown = earlier if show_all else explanation.near
    for one in shown:
        place = f"line {one.rule.line}, " if one.rule.line else ""
        click.echo(f"  {'near miss: ' if one.near else ''}{place}{one.line()}")
    if len(earlier) > len(shown):
        click.echo(f"  and {count(len(earlier) - len(shown), 'rule')} tried before that fit less; --all shows them")


@click.command("test")
@policy_argument
@click.argument("expectations", required=False, type=click.Path(path_type=Path))
@json_option
def test_command(source: str, expectations: Path | None, as_json: bool) -> None:
    """Try a policy on connections whose verdicts are written beside it, in FILE with ".test.toml" for ".toml".

    \b
      [[expect]]
      name = "psql goes to the database over TLS"
      remote = "10.1.2.3:5432"
      direction = "outbound"
      verdict = "tls"
      rule = "postgres out"        (may be left out; "" is the default)

    Exit status: 0 all hold, 1 some do not, 2 a file is wrong.
    """
    from policy.expectations import read_expectations, try_expectations  # noqa: PLC0415 - only for this command

    beside = expectations or Path(source).with_suffix(".test.toml")
    outcomes = try_expectations(load_source(source), read_expectations(beside))
    failed = [one for one in outcomes if not one.held]
    if as_json:
        show_json(
            [
                {"name": one.expectation.name, "line": one.expectation.line, "held": one.held}
                | {"verdict": str(one.decision.verdict), "rule": one.decision.rule, "reason": one.decision.reason}
                for one in outcomes
            ]
        )
    else:
        for one in failed:
            click.echo(f"{beside}:{one.expectation.line}: {one.line()}", err=True)
        click.echo(f"{len(outcomes) - len(failed)} of {count(len(outcomes), 'expectation')} hold")
    sys.exit(EXIT_FINDINGS if failed else 0)


@click.command("shadow")
@optional_policy_argument
@json_option
def shadow_command(source: str, as_json: bool) -> None:
    """List the rules that can never match, since earlier ones are about all that they are about.

    Exit status: 0 none, 1 some, 2 the file is wrong.
    """
    from policy.lint import shadowed  # noqa: PLC0415 - only for this command

    found = [(rule, earlier) for rule, earlier in shadowed(load_source(source))]
    if as_json:
        show_json([{"rule": rule.name, "line": rule.line, "by": earlier.name} for rule, earlier in found])
    else:
        rows = [(rule.line, rule.name, earlier.name, earlier.line) for rule, earlier in found]
        show_table(("LINE", "RULE", "SHADOWED BY", "LINE"), rows, empty="every rule can match")
    sys.exit(EXIT_FINDINGS if found else 0)


COMMANDS = (check_command, list_command, show_command, explain_command, test_command, shadow_command)

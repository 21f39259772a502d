"""The command line of `ktls run`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls.errors import UsageError
from ktls.run_options import HELP, RunOptions, parse

CERT = ["--cert", "c.pem", "--key", "k.pem"]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--", "ls", "-l"], RunOptions(command=("ls", "-l"))),
        (["ls", "--policy", "x"], RunOptions(command=("ls", "--policy", "x"))),
        (["--policy", "p", "--", "--odd"], RunOptions(command=("--odd",), policy="p")),
        (["--policy=p", "--log=l", "a"], RunOptions(command=("a",), policy="p", log="l")),
        (
            ["--inbound", "1", "--inbound=65535", *CERT, "a"],
            RunOptions(command=("a",), inbound=(1, 65535), certificate="c.pem", private_key="k.pem"),
        ),
        (["--outbound", "443", "a"], RunOptions(command=("a",), outbound=((None, 443),))),
        (["--outbound", "db.example:5432", "a"], RunOptions(command=("a",), outbound=(("db.example", 5432),))),
        (["--outbound", "[2001:db8::1]:5432", "a"], RunOptions(command=("a",), outbound=(("2001:db8::1", 5432),))),
        (
            ["--outbound", "1", "--engine", "kernel", "--ca", "ca", "a"],
            RunOptions(command=("a",), outbound=((None, 1),), engine="kernel", trust="ca"),
        ),
        (["--allow-uncovered", "--", "a"], RunOptions(command=("a",), allow_uncovered=True)),
        (["--observe", "--", "a"], RunOptions(command=("a",), observe=True)),
        (["--help"], RunOptions(help=True)),
        (["-h", "--", "ls"], RunOptions(command=("ls",), help=True)),
    ],
)
def test_what_is_said_is_what_is_understood(arguments, options):
    assert parse(arguments) == options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no command to run"),
        (["--"], "no command to run"),
        (["--nosuch", "a"], "no such option: --nosuch"),
        (["--help=1", "a"], "no such option: --help=1"),
        (["--policy"], "--policy needs a value"),
        (["--policy", "--log", "x", "a"], "--policy needs a value"),
        (["--policy", "p", "--policy", "q", "a"], "--policy is given twice"),
        (["--inbound", "0", *CERT, "a"], "--inbound 0: not a port from 1 to 65535"),
        (["--inbound", "65536", *CERT, "a"], "not a port"),
        (["--inbound", "\u0663", *CERT, "a"], "not a port"),
        (["--inbound", "99999999999999999999", *CERT, "a"], "not a port"),
        (["--inbound", "8443", "a"], "--inbound needs --cert and --key"),
        (["--outbound", "http", "a"], "--outbound http: not a port"),
        (["--outbound", "http:", "a"], "not a port"),
        (["--outbound", ":443", "a"], "no host before the colon"),
        (["--outbound", "::1:443", "a"], r"\[ADDRESS\]:PORT"),
        (["--outbound", "1", "--engine", "warp", "a"], "not one of auto, nic, kernel, relay"),
        (["--outbound", "1", "--policy", "p", "a"], "use one or the other"),
        (["--outbound", "1", "--cert", "c", "a"], "one needs the other"),
        (["--policy", "p", "--ca", "x", "a"], "a policy file has its own"),
    ],
)
def test_mistakes_name_the_argument_and_point_to_the_help(arguments, words):
    with pytest.raises(UsageError, match=words) as caught:
        parse(arguments)
    assert "--help" in caught.value.hint


@given(st.lists(st.text(max_size=12) | st.sampled_from(["--inbound", "--policy=", "--", "--outbound", "-"])))
def test_any_arguments_are_understood_or_refused(arguments):
    try:
        options = parse(arguments)
    except UsageError:
        return
    assert options.help or options.command


@pytest.mark.parametrize(
    "option",
    [
        "--policy",
        "--inbound",
        "--outbound",
        "--cert",
        "--key",
        "--ca",
        "--engine",
        "--log",
        "--observe",
        "--allow-uncovered",
    ],
)
def test_help_teaches_every_option(option):
    assert f"  {option}" in HELP

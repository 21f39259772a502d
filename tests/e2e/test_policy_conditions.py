"""Each condition of a rule, and each key beside it, makes the difference that docs/policy.md says, on live connections.

The program connects to a server that speaks TLS. Where the rule fits the connection opens under it; where it does not
the default holds, and the connection stays clear.
"""

import datetime
import getpass
import grp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.decided import SAID, connect
from tests.e2e.peer import server_context

__all__ = ["connect"]

NAME, GROUP = getpass.getuser(), grp.getgrgid(os.getegid()).gr_name
PYTHON = str(Path(sys.executable).resolve())
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


@pytest.fixture
def rule(tls_files):
    """The text of a policy with one rule for TLS, to which a test adds lines."""

    def text(lines: str, *, top: str = "", more: str = "") -> str:
        return f"""{top}
[keyring.k]
trust = ["{tls_files.ca}"]
[[rule]]
name = "the rule"
verdict = "tls"
action = {{ keyring = "k", role = "client", engine = "{{engine}}" }}
{lines}
{more}
"""

    return text


@pytest.fixture
def server(tls_files):
    return server_context(str(tls_files.cert), str(tls_files.key))


CONDITIONS = [
    ("direction", '"outbound"', '"inbound"'),
    ("local", '["127.0.0.0/8"]', '["10.0.0.0/8", "::/0"]'),
    ("local_port", '["1024-65535"]', '["1-1023"]'),
    ("remote", '["127.0.0.1-127.0.0.9"]', '["127.0.0.2-127.0.0.9"]'),
    ("remote_port", '["1-9", "PORT"]', '["1-9"]'),
    ("remote_name", '["local*"]', '["*.localhost"]'),
    ("program", f'["{PYTHON}"]', '["/usr/bin/psql"]'),
    ("user", f'["{NAME}"]', '["somebody"]'),
    ("user", f'["{os.geteuid()}-{os.geteuid() + 5}"]', f'["{os.geteuid() + 1}-{os.geteuid() + 5}"]'),
    ("group", f'["{GROUP}"]', '["some-group"]'),
    ("group", f'["{os.getegid()}"]', '["4000000000-4000000009"]'),
]


@pytest.mark.parametrize(("key", "fits", "misses"), CONDITIONS, ids=[f"{one[0]} {one[1]}" for one in CONDITIONS])
def test_a_condition_that_fits_protects_and_one_that_does_not_leaves_clear(connect, rule, server, key, fits, misses):
    protected = connect(rule(f"{key} = {fits}"), server, host="localhost" if key == "remote_name" else "127.0.0.1")
    assert (str(protected), protected.event["rule"]) == ("open", "the rule")
    assert protected.result["received"] == len(SAID)
    left = connect(rule(f"{key} = {misses}"), None, host="localhost" if key == "remote_name" else "127.0.0.1")
    assert (str(left), left.event.get("rule")) == ("clear", None)
    assert left.peer.received == bytes(range(5))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_user_and_group_are_those_of_the_connecting_process(connect, rule, server):
    lines = 'user = ["65534"]\ngroup = ["65534"]'
    assert str(connect(rule(lines), server, wrap=AS_NOBODY)) == "open"
    assert str(connect(rule(lines), None)) == "clear"


@pytest.fixture
def in_unit(tmp_path):
    """The words that put a program into a control group called as a unit, in a hierarchy mounted for this test."""
    top = tmp_path / "cgroup"
    top.mkdir()
    if subprocess.run(["mount", "-t", "cgroup2", "none", top], check=False, capture_output=True).returncode:
        pytest.skip("no control groups can be mounted here")
    made: list[Path] = []

    def words(unit: str) -> list[str]:
        folder = top / unit
        folder.mkdir()
        made.append(folder)
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(folder / "cgroup.procs")]

    yield words
    for folder in made:
        folder.rmdir()
    subprocess.run(["umount", top], check=True)


def test_the_unit_is_that_of_the_connecting_process(connect, rule, server, in_unit):
    lines = 'unit = ["app@*.service"]'
    assert str(connect(rule(lines), server, wrap=in_unit("app@1.service"))) == "open"
    assert str(connect(rule(lines), None, wrap=in_unit("other.service"))) == "clear"


def test_a_time_window_holds_on_its_days(connect, rule, server):
    days = [(datetime.datetime.now(datetime.UTC) + datetime.timedelta(n)).strftime("%a").lower() for n in range(7)]
    now, later = f'["{days[0]}", "{days[1]}"]', f'["{days[3]}"]'
    assert str(connect(rule(f'time = {{ days = {now}, zone = "UTC" }}'), server)) == "open"
    assert str(connect(rule(f'time = {{ days = {later}, zone = "UTC" }}'), None)) == "clear"


def test_a_verdict_is_done(connect, rule, server):
    other = '[[rule]]\nname = "other"\npriority = 9\nverdict = "{}"\n'
    assert str(connect(rule(""), server)) == "open"
    assert str(connect(rule("", more=other.format("clear")), None)) == "clear"
    assert str(connect(rule("", more=other.format("deny")), server)) == "denied"


@pytest.mark.parametrize(("priority", "fate"), [(1, "open"), (2, "denied")])
def test_the_higher_priority_is_tried_first_and_the_first_among_equals(connect, rule, server, priority, fate):
    other = f'[[rule]]\nname = "other"\npriority = {priority}\nverdict = "deny"\n'
    assert str(connect(rule("", more=other), server)) == fate


@pytest.mark.parametrize(("default", "fate"), [("clear", "clear"), ("deny", "denied")])
def test_the_default_decides_where_no_rule_fits(connect, rule, default, fate):
    assert str(connect(rule('remote_port = ["1"]', top=f'default = "{default}"'), None)) == fate


def test_a_connection_left_clear_is_recorded_with_its_bytes_and_its_end(connect, rule):
    end = connect(rule('remote_port = ["1"]', top='default = "clear"'), None).program.event("clear-end")
    assert (end["bytes_out"], end["ended"]) == (5, "closed")
    assert end["bytes_in"] in (len(SAID), len(SAID) + 1)  # TCP may count the peer's FIN


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_a_policy_that_observes_says_what_it_would_do_and_leaves_the_connection_clear(connect, rule, server, mode):
    fate = connect(rule("", top=f'mode = "{mode}"'), server if mode == "enforce" else None)
    assert (str(fate), fate.event["verdict"]) == ("open" if mode == "enforce" else "observed", "tls")

"""docs/semantics.md holds: every row gives the same under `ktls run` as on plain TCP, but where it says otherwise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.row import Row, load_rows
from tests.contract.table import PAGE, render
from tests.e2e.harness import check_log, fork_agent

ROOT = Path(__file__).resolve().parents[2]
ROWS = load_rows()
OWN = [row for row in ROWS if row.run]

POLICY = """
version = 1
default = "clear"
[keyring.us]
certificate = "{cert}"
private_key = "{key}"
trust = ["{ca}"]
[action.tls]
keyring = "us"
engine = "{engine}"
handshake_timeout = 60
[action.impatient]
keyring = "us"
engine = "{engine}"
handshake_timeout = 2
[[rule]]
name = "in"
direction = "inbound"
local_port = ["{both}", "{inbound}"]
verdict = "tls"
action = "tls"
[[rule]]
name = "out"
direction = "outbound"
remote_port = ["{both}", "{outbound}"]
verdict = "tls"
action = "tls"
[[rule]]
name = "impatient"
direction = "inbound"
local_port = ["{impatient}"]
verdict = "tls"
action = "impatient"
"""


@pytest.fixture(scope="session")
def engine() -> str:
    return os.environ.get("KTLS_TEST_ENGINE", "relay")


@pytest.fixture(scope="session")
def seen(tmp_path_factory, tls_files, engine):
    """Call it with a group and "plain" or "covered" for what each of its rows saw; a group runs once each way."""
    done: dict[tuple[str, str], dict[str, dict]] = {}

    def run(group: str, how: str) -> dict[str, dict]:
        if (group, how) not in done:
            done[group, how] = run_group(group, how)
        return done[group, how]

    def run_group(group: str, how: str) -> dict[str, dict]:
        folder = tmp_path_factory.mktemp(f"{group}-{how}")
        ports = dict(zip(("both", "inbound", "outbound", "impatient"), free_ports(4), strict=True))
        files = {"ca": str(tls_files.ca), "cert": str(tls_files.cert), "key": str(tls_files.key)}
        world = {"engine": engine if how == "covered" else "plain", "folder": str(folder), **ports, **files}
        words = [sys.executable, "-m", "tests.contract.program", group, json.dumps(world)]
        environment = dict(os.environ)
        if how == "covered":
            policy = folder / "policy.toml"
            policy.write_text(POLICY.format(engine=engine, **ports, **files))
            options = {"policy": policy}
            environment["KTLS_AGENT"] = str(fork_agent(options, engine, folder / "agent.log"))
            words = [sys.executable, "-m", "ktls", "run", "--", *words]
        result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        sys.stderr.write(result.stderr[-4000:])
        check_log(folder / "agent.log")
        lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        return {line["row"]: line for line in lines}

    return run


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, all different."""
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first row of a group runs them all
@pytest.mark.parametrize("row", OWN, ids=[f"{row.group}-{row.name}" for row in OWN])
def test_a_covered_program_sees_what_plain_tcp_gives(row: Row, seen, engine):
    if row.root and os.geteuid() != 0:
        pytest.skip("needs root")
    if engine not in row.engines:
        pytest.skip(f"not on the {engine} engine: {row.kernel if engine == 'kernel' else row.relay}")
    plain, covered = (seen(row.group, how).get(row.name, {"failed": "never ran"}) for how in ("plain", "covered"))
    assert "failed" not in plain, f"on plain TCP: {plain['failed']}"
    assert "failed" not in covered, f"under ktls run: {covered['failed']}"
    assert plain["seen"] is not None, "a row that sees nothing holds nothing"
    assert covered["seen"] == plain["seen"]


def test_the_page_is_the_rows():
    assert PAGE.read_text() == render(ROWS), "python -m tests.contract.table writes docs/semantics.md"


def test_rows_held_elsewhere_name_tests_that_exist():
    for row in ROWS:
        file, _, name = row.test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), row.test


def test_every_name_is_its_own():
    names = [(row.group, row.name) for row in ROWS]
    assert len(names) == len(set(names))

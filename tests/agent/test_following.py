"""An agent under a policy database. PostgreSQL: tests/policy/store; 200 at once: `make bench`."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policy.store import Store, open_store
from tests.agent.agent_process import AgentProcess, until
from tests.agent.conftest import StartAgent
from tests.agent.test_watching import is_denied

CLEAR = "version = 1\n"
DENY = 'version = 1\n[[rule]]\nname = "all"\nverdict = "deny"\n'
Activate = Callable[[str], None]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty one, which the agents of this test follow."""
    monkeypatch.setenv("KTLS_POLICY_DATABASE", str(tmp_path / "policy.db"))
    monkeypatch.setenv("KTLS_POLICY_SNAPSHOT", str(tmp_path / "kept" / "snapshot"))
    with open_store(str(tmp_path / "policy.db"), upgrade=True) as store:
        yield store


@pytest.fixture
def activate(database: Store, tmp_path: Path) -> Activate:
    """Commit a policy and put it in force, as somebody on another host: nobody looks at the files of its keyrings."""

    def do(text: str) -> None:
        head = database.head()
        file = tmp_path / "site.toml"
        made = database.commit(text, author="ann", message="m", parent=head, file=file, elsewhere=True)
        database.activate(made, "ann", elsewhere=True)

    return do


@pytest.fixture
def start(start_agent: StartAgent) -> Callable[[], AgentProcess]:
    """Start an agent that follows."""
    return lambda: start_agent(options=("--policy", "@active"))


def test_what_is_activated_decides_from_the_next_connection_on(start, activate: Activate, database: Store) -> None:
    activate(CLEAR)
    agent = start()
    assert not is_denied(agent)
    activate(DENY)
    until(lambda: is_denied(agent), "the new policy")
    database.rollback("ann")
    until(lambda: not is_denied(agent), "the old policy")
    assert [event.get("source") for event in agent.events("policy")] == ["database", None, None]
    assert agent.events("policy")[1]["before"] == agent.events("policy")[0]["revision"]


def test_one_that_is_not_right_on_this_host_leaves_the_old_one_and_is_said(
    start, activate: Activate, tmp_path: Path
) -> None:
    activate(DENY)
    agent = start()
    keyring = f'[keyring.k]\ncertificate = "{tmp_path}/gone.pem"\nprivate_key = "{tmp_path}/gone.key"\n'
    activate(f'{CLEAR}{keyring}[[rule]]\nname = "r"\nverdict = "tls"\naction = {{ keyring = "k" }}\n')
    assert "gone.pem" in agent.event("database")["message"]
    assert is_denied(agent)
    activate(CLEAR)
    until(lambda: not is_denied(agent), "a policy that is right")


def test_a_key_that_does_not_fit_is_not_right_either(start, activate: Activate, tls_files, tmp_path: Path) -> None:
    """It compiles; only who opens the keyring sees it."""
    activate(DENY)
    agent = start()
    keyring = f'[keyring.k]\ncertificate = "{tls_files.cert}"\nprivate_key = "{tls_files.client_key}"\n'
    activate(f'{CLEAR}{keyring}[[rule]]\nname = "r"\nverdict = "tls"\naction = {{ keyring = "k" }}\n')
    assert "k" in agent.event("database")["message"]
    assert is_denied(agent)


def test_without_the_database_it_begins_with_the_last_good_one_and_follows_when_it_is_back(
    start, activate: Activate, tmp_path: Path
) -> None:
    activate(CLEAR)
    agent = start()
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(20) == 0
    (tmp_path / "policy.db").rename(tmp_path / "away.db")
    agent = start()
    assert agent.event("policy")["source"] == "snapshot"
    assert any("begins with revision 1" in event["message"] for event in agent.events("database"))
    assert not is_denied(agent)
    shutil.copy(tmp_path / "away.db", tmp_path / "policy.db")
    with open_store(str(tmp_path / "policy.db")) as store:
        store.activate(store.commit(DENY, author="ann", message="m", parent=store.head()), "ann")
    until(lambda: is_denied(agent), "the policy of the database")


def test_without_any_policy_every_connection_is_denied(start, database: Store) -> None:
    agent = start()
    assert agent.event("policy")["source"] == "none"
    assert is_denied(agent)


def test_a_database_that_goes_takes_nothing_away(start, activate: Activate, tmp_path: Path) -> None:
    activate(DENY)
    agent = start()
    with sqlite3.connect(tmp_path / "policy.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for file in tmp_path.glob("policy.db*"):
        file.unlink()
    agent.event("database")
    assert is_denied(agent)


def test_the_commands_of_the_page_work(activate: Activate, tmp_path: Path) -> None:
    """docs/database.md, "Following", with paths of this test; the program tries one connection."""
    activate(DENY)
    page = Path(__file__).parents[2].joinpath("docs/database.md").read_text()
    agent, run = page.split("## Following\n```sh\n")[1].split("```")[0].splitlines()
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for theirs, ours in {
        "/run/ktls/agent": tmp_path / "r" / "agent",
        "postgresql://ktls@db.example/policy": tmp_path / "policy.db",
    }.items():
        assert theirs in agent
        agent = agent.replace(theirs, str(ours))
    with subprocess.Popen(["/bin/sh", "-c", f"exec {agent}"], env=environment) as process:
        until((tmp_path / "r" / "agent").exists, "the agent's socket")
        process.terminate()
    run = run.replace("/var/lib/ktls/policy.db", str(tmp_path / "policy.db"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{listener.getsockname()[1]}'"
        words = ["/bin/sh", "-c", run.replace("redis-server", program)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert "Permission denied" in done.stderr

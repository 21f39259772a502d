"""An agent in a process of its own, and files that change under it. What clients get: tests/e2e/test_renewal.py."""

import signal
from pathlib import Path

from ktls.agent import messages as m
from tests.agent.agent_process import AgentProcess, tcp_pair, until
from tests.agent.conftest import StartAgent

DENY = '[[rule]]\nname = "all"\nverdict = "deny"\n'


def policy_file(agent: AgentProcess) -> Path:
    return agent.log.with_name("policy.toml")


def is_denied(agent: AgentProcess) -> bool:
    client, server = tcp_pair()
    with client, agent.shim().ask(server, accepted=True) as gated:
        return gated.verdict()[0] is m.VerdictCode.DENY


def test_another_policy_decides_the_next_connection_and_a_comment_changes_nothing(start_agent: StartAgent) -> None:
    agent = start_agent()
    file = policy_file(agent)
    file.write_text(file.read_text() + "# a comment\n")
    file.write_text("# another\n" + file.read_text().replace('verdict = "tls"', 'verdict = "deny"'))
    until(lambda: is_denied(agent), "the new policy")
    assert len(agent.events("policy")) == 1


def test_a_policy_that_is_gone_or_empty_stays_in_force_and_is_said_once_each(start_agent: StartAgent) -> None:
    agent = start_agent(policy=DENY)
    file = policy_file(agent)
    good = file.read_text()
    file.unlink()
    assert "No such file" in agent.event("refused")["message"]
    file.write_text("")
    until(lambda: len(agent.events("refused")) == 2, "the second complaint")
    assert "version" in agent.events("refused")[1]["message"]
    assert is_denied(agent)
    file.write_text(good)
    assert agent.event("restored")["what"] == "policy"
    assert agent.events("policy") == []


def test_what_happens_beside_the_files_is_nobodys_business(start_agent: StartAgent) -> None:
    agent = start_agent()
    for number in range(50):
        (policy_file(agent).parent / f"other{number}").write_text("x")
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(20) == 0
    assert agent.events() == []

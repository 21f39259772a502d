"""What the policy is told of a connection, and what an observing agent does about it."""

import json
import os
import socket
from pathlib import Path

import pytest

from ktls.agent.asked import Asked
from ktls.agent.deciding import decide_asked
from ktls.agent.firsts import Firsts
from ktls.agent.messages import Request, RequestKind, VerdictCode
from ktls.agent.programs import program_of
from policy.load import parse
from policy.model import Verdict
from tests.agent.agent_process import until
from tests.agent.conftest import StartAgent

POLICY = b"""
version = 1
[[rule]]
name = "ours"
direction = "outbound"
remote = ["192.0.2.7"]
remote_port = ["443"]
remote_name = ["a.example"]
program = ["*python*"]
verdict = "deny"
"""


@pytest.mark.parametrize(
    ("kind", "name", "verdict"),
    [
        (RequestKind.CONNECT, "a.example", Verdict.DENY),
        (RequestKind.CONNECT, None, Verdict.CLEAR),
        (RequestKind.ACCEPT, None, Verdict.CLEAR),
    ],
)
def test_policy_sees_the_connection_and_the_program(kind: RequestKind, name: str | None, verdict: Verdict) -> None:
    policy = parse(POLICY, Path("p.toml"))
    request = Request(kind, False, 0, ("192.0.2.7", 443), name)
    with socket.socket() as r, socket.socket() as b:
        asked = Asked(request, r, b, program_of(os.getpid(), os.getuid(), os.getgid()))
        decided = decide_asked(policy, asked, ("10.0.0.1", 5), ("192.0.2.7", 443), name, Firsts())
    assert decided.decision.verdict is verdict
    assert (decided.role, decided.first) == (None, None)


def test_an_observing_agent_says_what_it_would_do_and_leaves_the_connection_clear(
    start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "state" / "records.jsonl"
    monkeypatch.setenv("KTLS_RECORDS", str(records))
    agent = start_agent(policy='mode = "observe"\n[[rule]]\nname = "all"\nverdict = "tls"\naction = "a"\n')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with client, listener.accept()[0]:
            gated = agent.shim().ask(client)
            assert gated.verdict()[0] is VerdictCode.CLEAR
            gated.a.close()
    event = agent.event("observed")
    assert (event["verdict"], event["rule"]) == ("tls", "all")
    kept, *_ = until(lambda: records.exists() and records.read_text().splitlines(), "the record")
    assert json.loads(kept)["event"] == "observed"

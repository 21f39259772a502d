"""A policy exchanged under connections that live on: which of them it concerns."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ktls.agent.deciding import Standing
from ktls.agent.main import open_keyrings
from ktls.agent.report import Report
from ktls.agent.shared import Shared
from ktls.agent.swap import Swap, keyrings_of
from ktls.errors import KeyringError
from policy.decide import decide
from policy.load import parse
from policy.model import Facts, Policy

TEXT = """
version = 1
[[rule]]
name = "a"
direction = "outbound"
remote_port = ["443"]
verdict = "tls"
action = { on_change = "close" }
[[rule]]
name = "b"
direction = "outbound"
remote_port = ["444"]
verdict = "tls"
action = { on_change = "keep" }
"""
NAMED = TEXT.replace("{ on", '{ keyring = "k", on')


class Living:
    """A connection that only writes down what it is told."""

    def __init__(self, policy: Policy, port: int) -> None:
        facts = Facts(direction="outbound", remote=("192.0.2.1", port), when=datetime.now(UTC))
        decision = decide(policy, facts)
        assert decision.action is not None
        self.standing = Standing(facts, decision.rule, decision.action)
        self.told: list[str] = []

    def change(self, why: str) -> None:
        self.told.append(why)


def policy_of(text: str) -> Policy:
    return parse(text.encode(), Path("/policy.toml"))


@contextmanager
def swapping(text: str, log: Path, *, observe: bool = False) -> Iterator[tuple[Swap, Shared, list[Living]]]:
    policy = policy_of(text)
    shared = Shared(policy, Report(log))
    living = [Living(policy, 443), Living(policy, 444)]
    yield Swap(shared, open_keyrings(policy), lambda: living, observe=observe), shared, living
    shared.close()


async def use(swap: Swap, policy: Policy) -> None:
    """As from another thread; then the loop has its turn."""
    await asyncio.to_thread(swap.use, policy)
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('["443"]', '["440-443"]', "rule a has changed"),
        ('name = "a"', 'name = "c"', "rule a is gone"),
        ("version = 1", 'version = 1\n[[rule]]\nname = "z"\npriority = 2\nverdict = "deny"', "decided by rule z"),
        ('["444"]', '["445"]', None),
        ("version = 1", "version = 1 # hello", None),
    ],
)
async def test_those_whose_rule_is_another_now_are_told(tmp_path: Path, old: str, new: str, why: str | None) -> None:
    with swapping(TEXT, tmp_path / "log") as (swap, shared, (a, b)):
        policy = policy_of(TEXT.replace(old, new))
        await use(swap, policy)
        assert shared.policy == policy
        assert [why is not None and why in told for told in a.told] == ([True] if why else [])
        assert b.told == []  # "keep": it is not even asked


async def test_the_report_tells_of_the_exchange(tmp_path: Path) -> None:
    with swapping(TEXT, tmp_path / "log") as (swap, shared, _):
        before = shared.policy.revision
        await use(swap, policy_of(TEXT.replace("443", "442")))
        line: dict[str, Any] = json.loads((tmp_path / "log").read_text())
    assert (line["event"], line["before"], line["rules"], line["changed"]) == ("policy", before, 2, 1)
    assert line["revision"] != before


async def test_an_observing_agent_goes_on_observing(tmp_path: Path) -> None:
    with swapping(TEXT, tmp_path / "log", observe=True) as (swap, shared, _):
        await use(swap, policy_of(TEXT.replace("443", "442")))
        assert shared.policy.mode == "observe"


async def test_a_new_keyring_is_opened_before_and_a_bad_one_changes_nothing(tmp_path: Path, tls_files: Any) -> None:
    keyring = f'[keyring.k]\ncertificate = "{tls_files.cert}"\nprivate_key = "{{}}"\n'
    with swapping(TEXT, tmp_path / "log") as (swap, shared, _):
        before = shared.policy
        with pytest.raises(KeyringError):
            await use(swap, policy_of(NAMED + keyring.format(tls_files.client_key)))
        assert shared.policy is before
        good = policy_of(NAMED + keyring.format(tls_files.key))
        await use(swap, good)
        assert all(swap.content(one) for one in keyrings_of(good) if one.certificate)

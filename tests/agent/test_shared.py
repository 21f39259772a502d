"""What connections ask of the agent together."""

from collections.abc import AsyncIterator

import pytest

from ktls.agent import shared as module
from ktls.agent.report import Report
from ktls.agent.shared import Shared
from policy.model import Verdict
from policy.snapshot import build


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    made = Shared(build((), Verdict.CLEAR), Report(None))
    yield made
    made.close()


async def test_one_look_answers_all_who_ask_for_holders_at_once(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[frozenset[int]] = []

    def look(inodes: frozenset[int]) -> frozenset[int]:
        looks.append(inodes)
        return frozenset({2})

    monkeypatch.setattr(module, "holders", look)
    answers = [shared.loop.create_task(shared.held(inode)) for inode in (1, 2, 2, 3)]
    assert [await answer for answer in answers] == [False, True, True, False]
    assert looks == [frozenset({1, 2, 3})]


async def test_when_the_look_fails_nobody_waits_for_ever(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: frozenset[int]) -> frozenset[int]:
        raise FileNotFoundError("/proc")

    monkeypatch.setattr(module, "holders", fail)
    for _ in range(2):  # nor who asks later
        with pytest.raises(FileNotFoundError):
            await shared.held(1)

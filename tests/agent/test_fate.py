"""Draining and looking at keys, with a line whose bytes the test moves. Real ones are in tests/e2e/test_fate.py."""

import asyncio

import pytest

from ktls.agent.fate import Fate
from ktls.agent.serving import Served
from policy.model import Action, Rekey


class Line:
    """An open connection of which nothing is real but the numbers."""

    def __init__(self, why_not: str = "") -> None:
        self.why_not, self.count, self.bytes, self.unread = why_not, 0, 0, 0
        self.did: list[str] = []

    async def serve(self) -> Served:
        return Served(None)

    def stop(self) -> bool:
        return False

    def close(self) -> None:
        self.did.append("close")

    def rekey(self) -> str:
        self.did.append("rekey")
        self.count = 0
        return self.why_not

    def records(self) -> int:
        return self.count

    def moved(self) -> tuple[int, ...]:
        return (self.bytes,)

    def waiting(self) -> int:
        return self.unread


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ktls.agent.fate.IDLE", 0.08)
    monkeypatch.setattr("ktls.agent.fate.LOOK", 0.01)


def fate_of(line: Line, action: Action) -> tuple[Fate, list[dict[str, object]]]:
    told: list[dict[str, object]] = []
    tell = lambda event, **facts: told.append({"event": event} | facts)  # noqa: E731
    return Fate(line, action, tell, asyncio.get_running_loop()), told


async def until_closed(line: Line) -> None:
    async with asyncio.timeout(20):
        while "close" not in line.did:
            await asyncio.sleep(0.01)


async def test_what_lies_unread_is_not_idle() -> None:
    line = Line()
    line.unread = 1
    fate, _ = fate_of(line, Action(on_change="drain"))
    fate.change("why")
    await asyncio.sleep(0.3)
    assert line.did == []
    line.unread = 0
    await until_closed(line)
    assert fate.closed == "why"
    fate.done()


async def test_keys_that_cannot_be_changed_wait_for_an_idle_moment_however_long(monkeypatch) -> None:
    monkeypatch.setattr("ktls.agent.fate.DRAIN", 0.01)
    line = Line("it cannot")
    line.count, line.unread = 5, 1
    fate, told = fate_of(line, Action(rekey=Rekey(5, 0)))
    while not told:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert line.did == ["rekey"]
    assert (told[0]["does"], told[0]["message"]) == ("drain", "it cannot")
    fate.change("nothing: the default is to keep")
    line.unread = 0
    await until_closed(line)
    assert fate.closed == "5 records under one key"
    fate.done()


async def test_a_change_has_less_patience_than_a_key(monkeypatch) -> None:
    monkeypatch.setattr("ktls.agent.fate.DRAIN", 0.1)
    line = Line("it cannot")
    line.count, line.unread = 5, 1
    fate, told = fate_of(line, Action(on_change="drain", rekey=Rekey(5, 0)))
    while not told:
        await asyncio.sleep(0.01)
    fate.change("the rule")
    await until_closed(line)
    assert fate.closed == "the rule"
    fate.done()


async def test_keys_are_changed_again_and_again() -> None:
    line = Line()
    fate, told = fate_of(line, Action(rekey=Rekey(5, 0)))
    for turn in range(3):
        line.count = 5
        while len(told) <= turn:
            await asyncio.sleep(0.01)
    assert line.did == ["rekey"] * 3
    fate.done()


async def test_nothing_happens_to_a_connection_that_has_ended() -> None:
    line = Line()
    fate, _ = fate_of(line, Action(on_change="drain"))
    fate.change("why")
    fate.done()
    await asyncio.sleep(0.3)
    assert line.did == []

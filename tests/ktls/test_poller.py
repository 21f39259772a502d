"""One epoll set for many sockets: edges, fairness, removal."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from ktls.poller import END, GONE, IN, OUT, Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


def test_what_is_ready_is_told_once(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    told: list[int] = []
    poller.add(pair[0].fileno(), IN, told.append)
    pair[1].send(b"x")
    poller.turn(1)
    poller.turn()
    assert told == [IN]
    pair[1].send(b"y")
    poller.turn(1)
    assert told == [IN, IN]


def test_change_tells_again_what_is_ready(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    told: list[int] = []
    poller.add(pair[0].fileno(), IN, told.append)
    poller.turn()
    poller.change(pair[0].fileno(), IN | OUT)
    poller.turn(1)
    assert told == [OUT]


def test_a_hang_up_can_be_watched_for_alone(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    told: list[int] = []
    poller.add(pair[0].fileno(), 0, told.append)
    pair[1].send(b"x")
    pair[1].shutdown(socket.SHUT_WR)
    poller.turn()
    assert told == []
    pair[1].close()
    poller.turn(1)
    assert told[0] & GONE


def test_the_end_of_the_others_sending_is_told_apart_from_a_hang_up(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    told: list[int] = []
    poller.add(pair[0].fileno(), IN | END, told.append)
    pair[1].shutdown(socket.SHUT_WR)
    poller.turn(1)
    assert told[0] & END
    assert not told[0] & GONE


def test_who_was_removed_in_this_turn_is_not_called(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    told: list[str] = []
    fds = {"first": pair[0].fileno(), "second": pair[1].fileno()}

    def remover(name: str, other: str) -> None:
        told.append(name)
        poller.remove(fds[other])
        poller.remove(fds[other])  # twice is harmless

    poller.add(fds["first"], OUT, lambda _: remover("first", "second"))
    poller.add(fds["second"], OUT, lambda _: remover("second", "first"))
    poller.turn(1)
    assert len(told) == 1


def test_who_wants_another_turn_gets_it_after_those_who_are_ready(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    told: list[str] = []

    def greedy() -> None:
        told.append("greedy")
        if told.count("greedy") < 3:
            poller.again(greedy)

    poller.add(pair[0].fileno(), OUT, lambda _: told.append("ready"))
    poller.again(greedy)
    assert poller.turn(10) is True  # and does not wait for events
    assert poller.turn(10) is True
    assert poller.turn(10) is False
    assert told == ["greedy", "ready", "greedy", "greedy"]


async def test_a_callback_that_raises_costs_the_others_of_its_turn_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Edges are told once: what is not passed on in its turn would be lost, and a connection of another hang."""
    loop = asyncio.get_running_loop()
    failed: list[Exception] = []
    loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
    poller = Poller(loop)
    called: list[int] = []
    done = asyncio.Event()

    def stumble(fd: int) -> None:
        called.append(fd)
        if len(called) == 3:
            done.set()
        raise ZeroDivisionError

    poller.add(pair[0].fileno(), OUT, lambda _: stumble(0))
    poller.add(pair[1].fileno(), OUT, lambda _: stumble(1))
    poller.again(lambda: stumble(2))
    await asyncio.wait_for(done.wait(), 10)
    assert sorted(called) == [0, 1, 2]
    assert [type(error) for error in failed] == [ZeroDivisionError] * 3
    poller.close()


async def test_in_a_loop_it_turns_by_itself(pair: tuple[socket.socket, socket.socket]) -> None:
    poller = Poller(asyncio.get_running_loop())
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    turns: list[int] = []

    def again() -> None:
        turns.append(1)
        if len(turns) < 5:
            poller.again(again)
        else:
            done.set_result(len(turns))

    poller.add(pair[0].fileno(), IN, lambda _: again())
    pair[1].send(b"x")
    assert await asyncio.wait_for(done, 10) == 5
    poller.close()

"""Nodes: what they leave out, and what they look at."""

from datetime import UTC, datetime

from policy.match import subject
from policy.model import Facts, Match, NumberRange
from policy.tree import NEVER, Entry, Leaf, Line, Table

HAS = subject(Facts(direction="outbound", remote=("10.0.0.1", 443), when=datetime(2026, 1, 5, tzinfo=UTC)))


def leaf(*ranks: int) -> Leaf:
    return Leaf([Entry(rank, Match(), ()) for rank in ranks])


def test_an_empty_leaf_comes_after_everything():
    assert (leaf().least, leaf().first(HAS, NEVER)) == (NEVER, NEVER)


def test_a_leaf_tries_the_keys_that_are_not_settled():
    match = Match(remote_port=(NumberRange(80, 80),))
    assert Leaf([Entry(1, match, ("remote_port",)), Entry(2, match, ())]).first(HAS, NEVER) == 2


def test_what_comes_after_the_best_so_far_is_left_out():
    class Untouched(Leaf):
        def first(self, has, best):
            raise AssertionError("looked at")

    later = Untouched([Entry(9, Match(), ())])
    assert Table(lambda _: ("a",), {"a": leaf(3)}, later).first(HAS, NEVER) == 3
    assert Line(lambda _: 5, {(4, 7): leaf(3), (5, 5): leaf(1), (0, 3): later}, later).first(HAS, NEVER) == 1


def test_every_rule_that_fits_is_found():
    line = Line(lambda _: 5, {(4, 7): leaf(3), (5, 5): leaf(1), (0, 3): leaf(2)}, leaf(8))
    assert sorted(line.every(HAS)) == [1, 3, 8]
    assert sorted(Table(lambda _: ("a", "b"), {"a": leaf(3), "c": leaf(4)}, leaf(8)).every(HAS)) == [3, 8]
    assert list(Line(lambda _: None, {(4, 7): leaf(3)}, leaf()).every(HAS)) == []

import random

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from policy.store.connect import make_engine, read_url, reading
from policy.store.pieces import Piece
from policy.store.schema import entry, piece
from policy.store.write import STEP, plan


def pieces(names):
    return [Piece("rule", name, 0, "{}", name) for name in names]


def places(names, positions):
    return [(one.hash, position, 1) for one, position in zip(pieces(names), positions, strict=True)]


def after(old, planned):
    """Return the names in order when a plan has been carried out."""
    names = {one.hash: one.name for one in pieces("abcdefgh")}
    left = [
        (position, names[found]) for found, position, since in old if (found, position, since) not in planned.closed
    ]
    return "".join(name for _, name in sorted(left + [(position, one.name) for position, one in planned.opened]))


ORDERS = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(ORDERS, ORDERS, st.integers(1, 4))
def test_any_order_becomes_any_other(old, new, step):
    before = places(old, range(step, step * (len(old) + 1), step))
    planned = plan(before, pieces(new))
    assert after(before, planned) == "".join(new)
    positions = [position for position, _ in planned.opened]
    assert positions == sorted(set(positions))
    assert all(position > 0 for position in positions)


def test_one_rule_in_the_middle_is_one_entry():
    old = places("abc", (STEP, 2 * STEP, 3 * STEP))
    planned = plan(old, pieces("abdc"))
    assert planned.closed == ()
    assert [(position, one.name) for position, one in planned.opened] == [(2 * STEP + STEP // 2, "d")]


def test_where_no_place_is_left_all_get_new_ones():
    planned = plan(places("ab", (1, 2)), pieces("acb"))
    assert len(planned.closed) == 2
    assert [position for position, _ in planned.opened] == [STEP, 2 * STEP, 3 * STEP]


def document(numbers):
    return "version = 1\n" + "".join(f'[[rule]]\nname = "{number}"\nverdict = "deny"\n' for number in numbers)


def test_a_change_of_one_rule_writes_one_piece_and_one_entry(store, url):
    text = document(range(200))
    first = store.commit(text, author="ann", message="begin", parent=None)
    changed = text.replace('"77"\nverdict = "deny"', '"77"\nverdict = "clear"')
    second = store.commit(changed, author="ann", message="one", parent=first)
    engine = make_engine(read_url(url))
    with reading(engine) as connection:
        counts = [connection.scalar(select(func.count()).select_from(table)) for table in (piece, entry)]
    engine.dispose()
    assert counts == [202, 202]
    assert (store.document(first), store.document(second)) == (text, changed)


def test_rules_shuffled_over_and_over_come_back_in_order(store):
    chance = random.Random(4)
    numbers = list(range(8))
    texts, head = [], None
    for _ in range(12):
        chance.shuffle(numbers)
        texts.append(document(numbers[: chance.randrange(1, 9)]))
        head = store.commit(texts[-1], author="ann", message="shuffle", parent=head)
    assert [store.document(number) for number in range(1, 13)] == texts

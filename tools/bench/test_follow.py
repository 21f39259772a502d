"""From an activation until the last follower has the policy: 200 of them on one PostgreSQL, and on one SQLite file at
most a second.

`make bench` prints the numbers; the everyday run only sees that each of a few gets each policy once. The followers live
in processes of 25, so that they do not wait for one another as they would in one.
"""

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest

from policy.store import Store, open_store
from tests.policy.store.postgresql import make_server

EACH = 25
FOLLOWERS = {"postgresql": 200, "sqlite": 25}
RULES = [1, 200]
ROUNDS = 10

PROCESS = """
import sys, threading
from policy.store.follow import Follower

url, number = sys.argv[1], int(sys.argv[2])
writing = threading.Lock()

def tell(word):
    with writing:
        print(word, flush=True)

def complain(text):
    print(text, file=sys.stderr)

# The net is a day wide: what is measured is the notification.
followers = [
    Follower(url, snapshot=None, deliver=lambda got: tell(got.number), say=complain, poll=86400) for _ in range(number)
]
for follower in followers:
    tell(follower.start().number)
sys.stdin.read()
for follower in followers:
    follower.stop()
"""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path) -> Iterator[str]:
    """An empty database of the kind asked for."""
    if request.param == "sqlite":
        yield f"{tmp_path}/policy.db"
        return
    server = make_server()
    yield server.url()
    server.remove()


def document(rules: int, word: str) -> str:
    """A policy of so many rules, each with the word in its name."""
    texts = (
        f'[[rule]]\nname = "{word} {number}"\nremote = ["10.{number}.0.0/16"]\nverdict = "deny"\n'
        for number in range(rules)
    )
    return "version = 1\n" + "".join(texts)


@pytest.mark.slow
@pytest.mark.parametrize("rules", RULES)  # one: the way alone; a site's policy: each follower compiles it
@pytest.mark.parametrize("url", ["postgresql", "sqlite"], indirect=True)
@pytest.mark.benchmark(group="activation")
def test_from_an_activation_until_the_last_has_it(benchmark, url, rules):
    followers = FOLLOWERS["postgresql" if "postgresql" in url else "sqlite"] if benchmark.enabled else 4
    each = EACH if benchmark.enabled else 2
    with open_store(url, upgrade=True) as store:
        head = store.commit(document(rules, "first"), author="bench", message="first", parent=None)
        store.activate(head, "bench")
        words = [sys.executable, "-c", PROCESS, url, str(each)]
        processes = [
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(followers // each)
        ]
        try:
            assert heard(processes, each) == {1}
            committed = itertools.count(2)

            def commit() -> tuple[tuple[Store, int], dict[str, object]]:
                number = next(committed)
                store.commit(document(rules, f"at {number}"), author="bench", message="more", parent=number - 1)
                return (store, number), {}

            def activate(store: Store, number: int) -> None:
                store.activate(number, "bench")
                assert heard(processes, each) == {number}

            benchmark.pedantic(activate, setup=commit, rounds=ROUNDS if benchmark.enabled else 2)
        finally:
            rest = [process.communicate()[0] for process in processes]
    assert rest == [""] * len(processes), "each comes once"
    assert {process.returncode for process in processes} == {0}
    benchmark.extra_info["followers"] = followers


def heard(processes: list[subprocess.Popen[str]], each: int) -> set[int]:
    """Read one number of each follower."""
    return {int(process.stdout.readline()) for process in processes for _ in range(each) if process.stdout}

"""How long a decision takes, by the number of rules: at 100,000 at most 15 us at the median and 60 us at the 99th of
a hundred, compiled in at most 10 s and 500 MB. Beside it a plain scan, and a prefix library on the address part alone.

`make bench` prints the numbers; the everyday run only sees that each way gives the same answers.
"""

import itertools
import resource

import pytest

from policy.classify import Classifier
from policy.decide import decide
from policy.match import failing, subject
from policy.model import AddressRange, Verdict
from policy.snapshot import build
from tools.bench.rules import connections, many_rules

COUNTS = [10, 1_000, 10_000, 100_000]
ROUNDS = 20_000


@pytest.fixture
def number(request, benchmark) -> int:
    """How many rules; few where nothing is measured."""
    return request.param if benchmark.enabled else min(request.param, 1000)


def each(benchmark, call, arguments) -> None:
    """Time single calls, with other arguments each time; median and 99th of a hundred go into the report."""
    turn = itertools.cycle(arguments)
    benchmark.pedantic(call, setup=lambda: ((next(turn),), {}), rounds=ROUNDS, warmup_rounds=500)
    if benchmark.stats:
        data = sorted(benchmark.stats.stats.data)
        benchmark.extra_info["p50_us"] = round(data[len(data) // 2] * 1e6, 1)
        benchmark.extra_info["p99_us"] = round(data[len(data) * 99 // 100] * 1e6, 1)


@pytest.mark.parametrize("number", COUNTS, indirect=True)
@pytest.mark.benchmark(group="decision")
def test_decision(benchmark, number):
    policy = build(many_rules(number), Verdict.CLEAR)
    each(benchmark, lambda facts: decide(policy, facts), connections(list(policy.rules), 5000))


@pytest.mark.parametrize("number", COUNTS[:3], indirect=True)
@pytest.mark.benchmark(group="plain scan")
def test_plain_scan(benchmark, number):
    rules = many_rules(number)
    asked = [subject(facts) for facts in connections(rules, 50)]
    classifier = Classifier(rules)

    def scan(has):
        return next((rule for rule in rules if failing(rule.match, has) is None), None)

    assert [scan(has) for has in asked] == [classifier.first(has) for has in asked]
    benchmark(lambda: [scan(has) for has in asked])
    benchmark.extra_info["decisions"] = len(asked)


@pytest.mark.parametrize("number", COUNTS, indirect=True)
@pytest.mark.benchmark(group="prefixes alone")
def test_prefix_library(benchmark, number):
    """pytricia finds the longest prefix of an address: one part of a decision, in C."""
    pytricia = pytest.importorskip("pytricia", reason="pip install 'ktls[bench]'")
    rules = many_rules(number)
    trie = pytricia.PyTricia(128)
    for rank, rule in enumerate(rules):
        for one in rule.match.remote:
            trie.insert(prefix(one), rank)
    asked = [facts.remote[0] for facts in connections(rules, 5000)]
    each(benchmark, trie.get, asked)


def prefix(one: AddressRange) -> str:
    return one.text


@pytest.mark.parametrize("number", COUNTS[-1:], indirect=True)
@pytest.mark.benchmark(group="compile")
def test_compile(benchmark, number):
    rules = many_rules(number)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    benchmark.pedantic(Classifier, args=(rules,), rounds=1)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    benchmark.extra_info["megabytes"] = used // 1024

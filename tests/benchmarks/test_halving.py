from __future__ import annotations

import random

import pytest

from boardfit.benchmarks.halving import TAIL_RUNS, Runs, halve, rungs, survivors


@pytest.mark.parametrize(
    ("whole", "count", "expected"),
    [(16, 4, (2, 2, 4, 8)), (16, 1, (16,)), (1, 4, (1,)), (3, 4, (1, 2)), (2, 4, (1, 1))],
    ids=str,
)
def test_each_rung_doubles_what_a_candidate_has_had(whole, count, expected):
    assert rungs(whole, count) == expected
    assert sum(expected) == whole


@pytest.mark.parametrize(("candidates", "left"), [(12, 6), (5, 3), (3, 2), (2, 2), (1, 1), (0, 0)])
def test_half_of_them_survive_but_two_at_least(candidates, left):
    assert survivors(candidates) == left


def test_the_best_gets_all_rounds_and_the_worst_few():
    costs = {name: 1.0 + 0.1 * index for index, name in enumerate("abcdefghijkl")}
    log = []

    def measure(rung, left, rounds):
        log.append((rung, "".join(left), rounds))
        return {name: Runs((costs[name],) * rounds) for name in left}

    had = halve(list(costs), (2, 2, 4, 8), measure)
    assert log == [(0, "abcdefghijkl", 2), (1, "abcdef", 2), (2, "abc", 4), (3, "ab", 8)]
    assert [len(had[name].values_s) for name in "abcdg"] == [16, 16, 8, 4, 2]


def test_half_of_the_runs_find_the_best_under_noise_nearly_always():
    """A scripted board: 12 candidates 4 % apart, 10 % of noise; the pick is within 3 % of the best."""
    costs = {index: 1.0 + 0.04 * index for index in range(12)}
    good = 0
    for seed in range(100):
        dice = random.Random(seed)

        def measure(_, left, rounds, dice=dice):
            return {
                item: Runs(tuple(costs[item] * dice.uniform(0.95, 1.05) for _ in range(6 * rounds)))
                for item in left
            }

        order = list(costs)
        dice.shuffle(order)
        had = halve(order, (1, 1, 2, 4, 8), measure)
        most = max(len(runs.values_s) for runs in had.values())
        best = min((item for item in had if len(had[item].values_s) == most), key=lambda i: had[i].cost)
        good += costs[best] <= 1.03
    assert good >= 95


def test_a_candidate_that_fails_is_given_up():
    def measure(rung, left, _):
        return {name: Runs((1.0,)) for name in left if not (name == "b" and rung == 1)}

    had = halve(["a", "b", "c"], (1, 1, 1), measure)
    assert "b" not in had and len(had["a"].values_s) == 3


def test_few_runs_are_ranked_by_their_median_and_many_by_their_tail():
    few = Runs((1.0,) * 9 + (100.0,))
    assert few.cost == 1.0
    many = Runs((1.0,) * (TAIL_RUNS - 10) + (100.0,) * 10)
    assert many.cost == 100.0
    assert Runs((1.0,), (3.0, 5.0)).cost == 4.0

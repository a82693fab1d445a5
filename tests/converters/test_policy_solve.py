"""Replay and choice on made-up evidence whose best policy is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boardfit.converters.policy_answers import Answers, answers_of, chains
from boardfit.converters.policy_candidates import candidates, family_of
from boardfit.converters.policy_fit import Goal, fit, fit_table, goal_of
from boardfit.converters.policy_solve import (
    best_mix,
    choose,
    interval,
    oracle,
    replay,
    split,
)
from boardfit.errors import InputError, RecipeError
from boardfit.runtime.decode.classify import average
from boardfit.runtime.results import Classes
from boardfit.runtime.times import Times
from boardfit.specs import PolicySpec

SIZES = (16, 24, 32)
TIMES = Times(look_s=(0.25, 0.5, 1.0), switch_s=0.0, entropy_s=0.0)


def evidence(count: int = 600, *, confidence_knows: bool = True, seed: int = 0) -> Answers:
    """The smallest size is wrong on 30 %; its doubt says so, or says nothing."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 10, count)
    wrong = rng.random((3, count)) < np.array([[0.3], [0.15], [0.02]])
    top1 = np.where(wrong, (truth + 1) % 10, truth)
    doubt = np.abs(np.where(wrong, 0.8, 0.2) + rng.normal(0, 0.08, (3, count)))
    if not confidence_knows:
        doubt = rng.permuted(doubt, axis=1)
    return Answers(
        sizes=SIZES,
        bits=rng.uniform(3.0, 7.9, count),
        # The average of looks is the last one's answer.
        top1={chain: top1[chain[-1]] for chain in chains(3)},
        doubt_bits={chain: doubt[chain[-1]] for chain in chains(3)},
        truth=truth,
    )


def small(**changes) -> Answers:
    """Four images: bits 2, 4, 6, 7.5; doubt of the small size 0 to 0.9; the small one errs on the last."""
    doubt = np.array([0.0, 0.3, 0.6, 0.9])
    base = {
        "sizes": (16, 32),
        "bits": np.array([2.0, 4.0, 6.0, 7.5]),
        "top1": {(0,): np.array([1, 2, 3, 9]), (1,): np.array([1, 2, 3, 4]), (0, 1): np.array([1, 2, 3, 7])},
        "doubt_bits": {(0,): doubt, (1,): np.zeros(4), (0, 1): doubt / 2},
        "truth": np.array([1, 2, 3, 4]),
    }
    return Answers(**{**base, **changes})


PAIR = Times(look_s=(1.0, 4.0), switch_s=0.5, entropy_s=0.1)


def test_fixed_takes_its_own_time_and_no_entropy():
    found = replay(PolicySpec("fixed", (16,)), small(), PAIR)
    assert (found.score, found.time_s) == (75.0, 1.0)


def test_entropy_takes_the_size_of_its_band_and_pays_for_changes():
    found = replay(PolicySpec("entropy", (16, 32), (6.0,)), small(), PAIR)
    # 16, 16, 32, 32: one change of size; at a threshold the larger size.
    assert found.looks.tolist() == [0.5, 0.5]
    assert found.time_s == pytest.approx((1 + 1 + 4 + 4 + 0.5) / 4 + 0.1)
    assert found.score == 100.0


def test_two_look_looks_again_above_its_bound_and_pays_both_ways():
    spec = PolicySpec("two-look", (16, 32), (9.0,), second_look_bits=0.5)
    found = replay(spec, small(), PAIR)
    # 16 | 16 | 16 -> 32 | (back to) 16 -> 32: two changes up, one back; no entropy is needed.
    assert found.times_s.tolist() == [1.0, 1.0, 5.5, 6.0]
    assert found.score == 100.0


def test_each_kind_pays_its_own_change_of_size():
    times = replace(PAIR, two_look_switch_s=0.125)
    spec = PolicySpec("two-look", (16, 32), (9.0,), second_look_bits=0.5)
    assert replay(spec, small(), times).times_s.tolist() == [1.0, 1.0, 5.125, 5.25]
    entropy = PolicySpec("entropy", (16, 32), (6.0,))
    assert replay(entropy, small(), times).time_s == replay(entropy, small(), PAIR).time_s


def test_averaging_takes_the_recorded_mean():
    spec = PolicySpec("two-look", (16, 32), (9.0,), second_look_bits=0.8, average=True)
    assert replay(spec, small(), PAIR).hits.tolist() == [True, True, True, False]


def three(**changes) -> Answers:
    """Three images that stop at the first, the second and the third look; an average errs on the last."""
    right = np.array([1, 2, 3])
    doubt = {0: np.array([0.1, 0.9, 0.9]), 1: np.array([0.1, 0.2, 0.8]), 2: np.zeros(3)}
    top1 = dict.fromkeys(chains(3), right)
    top1 |= {(0,): np.array([1, 9, 9]), (1,): np.array([1, 2, 9]), (0, 1, 2): np.array([1, 2, 9])}
    doubt_bits = {chain: doubt[chain[-1]] for chain in chains(3)}
    return Answers(sizes=SIZES, bits=np.full(3, 5.0), top1=top1, doubt_bits=doubt_bits, truth=right)


def test_a_third_look_follows_where_the_second_is_in_doubt_too():
    spec = PolicySpec("two-look", SIZES, (9.0, 9.0), second_look_bits=0.5, third_look_bits=0.5)
    found = replay(spec, three(), replace(TIMES, switch_s=0.125))
    # 16 | (from 16) 16 -> 24 | (back from 24 to) 16 -> 24 -> 32
    assert found.times_s.tolist() == [0.25, 0.75 + 0.125, 1.75 + 3 * 0.125]
    assert found.hits.all() and found.looks == pytest.approx([1 / 3] * 3)
    averaged = replay(replace(spec, average=True), three(), TIMES)
    assert averaged.hits.tolist() == [True, True, False]


def test_evidence_from_scores_averages_the_looks_as_the_runtime_does():
    scores = np.array([[[0.6, 0.4, 0.0]], [[0.3, 0.7, 0.0]], [[0.0, 0.1, 0.9]]])
    found = answers_of(SIZES, bits=np.array([5.0]), scores=scores, truth=None)
    first, second, third = (Classes(look[0], "softmax") for look in scores)
    both = average(first, second)
    assert found.top1[(0, 1)] == both.scores.argmax() == 1
    assert found.doubt_bits[(0, 1)] == pytest.approx(both.doubt_bits)
    assert found.doubt_bits[(0, 1, 2)] == pytest.approx(average(both, third).doubt_bits)


def test_without_labels_the_largest_size_is_right():
    found = replay(PolicySpec("fixed", (16,)), small(truth=None), PAIR)
    assert found.hits.tolist() == [True, True, True, False]


def test_a_confident_net_gets_two_looks():
    chosen = choose(evidence(), TIMES, max_drop=1.0, max_time=None)
    assert chosen.kind == "two-look"
    base = replay(PolicySpec("fixed", (32,)), evidence(seed=1), TIMES)
    found = replay(chosen, evidence(seed=1), TIMES)
    assert found.time_s < 0.75 * base.time_s
    assert found.score > base.score - 2.0


def test_where_no_signal_knows_anything_one_fixed_size_is_written():
    chosen = choose(evidence(confidence_knows=False), TIMES, max_drop=0.5, max_time=None)
    assert (chosen.kind, chosen.sizes) == ("fixed", (32,))


def test_a_time_is_kept_and_an_impossible_one_is_refused():
    chosen = choose(evidence(), TIMES, max_drop=None, max_time=0.6)
    assert replay(chosen, evidence(seed=1), TIMES).time_s <= 0.65
    with pytest.raises(RecipeError, match=r"the fastest takes 0\.25"):
        choose(evidence(), TIMES, max_drop=None, max_time=0.1)


def test_the_times_decide():
    flat = Times(look_s=(0.9, 0.95, 1.0), switch_s=0.2)
    chosen = choose(evidence(), flat, max_drop=0.5, max_time=None)
    assert (chosen.kind, chosen.sizes) == ("fixed", (32,))


def test_every_candidate_is_a_policy_over_the_sizes():
    found = list(candidates(evidence(100)))
    assert {family_of(spec) for spec in found} == {"fixed", "entropy", "two-look", "three-look"}
    assert all(set(spec.sizes) <= set(SIZES) for spec in found)
    assert len(set(found)) == len(found)


def test_the_best_mix_lies_on_the_line_between_two_sizes():
    fixed = [replay(PolicySpec("fixed", (size,)), small(), PAIR) for size in (16, 32)]
    score, expected = best_mix(fixed, 2.5)
    assert score == pytest.approx(87.5)
    assert expected.tolist() == [1.0, 1.0, 1.0, 0.5]
    assert best_mix(fixed, 9.0)[0] == 100.0
    assert best_mix(fixed, 0.5)[0] == 75.0


def test_the_oracle_takes_the_smallest_right_size():
    assert oracle(small(), PAIR) == (100.0, (1 + 1 + 1 + 4) / 4)


def test_the_interval_holds_the_mean_and_narrows():
    rng = np.random.default_rng(3)
    wide, narrow = (interval(rng.normal(0.1, 1.0, count)) for count in (100, 10_000))
    assert wide[0] < 10.0 < wide[1]
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 5


def test_the_halves_are_disjoint_and_whole():
    first, second = split(evidence(101))
    assert sorted([*first, *second]) == list(range(101))


def test_a_fit_reports_what_the_choice_did_not_see():
    found = fit(evidence(), TIMES, goal=Goal(max_drop=1.0), machine="a board")
    assert found.policy.fit is not None
    assert (found.policy.fit.images, found.policy.fit.labelled) == (300, True)
    assert found.policy.fit.gain_low > 0.0
    families = [line.family for line in found.table]
    assert families.count("fixed") == 3
    assert {"chosen", "mix", "random", "oracle"} <= set(families)
    assert "oracle" in fit_table(found)


def test_too_few_images_and_times_of_other_sizes_are_refused():
    with pytest.raises(InputError, match="40 images are too few"):
        fit(evidence(40), TIMES, goal=Goal(), machine="x")
    with pytest.raises(RecipeError, match="times for 2 sizes"):
        fit(evidence(), PAIR, goal=Goal(), machine="x")


@pytest.mark.parametrize(("drop", "time"), [(1.0, 0.5), (-1.0, None), (None, 0.0), (None, 1.5)])
def test_a_goal_that_makes_no_sense_is_refused(drop, time):
    with pytest.raises(RecipeError):
        goal_of(drop, time)


@pytest.mark.parametrize(
    "values",
    [
        {"look_s": ()},
        {"look_s": (0.0, 1.0)},
        {"look_s": (1.0, float("nan"))},
        {"look_s": (1.0, 2.0), "switch_s": -1.0},
        {"look_s": (1.0, 2.0), "two_look_switch_s": float("inf")},
    ],
    ids=["none", "zero", "nan", "negative", "infinite"],
)
def test_times_that_make_no_sense_are_refused(values):
    with pytest.raises(RecipeError, match="make no sense"):
        Times(**values)


def test_where_no_choice_holds_under_cross_validation_the_largest_size_is_kept():
    # Sixty images, two of which the small size gets wrong: every fold but theirs would take it.
    count = 60
    truth = np.arange(count) % 5
    top1 = np.stack([truth, truth])
    top1[0, :2] += 1
    answers = Answers(
        sizes=(16, 32),
        bits=np.linspace(3, 7, count),
        top1={(0,): top1[0], (1,): truth, (0, 1): truth},
        doubt_bits=dict.fromkeys(chains(2), np.zeros(count)),
        truth=truth,
    )
    chosen = choose(answers, PAIR, max_drop=0.0, max_time=None)
    assert (chosen.kind, chosen.sizes) == ("fixed", (32,))


def test_what_may_be_lost_is_held_on_images_that_were_not_seen():
    """With the drop itself as the measure, about half of these would lose more than they may."""
    unseen = evidence(20_000, confidence_knows=False, seed=99)
    base = replay(PolicySpec(kind="fixed", sizes=(32,)), unseen, TIMES)
    drops = []
    for seed in range(12):
        policy = choose(evidence(400, confidence_knows=False, seed=seed), TIMES, max_drop=16.0, max_time=None)
        drops.append(base.score - replay(policy, unseen, TIMES).score)
    assert sum(drop <= 16.0 for drop in drops) >= 11
    assert sum(drop > 8.0 for drop in drops) >= 6


def test_few_images_promise_little():
    unseen = evidence(5000, confidence_knows=False, seed=99)
    few, many = (
        choose(evidence(count, confidence_knows=False), TIMES, max_drop=14.5, max_time=None)
        for count in (60, 6000)
    )
    assert replay(few, unseen, TIMES).time_s > replay(many, unseen, TIMES).time_s + 0.1


def test_a_time_is_a_promise_too():
    """By the mean time on the images that are fitted on, about half of these would take longer."""
    unseen = evidence(20_000, seed=99)
    times = [
        replay(choose(evidence(300, seed=seed), TIMES, max_drop=None, max_time=0.6), unseen, TIMES).time_s
        for seed in range(12)
    ]
    assert sum(time_s <= 0.6 for time_s in times) >= 11


def test_views_of_the_same_images_make_no_promise_surer():
    """Four times the same rows: with their number in the bound, less time would do."""
    once = evidence(300, confidence_knows=False)
    four = once.take(np.tile(np.arange(300), 4))
    alone, counted, seen = (
        replay(choose(rows, TIMES, max_drop=16.0, max_time=None, views=views), once, TIMES).time_s
        for rows, views in ((once, 1), (four, 4), (four, 1))
    )
    assert seen < alone == counted

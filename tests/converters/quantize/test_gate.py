from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.quantize.gate import Answers, Limits, judge

FP32 = np.arange(200) % 10


def judged(found, *, labels=None, source=None, limits=None, largest=True, divergence=0.01):
    answers = Answers(fp32=FP32, source=FP32 if source is None else source, labels=labels)
    return judge(found, answers, divergence=divergence, limits=limits or Limits(), largest=largest)


def flipped(count: int) -> np.ndarray:
    found = FP32.copy()
    found[:count] = (found[:count] + 1) % 10
    return found


@pytest.mark.parametrize(
    ("count", "largest", "passed"),
    [(10, True, True), (11, True, False), (16, False, True), (17, False, False)],
    ids=["5 %", "5.5 %", "8 % at a smaller size", "8.5 % at a smaller size"],
)
def test_without_labels_flips_count(count, largest, passed):
    verdict = judged(flipped(count), largest=largest)
    assert verdict.passed is passed
    assert verdict.flips == pytest.approx(count / 2)
    assert verdict.flips_low < verdict.flips < verdict.flips_high
    assert verdict.drop is None
    assert verdict.text.startswith(f"flips {count / 2:.1f} % (")


@pytest.mark.parametrize(("count", "passed"), [(0, True), (2, True), (3, False)])
def test_with_labels_the_drop_counts(count, passed):
    verdict = judged(flipped(count), labels=FP32)
    assert verdict.passed is passed
    assert verdict.drop == pytest.approx(count / 2)
    assert verdict.drop_low <= verdict.drop <= verdict.drop_high


def test_flips_that_lose_nothing_are_no_drop():
    """Half of the flips are from a wrong answer to the right one."""
    labels = FP32.copy()
    labels[:20] = (labels[:20] + 1) % 10
    found = flipped(40)
    verdict = judged(found, labels=labels)
    assert verdict.flips == pytest.approx(20.0)
    assert verdict.drop == pytest.approx(0.0)
    assert verdict.passed


def test_the_drop_is_against_the_source_not_against_fp32():
    source = FP32.copy()
    source[:6] = (source[:6] + 5) % 10
    assert judged(FP32, labels=FP32, source=source).drop == pytest.approx(-3.0)


def test_more_images_narrow_the_interval():
    few = judge(FP32[:50], Answers(FP32[:50], FP32[:50]), divergence=0.0, limits=Limits(), largest=True)
    assert judged(FP32).flips_high < few.flips_high


def test_what_is_not_finite_is_outside_whatever_its_answers():
    verdict = judged(FP32, divergence=float("inf"))
    assert not verdict.passed
    assert verdict.to_dict()["divergence"] is None

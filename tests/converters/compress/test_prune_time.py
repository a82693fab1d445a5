"""Pruning to a time: the search asks an engine, and says what it found."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.prune_time import EngineClock
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe_prune import PruneSection
from boardfit.errors import CompressError, RecipeError

_SHAPES = runpy.run_path(str(Path(__file__).with_name("prunable.py")))
model_of, widths, macs, SIDE = (_SHAPES[name] for name in ("model_of", "widths", "macs", "SIDE"))


class Ruler:
    """A clock for tests: time is a fixed part and a part that goes with the multiplications."""

    def __init__(self, fixed: float) -> None:
        self.fixed = fixed
        self.asked = 0

    def __call__(self, before: TrainedModel, after: TrainedModel) -> float:
        self.asked += 1
        return self.fixed + (1.0 - self.fixed) * macs(after) / macs(before)


@pytest.fixture
def few_probes(monkeypatch):
    monkeypatch.setattr("boardfit.converters.compress.prune_search.PROBES", 8)


@pytest.mark.parametrize(("fixed", "target"), [(0.0, 0.5), (0.3, 0.7), (0.0, 0.9)])
def test_a_time_is_met(fixed, target, few_probes):
    model, clock = model_of("residual"), Ruler(fixed)
    result = run_stage(Prune(PruneSection(time=target, multiple=1), SIDE, clock=clock), model)
    assert Ruler(fixed)(model, result.model) == pytest.approx(target, rel=0.03)
    assert f"{target:.3f} asked" in result.notes[-1] and "on litert" in result.notes[-1]
    assert clock.asked <= 8 + 16


def test_channels_that_save_no_time_stay():
    """An engine that computes 16 channels at once: 24 take as long as 32."""

    def clock(before, after):
        pairs = zip(widths(before), widths(after), strict=True)
        return np.mean([np.ceil(now / 16) / np.ceil(was / 16) for was, now in pairs])

    model = model_of("grown")
    after = run_stage(Prune(PruneSection(time=0.8, multiple=8), SIDE, clock=clock), model).model
    assert all(width in (16, 32, 48) for width in widths(after))
    assert clock(model, after) == pytest.approx(0.8, rel=0.05)


def test_a_time_that_no_width_comes_near_is_undershot_and_that_is_said():
    model = model_of("plain")
    result = run_stage(Prune(PruneSection(time=0.9, multiple=8), SIDE, clock=Ruler(0.0)), model)
    assert macs(result.model) < 0.87 * macs(model)
    assert "a smaller prune.multiple comes nearer" in result.notes[-1]


def test_a_time_that_cannot_be_is_refused():
    with pytest.raises(CompressError, match=r"cannot fall to 0\.2 of the source's: 0\.\d+ is the least"):
        run_stage(Prune(PruneSection(time=0.2, multiple=8), SIDE, clock=Ruler(0.3)), model_of("residual"))


def test_in_steps_times_are_of_the_source(few_probes):
    model, seen = model_of("residual"), []

    def recover(model, step, steps):
        seen.append(model)
        return model

    stage = Prune(PruneSection(time=0.6, multiple=1, steps=2), SIDE, clock=Ruler(0.1), recover=recover)
    result = run_stage(stage, model)
    times = [Ruler(0.1)(model, each) for each in (*seen, result.model)]
    assert times == pytest.approx([0.6**0.5, 0.6], rel=0.03)


def test_a_real_engine_is_asked():
    """Four times as wide, ten times as slow at least: the ratio that the clock measures says so."""
    import keras
    from keras import layers

    def net(width):
        image = keras.Input((None, None, 3), name="image")
        x = layers.Conv2D(width, 3, padding="same")(image)
        x = layers.Conv2D(width, 3, padding="same")(x)
        return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))

    wide = replace(model_of("plain"), net=net(128))
    clock = EngineClock("litert", 32)
    clock.require()
    assert clock(wide, replace(wide, net=net(32))) < 0.4
    assert 0.6 < clock(wide, wide) < 1.6


@pytest.mark.parametrize(
    ("engine", "message"),
    [("magic", "prune.engine is 'magic': expected one of")],
)
def test_an_engine_that_is_none_is_refused(engine, message):
    with pytest.raises(RecipeError, match=message):
        EngineClock(engine, SIDE).require()

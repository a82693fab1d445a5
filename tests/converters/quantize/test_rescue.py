"""The ladder on a format made of numpy."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.calibrate import ESTIMATORS
from boardfit.converters.quantize.blame import blame, worst_first
from boardfit.converters.quantize.naming import named, renamed, share_of
from boardfit.converters.quantize.rescue import climb
from boardfit.converters.quantize.search import best_ranges


def names(state) -> list[str]:
    return [step.name for step in state.steps]


def test_a_good_net_passes_at_the_first_rung(make_bench):
    bench = make_bench()
    state = climb(bench, scheme="int8")
    assert state.verdict.passed
    assert names(state) == ["ranges"]
    assert state.best.method in ESTIMATORS
    assert len(bench.quantizer.calls) == len(ESTIMATORS)


def test_ranges_are_chosen_by_output_error(make_bench):
    alone = {
        m: best_ranges(make_bench(estimators=(m,)), make_bench().twin, scheme="int8") for m in ESTIMATORS
    }
    together = best_ranges(make_bench(), make_bench().twin, scheme="int8")
    assert together.error == min(each.error for each in alone.values())
    assert alone[together.method].error == together.error


def test_a_ruined_net_is_rescued_by_float_layers(make_bench):
    bench = make_bench(ruined=True)
    state = climb(bench, scheme="int8")
    assert names(state) == ["ranges", "float layers"]
    assert not state.steps[0].verdict.passed
    assert state.verdict.passed
    assert state.best.keep_float == {"third"}
    assert state.steps[1].detail == "1 of 3: third"


def test_surgery_comes_before_float_layers_and_is_kept_only_if_it_is_better(make_bench, fake_format):
    weights = fake_format.weights(ruined=False)
    other = fake_format.export({**weights, "third": -weights["third"]}, 16)
    state = climb(make_bench(ruined=True, variants={"other net": lambda: other}), scheme="int8")
    assert names(state) == ["ranges", "other net", "float layers"]
    assert [step.kept for step in state.steps] == [True, False, True]
    assert state.steps[1].verdict is None and state.steps[1].error > state.steps[0].error
    assert state.best.source is not other
    assert state.verdict.passed


def test_a_variant_that_cures_ends_the_ladder(make_bench, fake_format):
    weights = fake_format.weights(ruined=True)
    # The same function, with the loud channel brought down: what equalisation does.
    equal = {
        **weights,
        "second": weights["second"] * np.where(np.arange(24) == 0, 5e-4, 1.0),
        "third": weights["third"] * np.where(np.arange(24) == 0, 2e3, 1.0)[:, None],
    }
    state = climb(
        make_bench(ruined=True, variants={"equalised": lambda: fake_format.export(equal, 16)}), scheme="int8"
    )
    assert names(state) == ["ranges", "equalised"]
    assert state.verdict.passed and not state.best.keep_float


def test_sixteen_bits_come_last(make_bench, monkeypatch):
    reached = []

    def in_vain(bench, state):
        reached.append("float layers")
        return state

    monkeypatch.setattr("boardfit.converters.quantize.rescue._float_layers", in_vain)
    state = climb(make_bench(ruined=True, schemes=("int8", "int16x8")), scheme="int8")
    assert reached == ["float layers"]
    assert names(state) == ["ranges", "int16x8"]
    assert state.best.exported.artifact.precision == "int16x8"
    assert state.verdict.passed


def test_without_rescue_the_first_rung_is_the_last(make_bench):
    state = climb(make_bench(ruined=True), scheme="int8", rescue=False)
    assert names(state) == ["ranges"]
    assert not state.verdict.passed


def test_dynamic_takes_no_ranges(make_bench):
    bench = make_bench()
    state = climb(bench, scheme="dynamic")
    assert state.verdict.passed and state.best.method == ""
    assert len(bench.quantizer.calls) == 1


def test_the_layer_that_ruins_is_blamed(make_bench):
    bench = make_bench(ruined=True)
    best = best_ranges(bench, bench.twin, scheme="int8")
    rows = blame(bench.quantizer, best.exported, bench.twin, bench.calibration[:8])
    assert [row.layer for row in rows] == ["first", "second", "third"]
    assert worst_first(rows)[0].layer == "third"
    assert rows[0].sqnr_db > 20.0 > rows[2].sqnr_db


@pytest.mark.parametrize(
    ("floats", "name"), [((), "int8"), (("first",), "mixed"), (("second", "third"), "mixed")]
)
def test_only_what_is_int8_is_called_so(make_bench, floats, name):
    bench = make_bench()
    best = best_ranges(bench, bench.twin, scheme="int8")
    exported = bench.quantizer.quantize(bench.twin, ranges=best.ranges, keep_float=frozenset(floats))
    share = share_of(bench.quantizer.layers(exported), exported, bench.twin)
    found = named(exported, share)
    assert found.artifact.precision == name
    assert found.artifact.files == (f"models/fake-{name}-16.npz",)
    assert set(found.files) == set(found.artifact.files)
    assert share.file == pytest.approx(0.25 if len(floats) < 2 else 0.5)


def test_another_scheme_keeps_its_name(make_bench):
    bench = make_bench(schemes=("int8", "int16x8"))
    best = best_ranges(bench, bench.twin, scheme="int16x8")
    share = share_of((), best.exported, bench.twin)
    assert named(best.exported, share).artifact.name == "fake-int16x8-16"
    assert renamed(best.exported, "mixed").artifact.name == "fake-mixed-16"

"""The whole stage on a format made of numpy: resuming, refusing, falling back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from boardfit.converters.quantize.bench import CHOOSING, apart
from boardfit.converters.quantize.outcome import Shelf, read_numbers
from boardfit.converters.quantize.photos import choose_pictures
from boardfit.converters.quantize.stage import Order, measurements, quantize_all, refused_table
from boardfit.converters.recipe import ParitySection, QuantizeSection
from boardfit.errors import BundleError, InputError, ParityError, RecipeError


@pytest.fixture
def order(many_pictures, fake_model, fake_format):
    """Return a function that makes an order over the fake format."""

    def make(*, ruined=False, sizes=(16, 24), schemes=("int8",), fp16_too=False, model=None, **options):
        return Order(
            model=model or fake_model(fake_format.weights(ruined=ruined)),
            formats=("fake",),
            sizes=sizes,
            schemes=schemes,
            fp16_too=fp16_too,
            pictures=choose_pictures(str(many_pictures)),
            options=QuantizeSection(**options),
            parity=ParitySection(),
        )

    return make


@pytest.fixture
def stage(tmp_path, fake_format):
    """Return a function that runs the stage with a fresh quantizer; both are returned."""

    def run(order, *, ruined=False, stop_at=10**9, progress=lambda _: None, schemes=("int8", "dynamic")):
        quantizer = fake_format.quantizer(SCHEMES=schemes, stop_at=stop_at)
        tools = fake_format.tools(quantizer, fake_format.weights(ruined=ruined))
        return quantize_all(order, Shelf(tmp_path / "out.partial"), tools=tools, progress=progress), quantizer

    return run


def test_every_size_gets_its_own_artifact(order, stage):
    outcomes, _ = stage(order())
    assert [outcome.exported.artifact.name for outcome in outcomes] == ["fake-int8-16", "fake-int8-24"]
    assert all(outcome.kept_integers and outcome.verdict.passed for outcome in outcomes)
    assert refused_table(outcomes) == ""


@pytest.mark.parametrize(("count", "kept"), [(40, 40), (CHOOSING + 63, CHOOSING + 63), (256, 128)])
def test_surgery_looks_at_other_images_than_those_it_is_compared_on(count, kept):
    images = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    seen = apart(images)
    assert len(seen) == kept and seen[-1] == images[-1]


def test_several_schemes_in_one_go(order, stage):
    outcomes, _ = stage(order(schemes=("int8", "dynamic"), sizes=(16,)))
    assert [outcome.delivered for outcome in outcomes] == ["int8", "dynamic"]


def test_a_scheme_that_no_format_has_is_refused_at_once(order, stage):
    with pytest.raises(RecipeError, match="none of fake can be int16x8: these can be dynamic, int8"):
        stage(order(schemes=("int16x8",)))


def test_what_was_finished_before_ctrl_c_is_not_done_again(order, stage, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stage(order(), stop_at=7)
    kept = [path.name for path in (tmp_path / "out.partial").iterdir()]
    assert len(kept) == 1 and kept[0].startswith("fake-int8-16-")
    told: list[str] = []
    outcomes, quantizer = stage(order(), progress=told.append)
    assert "fake int8 at 16 was finished before" in told
    assert {name for name, _ in quantizer.calls} == {"fake-fp32-24"}
    whole, _ = stage(order(sizes=(24,)))
    assert [o.to_dict() for o in outcomes][1]["found"] == whole[0].to_dict()["found"]


def test_a_resumed_outcome_is_the_same(order, stage):
    first, _ = stage(order(ruined=True), ruined=True)
    again, quantizer = stage(order(ruined=True), ruined=True)
    assert quantizer.calls == []
    for a, b in zip(first, again, strict=True):
        assert a.to_dict() == b.to_dict()
        assert {k: bytes(v) for k, v in a.exported.files.items()} == b.exported.files


@pytest.mark.parametrize(
    "changed",
    [{"max_flips": 4.0}, {"calibration_images": 25}, {"estimators": ("kl",)}],
    ids=lambda d: next(iter(d)),
)
def test_other_options_do_not_take_old_outcomes(order, stage, changed):
    stage(order())
    _, quantizer = stage(order(**changed))
    assert quantizer.calls


def test_a_damaged_shelf_is_done_again(order, stage, tmp_path):
    stage(order())
    for path in (tmp_path / "out.partial").glob("*/record.json"):
        path.write_text(path.read_text()[:-20])
    _, quantizer = stage(order())
    assert {name for name, _ in quantizer.calls} == {"fake-fp32-16", "fake-fp32-24"}


def test_the_shelf_is_cleared(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    Shelf(tmp_path / "x").clear()
    assert not (tmp_path / "x").exists()


def test_a_rescued_artifact_is_mixed_and_says_how(order, stage):
    outcomes, _ = stage(order(ruined=True), ruined=True)
    assert {outcome.delivered for outcome in outcomes} <= {"int8", "mixed"}
    assert all(outcome.kept_integers for outcome in outcomes)
    assert "float layers (1 of 3: third)" in outcomes[0].method


def test_without_rescue_nothing_is_written_and_the_layer_is_named(order, stage):
    outcomes, _ = stage(order(ruined=True, rescue=False), ruined=True)
    assert [outcome.exported for outcome in outcomes] == [None, None]
    lines = refused_table(outcomes).splitlines()
    assert lines[0].startswith("fake-int8-16 is outside the gate: flips ")
    assert lines[1].split()[0] == "third"
    assert lines[1].endswith("dB")


def test_fp16_is_the_last_resort_and_is_called_so(order, stage, monkeypatch):
    monkeypatch.setattr("boardfit.converters.quantize.rescue._float_layers", lambda bench, state: state)
    outcomes, _ = stage(order(ruined=True), ruined=True)
    assert [outcome.delivered for outcome in outcomes] == ["fp16", "fp16"]
    assert not any(outcome.kept_integers for outcome in outcomes)
    assert outcomes[0].verdict.passed
    assert "fp16 was written instead" in refused_table(outcomes)


def test_fp16_is_not_written_twice(order, stage, monkeypatch):
    monkeypatch.setattr("boardfit.converters.quantize.rescue._float_layers", lambda bench, state: state)
    outcomes, _ = stage(order(ruined=True, fp16_too=True), ruined=True)
    assert [outcome.exported for outcome in outcomes] == [None, None]
    assert outcomes[0].steps[-1].name == "fp16"


def test_an_image_that_makes_nan_is_named(order, stage, fake_model, fake_format):
    model = fake_model(fake_format.weights(ruined=False))

    def reference(x):
        found = model.reference(x)[0].copy()
        found[np.abs(x - first).reshape(len(x), -1).max(axis=1) == 0.0] = np.nan
        return [found]

    from dataclasses import replace

    from boardfit.converters.quantize.photos import load_tensors

    asked = order(model=replace(model, reference=reference))
    picture = asked.pictures.validation[4]
    first = load_tensors([picture], image=model.image, size=16)
    with pytest.raises(InputError, match=f"1 of 30 images.*NaN.*{picture.path.name}"):
        stage(asked)


def test_a_twin_unlike_the_source_is_refused(order, stage):
    with pytest.raises(ParityError, match="fake-fp32-16 answers unlike the source"):
        stage(order(ruined=True))


def test_the_measurements_repeat_the_gate(order, stage):
    asked = order()
    outcomes, _ = stage(asked)
    found = json.loads(json.dumps(measurements(asked, outcomes)))
    assert found["calibration_images"] == len(asked.pictures.calibration) == 30
    assert found["validation"]["labels"] is None
    assert len(found["validation"]["sha256"].split()) == 30
    row = found["artifacts"][0]
    answers, fp32 = np.array(read_numbers(row["found"])), np.array(read_numbers(row["fp32"]))
    assert 100.0 * (answers != fp32).mean() == pytest.approx(row["verdict"]["flips"])
    assert {blamed["layer"] for blamed in row["blame"]} == {"first", "second", "third"}


def test_numbers_that_are_none_are_refused():
    with pytest.raises(BundleError, match="no list of answers"):
        read_numbers("1 x 3")

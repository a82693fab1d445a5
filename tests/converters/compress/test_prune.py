"""The stage that prunes: goals, widths, steps, what it refuses; on JAX as on TensorFlow."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.model import Untouched
from boardfit.converters.recipe_prune import PruneSection
from boardfit.errors import CompressError, RecipeError
from boardfit.specs import TensorSpec

_SHAPES = runpy.run_path(str(Path(__file__).with_name("prunable.py")))
model_of, widths, macs, SIDE = (_SHAPES[name] for name in ("model_of", "widths", "macs", "SIDE"))


@pytest.mark.parametrize("goal", ["macs", "parameters"])
@pytest.mark.parametrize("amount", [0.3, 0.6])
def test_the_goal_is_met_by_little_more(goal, amount):
    model = model_of("residual")
    after = run_stage(Prune(PruneSection(**{goal: amount}, multiple=1), SIDE), model).model
    counts = {
        "macs": (macs(model), macs(after)),
        "parameters": (model.net.count_params(), after.net.count_params()),
    }
    before, now = counts[goal]
    assert 0.97 * (1.0 - amount) * before < now <= (1.0 - amount) * before


def test_the_contract(make_images):
    model = model_of("squeeze_excite")
    before = [np.array(weight) for weight in model.net.get_weights()]
    images = make_images()
    stage = Prune(PruneSection(macs=0.3, multiple=4), SIDE, images=lambda _: images)
    results = [run_stage(stage, model) for _ in range(2)]
    after = results[0].model
    assert all(np.array_equal(a, b) for a, b in zip(before, model.net.get_weights(), strict=True))
    assert (after.outputs, after.image, after.name) == (model.outputs, model.image, model.name)
    for one, other in zip(*(result.model.net.get_weights() for result in results), strict=True):
        assert np.array_equal(one, other)
    tensor = np.random.default_rng(2).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)
    assert np.allclose(after.reference(tensor)[0], after.net(tensor, training=False), atol=1e-6)
    assert "% of the multiplications" in results[0].notes[0]
    assert "chosen by taylor on 96 images" in results[0].notes[0]


def test_widths_stay_multiples_and_above_the_floor():
    model = model_of("plain")
    after = run_stage(Prune(PruneSection(macs=0.5, multiple=8), SIDE), model).model
    assert widths(model) == [8, 16, 24]
    assert widths(after)[0] == 8 and all(width % 8 == 0 for width in widths(after))
    after = run_stage(Prune(PruneSection(macs=0.3, multiple=1, keep=0.5), SIDE), model).model
    assert all(now >= was / 2 for was, now in zip(widths(model), widths(after), strict=True))


def test_in_steps_the_floor_is_of_the_source_and_the_net_recovers_between():
    told, said = [], []

    def recover(model, step, steps):
        told.append((step, steps, macs(model)))
        return model

    model = model_of("residual")
    stage = Prune(PruneSection(macs=0.6, multiple=1, steps=3), SIDE, recover=recover, progress=said.append)
    after = run_stage(stage, model).model
    assert said == [f"prune, step {step} of 3: choosing channels by l2" for step in (1, 2, 3)]
    assert [item[:2] for item in told] == [(1, 3), (2, 3)]
    shares = [count / macs(model) for *_, count in told] + [macs(after) / macs(model)]
    assert shares == pytest.approx([0.4 ** (1 / 3), 0.4 ** (2 / 3), 0.4], abs=0.03)
    assert all(now >= was / 4 for was, now in zip(widths(model), widths(after), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to prune"),
        ({"macs": 0.3, "criterion": "taylor"}, "needs photographs: give --distill"),
        ({"time": 0.5}, "needs an engine"),
        ({"macs": 0.95}, r"prune.macs is 0.95: at most 0\.\d+ can go while every layer keeps 0.25"),
        ({"parameters": 0.95}, r"prune.parameters is 0.95: at most 0\.\d+ can go"),
        ({"macs": 0.3, "multiple": 64}, "no layer of residual is wide enough to lose 64 channels"),
    ],
    ids=["no goal", "no photographs", "no clock", "macs", "parameters", "multiple"],
)
def test_what_cannot_be_is_refused_before_anything_long(options, message):
    with pytest.raises(CompressError, match=message):
        Prune(PruneSection(**options), SIDE).requires(model_of("residual"))


def test_models_that_cannot_be_pruned_are_refused(make_images):
    import keras
    from keras import layers

    model, stage = model_of("plain"), Prune(PruneSection(macs=0.3), SIDE)
    with pytest.raises(CompressError, match="a net of its own at each size"):
        stage.requires(replace(model, nets_by_size={16: model.net}))
    with pytest.raises(CompressError, match="packed as it is"):
        image = TensorSpec("image", (None, 16, 16, 3), layout="NHWC")
        stage.requires(replace(model, net=None, untouched=Untouched("onnx", b"", image, ())))
    image = keras.Input((16, 16, 3))
    linear = keras.Model(image, layers.Dense(4)(layers.Flatten()(image)))
    with pytest.raises(CompressError, match="no channel of plain can go: it is an output of the net"):
        stage.requires(replace(model, net=linear))
    other = keras.Input((4,))
    two = keras.Model(
        [model.net.inputs[0], other], layers.Add()([model.net.outputs[0], layers.Dense(5)(other)])
    )
    with pytest.raises(CompressError, match="takes more than an image"):
        Prune(PruneSection(macs=0.3), SIDE, images=lambda _: make_images()).requires(replace(model, net=two))
    assert (
        run_stage(Prune(PruneSection(macs=0.3, multiple=1), SIDE), replace(model, net=two))
        .model.net.inputs[1]
        .shape
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"macs": 1.0}, "prune.macs is 1: expected 0 to below 1"),
        ({"time": -0.1}, "prune.time is -0.1"),
        ({"macs": 0.3, "time": 0.7}, "prune.macs and prune.time are both given"),
        ({"criterion": "magic"}, "prune.criterion"),
        ({"multiple": 0}, "prune.multiple is 0: expected at least 1"),
        ({"keep": 1.5}, "prune.keep is 1.5"),
        ({"steps": "3"}, "prune.steps is '3'"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_the_section_checks_itself(options, message):
    with pytest.raises(RecipeError, match=message):
        PruneSection(**options)


def test_pruned_nets_pass_the_gate_in_all_formats_and_their_files_are_smaller():
    """Squeeze-excite, depthwise and residual, through three converters and engines."""
    from boardfit.converters.recipe import ParitySection
    from boardfit.converters.samples import Samples
    from boardfit.converters.targets import export
    from boardfit.converters.verify import require_inside, run_reference, verify

    tensor = np.random.default_rng(0).normal(size=(8, SIDE, SIDE, 3)).astype(np.float32)
    samples = Samples(tensors={SIDE: tensor}, photographs=0)
    model = model_of("squeeze_excite")
    pruned = run_stage(Prune(PruneSection(macs=0.4, multiple=4), SIDE), model).model
    bytes_of = {}
    for label, each, formats in (
        ("before", model, ["tflite"]),
        ("after", pruned, ["tflite", "onnx", "ncnn"]),
    ):
        for format_name in formats:
            item = export(each, format_name=format_name, sizes=(SIDE,), precision="fp32")
            bytes_of[label, format_name] = sum(len(data) for data in item.files.values())
            if each is pruned:
                expected = {SIDE: run_reference(pruned.reference, tensor)}
                require_inside(verify(item, samples=samples, expected=expected, gate=ParitySection()))
    gone = model.net.count_params() - pruned.net.count_params()
    assert bytes_of["before", "tflite"] - bytes_of["after", "tflite"] > 3 * gone


def pruned() -> list[float]:
    """Return the widths that pruning leaves on the Keras backend of this process, and an answer."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, SIDE, SIDE, 3)).astype(np.uint8)
    stage = Prune(PruneSection(macs=0.4, multiple=2), SIDE, images=lambda _: ImageSet(pixels=pixels))
    after = run_stage(stage, model_of("mobile")).model
    answer = after.reference(np.ones((1, SIDE, SIDE, 3), np.float32))[0][0]
    return [*widths(after), *map(float, answer)]


def test_it_prunes_on_jax_as_on_tensorflow(on_jax):
    on_jax.begin(__file__, "pruned")
    ours = pruned()
    assert keras.backend.backend() == "tensorflow"
    assert on_jax.end() == pytest.approx(ours, abs=2e-3)

"""The stage that prunes: goals, criteria, steps, time on an engine, what it refuses."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boardfit.converters.compress.criteria import weight_scores
from boardfit.converters.compress.follow import follow
from boardfit.converters.compress.groups import structure_of
from boardfit.converters.compress.nets import batch_norms
from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.prune_time import EngineClock
from boardfit.converters.compress.recalibrate import recalibrate
from boardfit.converters.compress.resize import input_tensor
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.taylor import taylor_scores
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.ingest.survey import layer_rows
from boardfit.converters.model import TrainedModel, Untouched
from boardfit.converters.recipe_prune import PruneSection
from boardfit.errors import CompressError, RecipeError
from boardfit.specs import ImageSpec, TensorSpec

_SHAPES = runpy.run_path(str(Path(__file__).with_name("prunable.py")))
NETS, scramble = _SHAPES["NETS"], _SHAPES["scramble"]
SIDE = 16


def model_of(name: str, *, activation: str = "logits") -> TrainedModel:
    net = scramble(NETS[name]())
    return TrainedModel(
        name=name,
        net=net,
        outputs=tuple(TensorSpec("scores", tuple(item.shape), activation=activation) for item in net.outputs),
        image=ImageSpec(mean=(127.5,) * 3, std=(127.5,) * 3),
        reference=keras_reference(net),
    )


def widths(model: TrainedModel) -> list[int]:
    return [layer.filters for layer in model.net.layers if hasattr(layer, "filters")]


def macs(model: TrainedModel) -> int:
    return sum(row.macs for row in layer_rows(model.net, SIDE))


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
    told = []

    def recover(model, step, steps):
        told.append((step, steps, macs(model)))
        return model

    model = model_of("residual")
    stage = Prune(PruneSection(macs=0.6, multiple=1, steps=3), SIDE, recover=recover)
    after = run_stage(stage, model).model
    assert [item[:2] for item in told] == [(1, 3), (2, 3)]
    shares = [count / macs(model) for *_, count in told] + [macs(after) / macs(model)]
    assert shares == pytest.approx([0.4 ** (1 / 3), 0.4 ** (2 / 3), 0.4], abs=0.03)
    assert all(now >= was / 4 for was, now in zip(widths(model), widths(after), strict=True))


def silent(model: TrainedModel, layer: str, channels: list[int]) -> None:
    """Make channels of a convolution idle: what normalises them gives 0 for all images."""
    layers = model.net.layers
    place = next(i for i, each in enumerate(layers) if each.name == layer)
    norm = next(each for each in layers[place:] if each in batch_norms(model.net))
    weights = norm.get_weights()
    weights[0][channels], weights[1][channels] = 0.0, 0.0
    norm.set_weights(weights)


@pytest.mark.parametrize("criterion", ["taylor", "bn"])
def test_channels_that_do_nothing_go_first(criterion, make_images):
    model = model_of("plain")
    names = [layer.name for layer in model.net.layers if hasattr(layer, "filters")]
    idle = {names[0]: [1, 5], names[1]: [0, 3, 7, 8], names[2]: [20, 21]}
    for name, channels in idle.items():
        silent(model, name, channels)
    kernels = {name: np.array(model.net.get_layer(name).get_weights()[0]) for name in names}
    images = make_images()
    options = PruneSection(macs=0.25, multiple=1, criterion=criterion, recalibrate=False)
    after = run_stage(Prune(options, SIDE, images=lambda _: images), model).model
    tensor = np.asarray(input_tensor(images.pixels[:8], model.image, SIDE))
    first = after.net.get_layer(names[0]).get_weights()[0]
    kept = [
        c
        for c in range(8)
        if any(np.array_equal(kernels[names[0]][..., c], k) for k in np.moveaxis(first, -1, 0))
    ]
    assert not set(kept) & set(idle[names[0]])
    if sum(widths(after)) == sum(widths(model)) - 8:
        assert np.allclose(after.reference(tensor)[0], model.reference(tensor)[0], atol=1e-4)


@pytest.mark.parametrize("activation", ["logits", "softmax", "sigmoid", "none"])
def test_first_order_scores_rank_as_what_silencing_really_does(activation, make_images):
    """The score of a unit goes with the change of the answer when its readers are silenced, one by one."""
    from boardfit.converters.compress.shrink import silenced

    model = model_of("plain", activation=activation)
    if activation in ("softmax", "sigmoid"):
        import keras

        net = model.net
        net = keras.Model(net.inputs, keras.layers.Activation(activation)(net.outputs[0]))
        model = replace(model, net=net, reference=keras_reference(net))
    images = make_images()
    found = structure_of(follow(model.net, SIDE), model.net)
    scores = taylor_scores(found, model, images, seed=0)
    tensor = np.asarray(input_tensor(images.pixels, model.image, SIDE))
    whole = np.asarray(model.net(tensor, training=False))
    changes = []
    for unit in range(found.count):
        alive = np.arange(found.count) != unit
        changed = np.asarray(silenced(model.net, found, alive)(tensor, training=False))
        changes.append(float(((changed - whole) ** 2).sum(1).mean()))
    ranks = [np.argsort(np.argsort(values)) for values in (scores, changes)]
    assert np.corrcoef(*ranks)[0, 1] > 0.75


def test_scores_by_weights_are_one_on_average():
    found = structure_of(follow(scramble(NETS["squeeze_excite"]()), SIDE), NETS["squeeze_excite"]())
    for criterion in ("l1", "l2", "bn", "random"):
        scores = weight_scores(found, criterion)
        assert np.isfinite(scores).all() and scores.min() >= 0.0
        for group in found.groups:
            assert scores[group.units].mean() == pytest.approx(
                1.0, abs=0.25 if criterion == "random" else 1e-6
            )
    assert not np.array_equal(weight_scores(found, "random", seed=1), weight_scores(found, "random", seed=2))


def test_new_statistics_are_those_of_the_images(make_net, make_images):
    import keras

    net, images = make_net(), make_images(192)
    spec = ImageSpec(mean=(127.5,) * 3, std=(127.5,) * 3)
    recalibrate(net, images, spec)
    first = keras.Model(net.inputs, net.layers[1].output)
    seen = np.asarray(
        first(np.asarray(input_tensor(images.pixels, spec, images.pixels.shape[1])), training=False)
    )
    norm = batch_norms(net)[0]
    assert np.allclose(norm.moving_mean, seen.mean((0, 1, 2)), atol=1e-4)
    assert np.allclose(norm.moving_variance, seen.var((0, 1, 2)), rtol=0.02)
    assert norm.momentum == 0.8


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


SCRIPT = """
import runpy, sys
import numpy as np
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.prune import Prune
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe_prune import PruneSection
from boardfit.specs import ImageSpec, TensorSpec

shapes = runpy.run_path(sys.argv[1])
net = shapes["scramble"](shapes["NETS"]["mobile"]())
model = TrainedModel(
    name="net", net=net, outputs=(TensorSpec("scores", (None, 5), activation="logits"),),
    image=ImageSpec(), reference=keras_reference(net),
)
images = ImageSet(pixels=np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3)).astype(np.uint8))
after = run_stage(Prune(PruneSection(macs=0.4, multiple=2), 16, images=lambda _: images), model).model
answer = after.reference(np.ones((1, 16, 16, 3), np.float32))[0][0]
widths = [layer.filters for layer in after.net.layers if hasattr(layer, "filters")]
print(*widths, *(f"{x:.3f}" for x in answer))
"""


def test_it_prunes_on_jax_as_on_tensorflow():
    pytest.importorskip("jax")
    lines = []
    for backend in ("tensorflow", "jax"):
        path = Path(__file__).with_name("prunable.py")
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "KERAS_BACKEND": backend},
        )
        lines.append([float(word) for word in done.stdout.split()])
    assert lines[0] == pytest.approx(lines[1], abs=2e-3)

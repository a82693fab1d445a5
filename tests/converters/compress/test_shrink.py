"""Following channels and taking them out: a pruned net answers like the net whose channels are silenced."""

from __future__ import annotations

import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from boardfit.converters.compress.follow import follow
from boardfit.converters.compress.groups import Cost, structure_of
from boardfit.converters.compress.shrink import require_same, shrink, silenced
from boardfit.converters.ingest.survey import layer_rows
from boardfit.errors import CompressError

_SHAPES = runpy.run_path(str(Path(__file__).with_name("prunable.py")))
NETS, scramble, conv, scores = (_SHAPES[name] for name in ("NETS", "scramble", "conv", "scores"))
SIDE = 16
ENOUGH = 1e-5


def structure(net, side=SIDE):
    return structure_of(follow(net, side), net)


def some_gone(found, seed=1, share=0.5):
    """Half of each group, by chance; never all of it."""
    rng = np.random.default_rng(seed)
    alive = np.ones(found.count, bool)
    for group in found.groups:
        alive[rng.choice(group.units, int(len(group.units) * share), replace=False)] = False
    return alive


def answers(net, images):
    return [np.asarray(item) for item in keras.tree.flatten(net(images, training=False))]


def require_invariant(net, side=SIDE, seed=1, share=0.5):
    """Check the suite's invariant; return structure, what stays, and the smaller net."""
    found = structure(net, side)
    alive = some_gone(found, seed, share)
    smaller = shrink(net, found, alive)
    images = np.random.default_rng(seed).normal(size=(2, side, side, 3)).astype(np.float32)
    expected = answers(silenced(net, found, alive), images)
    for one, other, whole in zip(expected, answers(smaller, images), answers(net, images), strict=True):
        assert one.shape == other.shape
        scale = max(1.0, float(np.abs(one).max()))
        assert np.abs(one - other).max() <= ENOUGH * scale
        # The channels did matter, or nothing is proven.
        assert alive.all() or np.abs(whole - other).max() > 100 * ENOUGH * scale
    return found, alive, smaller


@pytest.mark.parametrize("name", NETS)
def test_a_pruned_net_answers_like_the_silenced_one(name):
    net = scramble(NETS[name]())
    found, alive, smaller = require_invariant(net)
    assert not alive.all()
    macs, numbers = Cost(found, found.macs), Cost(found, found.parameters)
    assert macs.total == sum(row.macs for row in layer_rows(net, SIDE))
    assert numbers.total == net.count_params()
    for cost in (macs, numbers):
        cost.take(np.flatnonzero(~alive))
    assert macs.now == pytest.approx(sum(row.macs for row in layer_rows(smaller, SIDE)))
    assert numbers.now == pytest.approx(smaller.count_params())
    assert numbers.now < numbers.total and macs.now < macs.total


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("plain", [8, 16, 24]),
        ("flattened", [8, 16]),
        ("residual", [16, 16, 16, 16]),
        ("concatenated", [8, 16, 8, 16, 8, 16, 8, 8]),
        ("mobile", [8, 32, 32, 8, 32]),
        ("grouped", [16, 4]),
        ("group_normed", [4, 8]),
        ("attention", [4, 64, 4, 64]),
        ("shared", [16]),
    ],
)
def test_groups_are_those_that_a_person_sees(name, groups):
    found = structure(NETS[name]())
    assert sorted(len(group.units) for group in found.groups) == sorted(groups)


def test_why_a_layer_keeps_its_width_is_said():
    fixed = structure(NETS["attention"]()).fixed
    assert "normalises across channels" in " ".join(fixed.values())
    assert "an output of the net" in fixed["scores"]
    fixed = structure(NETS["shuffled"]()).fixed
    assert any("splits or mixes the axis of the channels" in why for why in fixed.values())
    fixed = structure(NETS["squeeze_excite"]()).fixed
    assert any("spreads a single channel" in why for why in fixed.values())


def test_layers_of_unknown_kinds_keep_what_they_touch():
    class Doubled(layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    class Conv2D(layers.Conv2D):
        """Has the name of a known layer, and may do anything."""

    image = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same")(image)
    x = layers.Conv2D(8, 3, padding="same")(Doubled()(x))
    net = scores(image, Conv2D(8, 3)(x))
    found = structure(net)
    assert not found.groups
    assert all(
        "no layer that channels are followed through" in why or "output" in why
        for why in found.fixed.values()
    )


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: layers.Softmax()(x),
        lambda x: layers.Activation("softmax")(x),
        lambda x: layers.LayerNormalization()(x),
        lambda x: layers.UnitNormalization()(x),
        lambda x: keras.ops.mean(x, axis=-1, keepdims=True) * x,
        lambda x: x[..., ::2],
        lambda x: keras.ops.multiply(x, np.arange(8, dtype=np.float32)),
        lambda x: layers.Rescaling([0.5] * 8)(x),
        lambda x: layers.Permute((1, 3, 2))(x),
        lambda x: keras.ops.flip(x, axis=-1),
        lambda x: layers.Dot(axes=(3, 3))([layers.Reshape((1, 256, 8))(x), layers.Reshape((1, 256, 8))(x)]),
    ],
)
def test_what_mixes_channels_keeps_them(mixing):
    image = keras.Input((16, 16, 3))
    x = mixing(layers.Conv2D(8, 3, padding="same")(image))
    net = scramble(keras.Model(image, layers.Conv2D(4, 1)(x) if len(x.shape) == 4 else x))
    found = structure(net)
    assert not found.groups or require_invariant(net)
    assert "conv2d" not in " ".join(group.name for group in found.groups)


def test_a_wrong_rule_would_be_seen():
    """The stage's own proof fails where a net is not what following it says."""
    net = scramble(NETS["residual"]())
    found = structure(net)
    alive = some_gone(found)
    smaller = shrink(net, found, alive)
    require_same(net, smaller, found, alive, side=SIDE)
    weights = smaller.get_weights()
    weights[0] = np.roll(weights[0], 1, axis=-1)
    smaller.set_weights(weights)
    with pytest.raises(CompressError, match="answers other than with these channels silenced"):
        require_same(net, smaller, found, alive, side=SIDE)


def test_the_source_stays_as_it_was():
    net = scramble(NETS["squeeze_excite"]())
    before = [np.array(weight) for weight in net.get_weights()]
    require_invariant(net)
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))


def test_a_net_that_takes_any_size_still_does():
    _, _, smaller = require_invariant(scramble(NETS["mobile"]()))
    assert smaller.input_shape == (None, None, None, 3)
    assert smaller(np.zeros((1, 24, 24, 3), np.float32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("MobileNetV3Small", 32),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                ("MobileNetV2", 32), ("EfficientNetB0", 32), ("ResNet50V2", 64), ("DenseNet121", 64),
                ("ConvNeXtTiny", 64), ("EfficientNetV2B0", 64), ("Xception", 96), ("NASNetMobile", 224),
                ("InceptionV3", 96), ("VGG16", 32),
            )
        ),
    ],
)  # fmt: skip
def test_nets_of_keras_applications(name, side):
    make = getattr(keras.applications, name)
    net = scramble(make(weights=None, input_shape=(side, side, 3), classes=10))
    found, _, smaller = require_invariant(net, side)
    assert smaller.count_params() < 0.6 * net.count_params()
    assert sum(len(group.units) for group in found.groups) > 1000


def test_efficientnet_lite0():
    example = Path(__file__).resolve().parents[3] / "sdk" / "examples" / "lite0_keras.py"
    blocks = runpy.run_path(str(example))["BLOCKS"]
    assert blocks[0] == (1, 3, 1, 1, 16)
    image = keras.Input((None, None, 3))
    x = conv(image, 32, stride=2)
    for repeats, kernel, first, expansion, channels in blocks:
        for repeat in range(repeats):
            stride = first if repeat == 0 else 1
            y = conv(x, x.shape[-1] * expansion, 1) if expansion > 1 else x
            y = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False)(y)
            y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
            y = layers.BatchNormalization()(layers.Conv2D(channels, 1, use_bias=False)(y))
            x = layers.Add()([x, y]) if stride == 1 and x.shape[-1] == channels else y
    found, _, smaller = require_invariant(scramble(scores(image, conv(x, 1280, 1))), 32)
    assert len(found.groups) == 24
    assert smaller.count_params() < 1_300_000


@st.composite
def graphs(draw):
    """A net of random calls on tensors of one resolution."""
    image = keras.Input((8, 8, 3))
    tensors = [conv(image, draw(st.sampled_from([4, 6, 8])))]
    for _ in range(draw(st.integers(3, 7))):
        x = draw(st.sampled_from(tensors))
        width = x.shape[-1]
        kind = draw(
            st.sampled_from(["conv", "depthwise", "add", "concat", "gate", "grouped", "slice", "norm"])
        )
        twins = [other for other in tensors if other.shape[-1] == width]
        if kind == "conv":
            x = conv(x, draw(st.sampled_from([4, 6, 8])), draw(st.sampled_from([1, 3])))
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=draw(st.integers(1, 2)))(x)
        elif kind == "add":
            x = layers.Add()([x, draw(st.sampled_from(twins))])
        elif kind == "concat":
            x = layers.Concatenate()([x, draw(st.sampled_from(tensors))])
        elif kind == "gate":
            pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
            x = layers.Multiply()([x, layers.Conv2D(width, 1, activation="sigmoid")(pooled)])
        elif kind == "grouped":
            x = layers.Conv2D(width * 2, 3, padding="same", groups=2)(x)
        elif kind == "slice":
            x = x[..., : width // 2] if draw(st.booleans()) else x[..., width // 2 :]
        else:
            x = layers.GroupNormalization(2)(x) if draw(st.booleans()) else layers.LayerNormalization()(x)
        tensors.append(x)
    return scores(image, layers.Concatenate()(tensors[-2:]))


@given(net=graphs(), seed=st.integers(0, 3))
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_graph(net, seed):
    scramble(net, seed)
    found = structure(net, 8)
    # Fewer than all of each part, so that no tensor is left without a channel.
    alive = np.ones(found.count, bool)
    rng = np.random.default_rng(seed)
    for group in found.groups:
        if len(group.units) > 2:
            alive[rng.choice(group.units, len(group.units) // 2, replace=False)] = False
    smaller = shrink(net, found, alive)
    images = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    one, other = answers(silenced(net, found, alive), images)[0], answers(smaller, images)[0]
    assert np.abs(one - other).max() <= ENOUGH * max(1.0, float(np.abs(one).max()))
    cost = Cost(found, found.parameters)
    cost.take(np.flatnonzero(~alive))
    assert cost.now == pytest.approx(smaller.count_params())

"""Gradient checkpointing: where nets are cut, and that nothing changes but the memory."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.compress.nets import at_side, trainable_copy
from boardfit.converters.compress.recompute import Recomputed, waists
from boardfit.errors import CompressError


def tensorflow():
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are asked of TensorFlow's tape; other backends are compared by their training")
    return pytest.importorskip("tensorflow")


def residual(*, blocks: int = 4, dropout: float = 0.0, regularizer: str | None = None):
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    for number in range(blocks):
        y = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        y = layers.BatchNormalization(momentum=0.7)(y)
        y = layers.ReLU(activity_regularizer=regularizer)(y)
        x = layers.Add(name=f"add{number}")([x, y])
    pooled = layers.GlobalAveragePooling2D()(x)
    pooled = layers.Dropout(dropout, seed=5)(pooled)
    return keras.Model(image, [layers.Dense(4)(pooled), x])


def test_what_a_shortcut_passes_by_is_no_waist():
    names = [tensor._keras_history.operation.name for tensor in waists(residual())]
    assert [name for name in names if name.startswith("add")] == ["add0", "add1", "add2", "add3"]
    assert not [name for name in names if name.startswith("conv")]


def test_a_net_falls_into_pieces_that_give_its_outputs_in_their_order():
    from keras import ops

    net = residual()
    pieces = Recomputed(net)
    assert len(pieces.pieces) > 2
    image = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    for expected, found in zip(net(image, training=False), pieces(image), strict=True):
        assert np.allclose(ops.convert_to_numpy(expected), ops.convert_to_numpy(found), atol=1e-5)


def test_gradients_and_statistics_are_the_same_to_1e_5():
    tf = tensorflow()
    image = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    found = []
    for again in (False, True):
        net = residual(dropout=0.4)
        run = Recomputed(net) if again else net
        with tf.GradientTape() as tape:
            scores, features = run(image, training=True)
            loss = tf.reduce_mean(scores**2) + 0.1 * tf.reduce_mean(features**3)
        gradients = tape.gradient(loss, [variable.value for variable in net.trainable_variables])
        state = [np.asarray(variable) for variable in net.non_trainable_variables]
        found.append([float(loss), *map(np.asarray, gradients), *state])
    for plain, again in zip(*found, strict=True):
        assert np.allclose(plain, again, rtol=1e-5, atol=1e-5 * max(1e-3, np.abs(plain).max()))


def test_sizes_decide_where_it_is_cut(make_net):
    """The early, large tensors make short pieces."""
    net = at_side(trainable_copy(make_net()), 16)
    pieces = Recomputed(net).pieces
    assert sum(len(piece.layers) for piece in pieces) >= len(net.layers)
    assert len(pieces) >= 2


def test_a_loss_of_activations_is_refused():
    with pytest.raises(CompressError, match="adds a loss of its activations"):
        Recomputed(residual(regularizer="l2"))

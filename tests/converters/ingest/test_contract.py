"""What every source format promises, on small nets of three families."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import TOLERANCE

SIZES = (32, 48, 64)


def residual():
    import keras
    from keras import layers

    image = keras.Input((64, 64, 3))
    x = layers.Rescaling(0.5, 0.1)(image)
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    shortcut = layers.Conv2D(12, 1, 2)(x)
    x = layers.BatchNormalization()(layers.Conv2D(12, 3, 2, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, shortcut])))
    return keras.Model(image, layers.Dense(5)(x), name="residual")


def mobile():
    import keras
    from keras import layers

    image = keras.Input((None, None, 3))
    x = layers.Activation("hard_silu")(layers.Conv2D(8, 3, 2, padding="same")(image))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, 1, padding="same")(x)))
    gate = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="hard_sigmoid")(gate)])
    x = layers.GlobalAveragePooling2D()(layers.Activation("silu")(x))
    return keras.Model(image, layers.Dense(5, activation="softmax")(x), name="mobile")


def dense():
    import keras
    from keras import layers

    inner_input = keras.Input((32, 32, 8))
    y = layers.Conv2D(4, 3, padding="same", activation="tanh")(layers.BatchNormalization()(inner_input))
    inner = keras.Model(inner_input, layers.Concatenate()([inner_input, y]), name="inner")
    image = keras.Input((64, 64, 3))
    x = inner(layers.Conv2D(8, 3, 2, padding="same")(image))
    x = layers.AveragePooling2D(2)(layers.LeakyReLU(0.2)(x))
    x = layers.Dropout(0.5)(layers.GlobalMaxPooling2D()(x))
    return keras.Model(image, layers.Activation("sigmoid")(layers.Dense(5)(x)), name="dense")


def randomise(model):
    rng = np.random.default_rng(3)
    for weight in model.weights:
        noise = rng.uniform(-0.5, 0.5, weight.shape)
        weight.assign(noise + 1.0 if "variance" in weight.path else noise)
    return model


KERAS = {"residual": residual, "mobile": mobile, "dense": dense}
ACTIVATIONS = {
    "residual": "logits",
    "mobile": "softmax",
    "dense": "sigmoid",
}


KINDS = ("keras", "h5", "tf2onnx", "torch", "onnx", "onnx-free")


@pytest.fixture(params=[f"{kind}:{net}" for kind in KINDS for net in KERAS])
def source(request, tmp_path):
    """A source of each format and family, and what its output is."""
    kind, net = request.param.split(":")
    activation = ACTIVATIONS[net]
    if kind in ("keras", "h5", "tf2onnx"):
        model = randomise(KERAS[net]())
        path = tmp_path / f"{net}.{'onnx' if kind == 'tf2onnx' else kind}"
        if kind == "tf2onnx":
            model(np.zeros((1, 64, 64, 3), "float32"))
            model.export(str(path), format="onnx", verbose=False)
        else:
            model.save(path)
        return path, activation
    activation = "logits" if net == "dense" else activation
    if kind == "torch":
        return request.getfixturevalue("torch_source")(net), activation
    opset = {"residual": 11, "mobile": 17, "dense": 20}[net]
    export = request.getfixturevalue("export_torch")
    return export(net, 64, free=kind == "onnx-free", opset=opset), activation


def test_net_is_its_source(source, request_for, difference):
    path, activation = source
    model = ingest(request_for(path, *SIZES))
    model.require_sizes(SIZES)
    assert tuple(model.net.inputs[0].shape) == (None, None, None, 3)
    assert model.outputs[0].activation == activation
    assert model.outputs[0].shape == (None, model.net.outputs[0].shape[1])
    assert max(difference(model, size) for size in SIZES) <= TOLERANCE


def test_net_is_made_of_named_layers_and_is_the_same_twice(source, request_for, tmp_path):
    import keras

    path, _ = source
    first, second = (ingest(request_for(path, *SIZES)).net for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(isinstance(layer, keras.layers.Layer) for layer in first.layers)
    assert not any(isinstance(layer, keras.Model) for layer in first.layers)
    first.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(again(images), first(images), atol=1e-6)


def test_net_trains_without_touching_the_reference(source, request_for):
    path, _ = source
    model = ingest(request_for(path, *SIZES))
    images = np.random.default_rng(1).normal(size=(4, 64, 64, 3)).astype("float32")
    small = images[:, :48, :48]
    before, before_small = model.reference(images)[0], model.reference(small)[0]
    model.net.compile(optimizer="sgd", loss="mse")
    model.net.fit(images, np.ones((4, model.outputs[0].shape[1])), verbose=0)
    np.testing.assert_array_equal(model.reference(images)[0], before)
    np.testing.assert_array_equal(model.reference(small)[0], before_small)
    assert np.abs(np.asarray(model.net(images)) - before).max() > 1e-6


@pytest.mark.parametrize("name", ["mobile", "residual"])
def test_batch_normalization_stays_a_layer(name, torch_source, request_for):
    import keras

    net = ingest(request_for(torch_source(name), *SIZES)).net
    norms = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == {"mobile": 2, "residual": 4}[name]
    assert all(norm.momentum == pytest.approx(0.9) for norm in norms)


def test_labels_must_fit(torch_source, request_for):
    from boardfit.errors import RecipeError

    with pytest.raises(RecipeError, match="2 labels for the 7 outputs"):
        ingest(request_for(torch_source("residual"), 32, labels=("cat", "dog")))

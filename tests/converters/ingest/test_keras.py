"""Which sizes a Keras model can take, and what its interface must be."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.check import TOLERANCE
from boardfit.errors import UnsupportedModel, UnsupportedSize


@pytest.fixture
def saved(tmp_path):
    """Save the model that a function builds on an image of some side."""

    def save(build, side=32):
        import keras

        image = keras.Input((side, side, 3))
        model = keras.Model(image, build(image))
        path = tmp_path / "net.keras"
        model.save(path)
        return path

    return save


def padded(image):
    from keras import layers

    x = image
    for _ in range(3):
        x = layers.Conv2D(4, 3, 2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


def flattened(image):
    from keras import layers

    return layers.Dense(3)(layers.Flatten(name="all_pixels")(layers.Conv2D(4, 3, 2)(image)))


def tokens(image):
    from keras import layers

    x = layers.Reshape((256, 4), name="rows")(layers.Conv2D(4, 3, 2, padding="same")(image))
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(x))


def test_padding_that_may_be_same_binds_the_size(saved, request_for, difference):
    # 28 -> 14 -> 7: the third convolution sees an odd extent at 28, an even one at 32.
    model = ingest(request_for(saved(padded), 28, 32))
    assert model.fixed_size == 32
    assert "ZeroPadding2D" in model.fixed_by
    assert "Conv2D" in model.fixed_by
    assert difference(model, 32) <= TOLERANCE
    with pytest.raises(UnsupportedSize, match="not 28"):
        model.require_sizes((28, 32))


def test_it_is_free_where_both_readings_agree(saved, request_for):
    model = ingest(request_for(saved(padded), 32, 64))
    assert model.fixed_size is None


def test_it_is_free_where_the_model_says_so(saved, request_for, difference):
    model = ingest(request_for(saved(padded, side=None), 28, 32))
    assert model.fixed_size is None
    assert max(difference(model, size) for size in (28, 32)) <= TOLERANCE


def test_assumed_same_padding(saved, request_for, difference):
    model = ingest(request_for(saved(padded), 28, 32, assume_same_padding=True))
    assert model.fixed_size is None
    assert len(model.notes) == 3
    assert not [layer for layer in model.net.layers if type(layer).__name__ == "ZeroPadding2D"]
    assert difference(model, 32) <= TOLERANCE


@pytest.mark.parametrize(("build", "layer"), [(flattened, "all_pixels"), (tokens, "rows")])
def test_layer_that_binds_is_named(build, layer, saved, request_for, difference):
    model = ingest(request_for(saved(build), 32))
    assert (model.fixed_size, model.fixed_by.split()[0]) == (32, layer)
    assert tuple(model.net.inputs[0].shape) == (None, 32, 32, 3)
    assert difference(model, 32) <= TOLERANCE


def test_any_size_but_this_one(saved, request_for):
    def deep(image):
        from keras import layers

        x = layers.Conv2D(4, 9, name="wide")(image)
        return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))

    with pytest.raises(UnsupportedSize, match=r"cannot take 4 pixels: wide"):
        ingest(request_for(saved(deep, side=None), 4, 32))


def test_preprocessing_and_nested_models_are_carried_over(tmp_path, request_for, difference):
    import keras
    from keras import layers

    inner_image = keras.Input((32, 32, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(inner_image))
    inner = keras.Model(inner_image, x, name="inner")
    normalization = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
    outer = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(0.5),
            normalization,
            inner,
            layers.Conv2D(4, 1, name="conv_outer"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3, activation="relu"),
        ]
    )
    outer.save(tmp_path / "net.keras")
    model = ingest(request_for(tmp_path / "net.keras", 32, 48))
    kinds = [type(layer).__name__ for layer in model.net.layers]
    assert {"Rescaling", "Normalization", "BatchNormalization"} <= set(kinds)
    assert "Functional" not in kinds
    assert model.outputs[0].activation == "none"
    assert difference(model, 32) <= TOLERANCE


def test_mixed_precision_becomes_float32(tmp_path, request_for, difference):
    import keras
    from keras import layers

    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, dtype="mixed_float16")(image)
    model = keras.Model(image, layers.Dense(3, dtype="float32")(layers.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / "net.keras")
    model = ingest(request_for(tmp_path / "net.keras", 32))
    assert {layer.compute_dtype for layer in model.net.layers} == {"float32"}
    assert "float32" in model.notes[0]
    assert difference(model, 32) <= TOLERANCE


def two_outputs():
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, [layers.Dense(3, name="age")(x), layers.Dense(2, name="kind")(x)])


def grey():
    import keras
    from keras import layers

    image = keras.Input((32, 32, 1))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(image)))


def oblong():
    import keras
    from keras import layers

    image = keras.Input((32, 48, 3))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(image)))


def no_classifier():
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    return keras.Model(image, layers.Conv2D(3, 3)(image))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (two_outputs, r"2 outputs \(age .*kind .*--task"),
        (grey, r"\(None, 32, 32, 1\): expected one colour image"),
        (oblong, "32 x 48"),
        (no_classifier, r"a classifier has one, \(None, classes\)"),
    ],
)
def test_interface(build, match, tmp_path, request_for):
    build().save(tmp_path / "net.keras")
    with pytest.raises(UnsupportedModel, match=match):
        ingest(request_for(tmp_path / "net.keras", 32))


def test_reference_is_the_model_as_it_was_loaded(saved, request_for):
    import keras

    path = saved(padded)
    model = ingest(request_for(path, 32))
    images = np.random.default_rng(0).normal(size=(40, 32, 32, 3)).astype("float32")
    expected = np.asarray(keras.saving.load_model(path)(images))
    np.testing.assert_allclose(model.reference(images)[0], expected, atol=1e-6)

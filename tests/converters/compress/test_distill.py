"""Distillation: a student learns from its teacher; what it refuses; how it is made cheaper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boardfit.converters.compress.distill import Distill
from boardfit.converters.compress.distill_net import DistillOptions
from boardfit.converters.compress.images import Augment, ImageSet
from boardfit.converters.compress.nets import batch_norms
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.train import Training
from boardfit.errors import CompressError

ALL = DistillOptions(hint=1.0, contrast=1.0, decouple=1.0)
FROZEN = DistillOptions(norms="frozen")


@pytest.fixture
def stage(make_images):
    """Return a function that makes the stage."""

    def make(images: ImageSet | None = None, **options) -> Distill:
        images = make_images(labelled=False) if images is None else images
        training = {"epochs": 3, "batch": 16, "learning_rate": 0.05, "seed": 3}
        own = {name: options.pop(name) for name in list(options) if name in Training.__dataclass_fields__}
        given = {
            "size": 16,
            "images": lambda _: images,
            "labelled": images.labels is not None,
            "training": Training(**{**training, **own}),
        }
        return Distill(**{**given, **options})

    return make


@pytest.fixture(scope="module")
def expert():
    """A teacher that knows the patterns: trained on labels."""
    import runpy
    from pathlib import Path

    small = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
    images = small["build_images"](192)
    training = Training(epochs=10, batch=16, learning_rate=0.05, seed=3)
    options = DistillOptions(teacher=0.0)
    teach = Distill(size=16, images=lambda _: images, labelled=True, training=training, options=options)
    return run_stage(teach, small["build_source"](seed=4)).model


def right(model, images: ImageSet) -> float:
    tensor = (images.pixels.astype(np.float32) - 127.5) / 127.5
    return float((model.reference(tensor)[0].argmax(1) == images.labels).mean())


def test_without_labels_a_student_learns_what_its_teacher_knows(stage, make_source, make_images, expert):
    unlabelled, test = make_images(192, labelled=False, seed=2), make_images(200, seed=9)
    assert right(expert, test) > 0.9
    student = make_source(widths=(4, 8))
    learned = run_stage(stage(unlabelled, epochs=10, teacher=expert), student).model
    assert right(learned, test) > right(student, test) + 0.3
    assert right(learned, test) > 0.8


@pytest.mark.parametrize(
    "options",
    [
        DistillOptions(teacher=0.0, hint=1.0),
        DistillOptions(teacher=0.0, contrast=1.0),
        DistillOptions(teacher=1.0, decouple=1.0),
    ],
    ids=["hint", "contrast", "decouple"],
)
def test_each_loss_falls(options, stage, make_source, expert):
    moments = []
    student = make_source(widths=(8, 24))
    run_stage(stage(options=options, epochs=6, watch=moments.append, teacher=expert), student)
    ends = [moment.loss for moment in moments if moment.step == moment.steps]
    assert ends[-1] < 0.9 * ends[0]


def test_after_few_steps_statistics_are_those_of_the_images(stage, make_source, make_images):
    import keras

    images, source = make_images(192, labelled=False), make_source()
    for norm in batch_norms(source.net):
        norm.momentum = 0.99
    result = run_stage(stage(images, epochs=1), source)
    assert any("12 steps left 89 % of what batch normalisation knew before" in note for note in result.notes)
    net = result.model.net
    first = keras.Model(net.inputs, net.layers[1].output)
    seen = np.asarray(first((images.pixels.astype(np.float32) - 127.5) / 127.5))
    assert np.allclose(batch_norms(net)[0].moving_mean, seen.mean((0, 1, 2)), atol=1e-3)
    assert not any(layer.trainable for layer in net.layers)


@pytest.mark.parametrize(
    ("momentum", "options"),
    [(0.5, DistillOptions()), (0.99, FROZEN)],
    ids=["many steps", "statistics that stay"],
)
def test_else_statistics_are_as_the_training_left_them(momentum, options, stage, make_source, make_images):
    source = make_source()
    for norm in batch_norms(source.net):
        norm.momentum = momentum
    result = run_stage(stage(make_images(192, labelled=False), epochs=1, options=options), source)
    assert not any("batch normalisation" in note for note in result.notes)


def test_decoupling_decouples(stage, make_source, expert):
    import keras

    from boardfit.converters.compress.losses import group_correlation

    def correlation(model, images):
        embed = keras.Model(model.net.inputs, model.net.layers[-2].output)
        return float(group_correlation(embed([(images.pixels.astype(np.float32) - 127.5) / 127.5]), 4))

    unlabelled = stage().images(16)
    runs = [
        run_stage(stage(options=DistillOptions(decouple=w), epochs=6, teacher=expert), make_source()).model
        for w in (0.0, 5.0)
    ]
    plain, decoupled = (correlation(model, unlabelled) for model in runs)
    assert decoupled < 0.6 * plain


def test_accuracy_is_told_with_labels_and_agreement_without(stage, make_source, make_images):
    for images, name in ((make_images(), "accuracy"), (make_images(labelled=False), "agreement")):
        moments = []
        run_stage(stage(images, watch=moments.append, epochs=1), make_source())
        assert set(moments[-1].metrics) == {"loss", name}
        assert 0.0 <= moments[-1].metrics[name] <= 1.0


def test_a_teacher_that_is_the_student_agrees_at_once(stage, make_source):
    """Images are fed as they are: nothing is lost between the two."""
    moments = []
    run_stage(stage(options=FROZEN, learning_rate=1e-9, epochs=1, watch=moments.append), make_source())
    assert moments[-1].metrics["agreement"] == 1.0
    assert moments[-1].loss == pytest.approx(0.0, abs=1e-6)


def test_frozen_norms_keep_their_statistics(stage, make_source):
    model = make_source()
    after = run_stage(stage(options=FROZEN, teacher=make_source(seed=8)), model).model
    for name in ("moving_mean", "moving_variance"):
        old, new = (getattr(one.net.layers[2], name) for one in (model, after))
        assert np.array_equal(old, new)
    assert not np.array_equal(model.net.layers[1].get_weights()[0], after.net.layers[1].get_weights()[0])


def test_a_teacher_of_another_size_is_asked_at_its_own(stage, make_source, make_images):
    sides = []
    images = make_images(side=24, labelled=False)

    def read(side):
        sides.append(side)
        return images

    teacher = replace(make_source(seed=8), fixed_size=24, fixed_by="flatten")
    run_stage(replace(stage(epochs=1, teacher=teacher), images=read), make_source())
    assert sides == [24]


def test_mixed_numbers_learn_as_much_and_the_result_is_float32(stage, make_source, expert):
    ends = []
    for one in ("float32", "mixed_bfloat16", "mixed_float16"):
        moments = []
        trained = stage(numbers=one, epochs=4, watch=moments.append, options=ALL, teacher=expert)
        after = run_stage(trained, make_source()).model
        assert {layer.dtype_policy.name for layer in after.net.layers} == {"float32"}
        ends.append(moments[-1].loss)
    assert ends[1:] == pytest.approx([ends[0]] * 2, rel=0.1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulated_gradients_are_those_of_the_larger_batch(optimizer, stage, make_source, monkeypatch):
    """Without normalisation over the batch, and at the same rate, two halves are the whole."""
    import keras

    monkeypatch.setattr(keras.optimizers.schedules, "CosineDecay", lambda *_, **__: 0.02)
    still = {"augment": Augment(flip=False, shift=0.0), "optimizer": optimizer, "epochs": 2}
    runs = [
        run_stage(
            stage(batch=batch, accumulate=32 // batch, **still, options=FROZEN, teacher=make_source(seed=8)),
            make_source(),
        ).model
        for batch in (32, 16)
    ]
    for a, b in zip(*(model.net.get_weights() for model in runs), strict=True):
        assert np.allclose(a, b, atol=2e-4)
    assert not np.allclose(runs[0].net.get_weights()[0], make_source().net.get_weights()[0], atol=2e-3)


def test_activations_computed_twice_give_the_same_weights(stage, make_source, expert):
    """Normalisation and dropout are both seen once and the same."""
    runs = [
        run_stage(stage(recompute=again, options=ALL, teacher=expert), make_source(dropout=0.2)).model
        for again in (False, True)
    ]
    for a, b in zip(*(model.net.get_weights() for model in runs), strict=True):
        assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "teacher", "message"),
    [
        ({"teacher": 0.0}, {}, "nothing teaches the net"),
        ({}, {"classes": 5}, "answers 5 classes and small 4: expected a teacher of the same classes"),
        ({"decouple": 1.0, "groups": 40}, {}, "16 numbers cannot be cut into 40 groups"),
    ],
    ids=["nothing", "other classes", "groups"],
)
def test_what_cannot_be_taught_is_refused(options, teacher, message, stage, make_source):
    with pytest.raises(CompressError, match=message):
        stage(options=DistillOptions(**options), teacher=make_source(**teacher)).requires(make_source())


def test_a_teacher_that_answers_no_scores_is_refused(stage, make_source):
    teacher = make_source()
    teacher = replace(teacher, outputs=(replace(teacher.outputs[0], activation="none"),))
    with pytest.raises(CompressError, match="needs scores of two or more classes"):
        stage(teacher=teacher).requires(make_source())


def test_a_net_without_an_embedding_is_refused_where_one_is_compared(stage, make_source):
    import keras
    from keras import layers

    image = keras.Input((None, None, 3))
    net = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image)), name="bare")
    model = replace(make_source(), name="bare", net=net)
    with pytest.raises(CompressError, match="bare has no embedding"):
        stage(options=DistillOptions(contrast=1.0), teacher=make_source()).requires(model)


def test_a_net_per_size_is_refused(stage, make_source):
    model = make_source()
    with pytest.raises(CompressError, match="distill first, and make it elastic then"):
        stage().requires(replace(model, nets_by_size={16: model.net}))


def test_hints_without_a_resolution_in_common_are_refused(stage, make_source):
    import keras
    from keras import layers

    image = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 5, strides=5)(image))
    net = keras.Model(image, layers.Dense(4)(x), name="coarse")
    with pytest.raises(CompressError, match="no resolution in common"):
        run_stage(
            stage(options=DistillOptions(hint=1.0), teacher=make_source()), replace(make_source(), net=net)
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"teacher": -1.0},
        {"temperature": 0.5},
        {"contrast_temperature": 0.0},
        {"groups": 1},
        {"norms": "magic"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_check_themselves(wrong):
    with pytest.raises(CompressError):
        DistillOptions(**wrong)

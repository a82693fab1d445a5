"""The elastic stage: its contract, private norms, phases, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from boardfit.converters.compress import elastic_net as elastic_net_module
from boardfit.converters.compress.elastic import Elastic
from boardfit.converters.compress.elastic_net import (
    DEALT,
    LARGEST,
    TOGETHER,
    ElasticNet,
    ElasticOptions,
    dealt_edges,
)
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.nets import batch_norms, view, with_private_norms
from boardfit.converters.compress.recompute import Recomputed
from boardfit.converters.compress.resize import input_tensor
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.compress.train import Training
from boardfit.errors import CompressError, ExportError
from boardfit.specs import ImageSpec, TensorSpec

SIZES = (8, 12, 16)
CLASSES = 4


@pytest.fixture
def stage(make_images):
    """Return a function that makes the stage."""

    def make(images: ImageSet | None = None, **options) -> Elastic:
        images = make_images() if images is None else images
        given = {
            "sizes": SIZES,
            "images": lambda side: images,
            "labelled": images.labels is not None,
            "training": Training(epochs=1, batch=24, learning_rate=0.05, seed=3),
            "options": ElasticOptions(shares=(0.0, 0.0, 1.0)),
        }
        return Elastic(**{**given, **options})

    return make


def weights(net) -> list[np.ndarray]:
    return [np.array(weight) for weight in net.get_weights()]


@pytest.mark.parametrize(
    ("activation", "labelled"),
    [("logits", True), ("softmax", False)],
    ids=["logits, labels", "softmax, none"],
)
def test_the_contract(activation, labelled, stage, make_source, make_images):
    model = make_source(activation=activation)
    before = weights(model.net)
    # One epoch of each phase.
    training = Training(epochs=3, batch=24, learning_rate=0.05, seed=3)
    options = ElasticOptions(shares=(0.34, 0.33, 0.33))
    moments = []
    asked = stage(make_images(labelled=labelled), training=replace(training, watch=moments.append))
    result = run_stage(replace(asked, options=options), model)
    assert [moment.phase for moment in moments if moment.step == moment.steps] == [LARGEST, DEALT, TOGETHER]
    after = result.model
    assert set(after.nets_by_size) == set(SIZES)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(model.net), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(before, weights(after.net), strict=True))
    assert "2 batch normalisations are private to each of 3 sizes" in result.notes[0]
    for size in SIZES:
        tensor = np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)
        found = np.asarray(after.nets_by_size[size](tensor, training=False))
        assert np.allclose(after.reference(tensor)[0], found, atol=1e-6)
        assert after.at(size).net is after.nets_by_size[size]


def test_sizes_share_kernels_and_nothing_of_the_norms(make_net):
    nets = with_private_norms(make_net(), SIZES)
    kernels = [id(layer) for layer in nets[16].layers if isinstance(layer, keras.layers.Conv2D)]
    for size in SIZES[:-1]:
        assert [id(x) for x in nets[size].layers if isinstance(x, keras.layers.Conv2D)] == kernels
        assert not {id(x) for x in batch_norms(nets[size])} & {id(x) for x in batch_norms(nets[16])}


def test_a_small_size_gains(stage, make_source, make_images):
    """A net that was trained at 16 alone answers worse at 8 than the elastic one does."""
    images = make_images(192)
    plain = make_source()
    alone = Training(epochs=10, batch=24, learning_rate=0.05, seed=3)
    options = ElasticOptions(shares=(1.0, 0.0, 0.0), teacher=0.0)
    trained = run_stage(stage(images, training=alone, options=options), plain).model
    elastic = run_stage(stage(images, training=alone, options=ElasticOptions(teacher=1.0)), plain).model
    test = make_images(200, seed=9)
    pixels = (test.pixels.astype(np.float32) - 127.5) / 127.5
    small = pixels.reshape(200, 8, 2, 8, 2, 3).mean((2, 4))

    def right(net, tensor):
        return float((np.asarray(net(tensor, training=False)).argmax(1) == test.labels).mean())

    assert right(elastic.nets_by_size[8], small) > right(trained.net, small) + 0.1
    assert right(elastic.nets_by_size[16], pixels) > 0.8


@pytest.mark.parametrize(
    ("options", "taken", "steps"),
    [
        (ElasticOptions(shares=(0.5, 0.0, 0.5)), SIZES, 8),
        (ElasticOptions(kernels="frozen"), SIZES[:-1], 16),
    ],
    ids=["trained", "frozen kernels"],
)
def test_after_few_steps_each_size_has_the_statistics_of_its_images(
    options, taken, steps, stage, make_source, make_images
):
    images, source = make_images(192), make_source()
    for norm in batch_norms(source.net):
        norm.momentum = 0.99
    short = Training(epochs=2, batch=24, learning_rate=0.05, seed=3)
    result = run_stage(stage(images, training=short, options=options), source)
    told = f"left up to {100 * 0.99**steps:.0f} % of what batch normalisation knew before: at "
    assert f"{told}{', '.join(map(str, taken))} it took" in result.notes[-1]
    for size, net in result.model.nets_by_size.items():
        seen = np.asarray(net.layers[1](np.asarray(input_tensor(images.pixels, source.image, size))))
        same = np.allclose(batch_norms(net)[0].moving_mean, seen.mean((0, 1, 2)), atol=1e-3)
        assert same is (size in taken)
        assert not any(layer.trainable for layer in net.layers)


def test_after_many_steps_statistics_are_as_the_training_left_them(stage, make_source, make_images):
    source = make_source()
    for norm in batch_norms(source.net):
        norm.momentum = 0.5
    images = make_images(192)
    result = run_stage(stage(images), source)
    assert not any("knew before" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "count"),
    [(ElasticOptions((0.0, 0.5, 0.5), hint=1.0), 3), (ElasticOptions(norms="frozen", kernels="frozen"), 2)],
    ids=["trained", "frozen"],
)
def test_activations_computed_twice_give_the_same_nets(options, count, stage, make_source, monkeypatch):
    made = []

    def cut(net):
        made.append(Recomputed(net))
        return made[-1]

    monkeypatch.setattr(elastic_net_module, "Recomputed", cut)
    runs = []
    for again in (False, True):
        training = Training(epochs=2, batch=24, learning_rate=0.02, seed=3, recompute=again)
        after = run_stage(stage(training=training, options=options), make_source(dropout=0.2)).model
        runs.append([weight for size in SIZES for weight in weights(after.nets_by_size[size])])
    assert len(made) == count
    for plain, twice in zip(*runs, strict=True):
        assert np.allclose(plain, twice, atol=1e-5)


def test_frozen_norms_keep_their_statistics_and_learn_scale_and_shift(stage, make_source):
    model = make_source()
    after = run_stage(stage(options=ElasticOptions((0.0, 0.0, 1.0), norms="frozen")), model).model
    for size in SIZES:
        for old, new in zip(batch_norms(model.net), batch_norms(after.nets_by_size[size]), strict=True):
            assert np.array_equal(old.moving_mean, new.moving_mean)
            assert not np.array_equal(old.gamma, new.gamma)


def test_frozen_kernels_leave_the_largest_size_as_it_was(stage, make_source):
    model = make_source()
    frozen = ElasticOptions(norms="frozen", kernels="frozen", labels=0.0)
    after = run_stage(stage(options=frozen), model).model
    for old, new in zip(weights(model.net), weights(after.nets_by_size[16]), strict=True):
        assert np.array_equal(old, new)
    small, source = after.nets_by_size[8], model.net
    for old, new in zip(source.layers, small.layers, strict=True):
        same = all(np.array_equal(a, b) for a, b in zip(weights(old), weights(new), strict=True))
        assert same is not isinstance(old, keras.layers.BatchNormalization)


def test_a_net_without_norms_is_left_alone_while_kernels_are_frozen_and_that_is_said(stage, make_source):
    model = make_source(norm=False)
    result = run_stage(stage(options=ElasticOptions(kernels="frozen")), model)
    assert result.model is model
    assert "skipped, the net has no batch normalisation" in result.notes[0]


def test_a_net_without_norms_works_and_says_what_is_skipped(stage, make_source):
    result = run_stage(stage(), make_source(norm=False))
    assert result.model.nets_by_size is None
    assert "no batch normalisation, so that all sizes share everything" in result.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixed_size": 16, "fixed_by": "flatten"}, "takes 16 pixels only .flatten binds the size"),
        (
            {"outputs": (TensorSpec(name="scores", shape=(None, CLASSES), activation="none"),)},
            "needs scores of two or more classes",
        ),
    ],
    ids=["fixed size", "no scores"],
)
def test_what_it_cannot_work_on_is_refused(change, message, stage, make_source):
    with pytest.raises(CompressError, match=message):
        run_stage(stage(), replace(make_source(), **change))


def test_a_batch_smaller_than_the_sizes_is_refused(stage, make_source):
    with pytest.raises(CompressError, match="a batch of 2 images cannot be dealt among 3 sizes"):
        run_stage(stage(training=Training(epochs=1, batch=2)), make_source())


def test_a_net_that_nothing_teaches_is_refused(stage, make_source, make_images):
    idle = stage(make_images(labelled=False), options=ElasticOptions(teacher=0.0))
    with pytest.raises(CompressError, match="nothing teaches the net"):
        run_stage(idle, make_source())


def test_one_size_is_refused(stage, make_source):
    with pytest.raises(CompressError, match="two or more sizes"):
        run_stage(stage(sizes=(16,)), make_source())


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": (0.5, 0.0, 0.0)},
        {"teacher": -1.0},
        {"temperature": 0.5},
        {"norms": "magic"},
        {"kernels": "magic"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_check_themselves(wrong):
    with pytest.raises(CompressError):
        ElasticOptions(**wrong)


@pytest.mark.parametrize(
    ("batch", "parts", "edges"),
    [(128, 3, [0, 40, 80, 128]), (24, 3, [0, 8, 16, 24]), (7, 3, [0, 2, 4, 7]), (64, 2, [0, 32, 64])],
)
def test_a_batch_is_dealt_whole(batch, parts, edges):
    assert dealt_edges(batch, parts) == edges


def elastic_net(net, **options) -> ElasticNet:
    views = {size: view(one) for size, one in with_private_norms(net, SIZES).items()}
    given = {"image": ImageSpec(), "activation": "logits", "options": ElasticOptions(), "labelled": True}
    return ElasticNet(views, **{**given, "batch": 24, **options})


def test_the_smaller_sizes_learn_from_the_largest_and_it_learns_nothing_from_them(make_images, make_net):
    import tensorflow as tf

    net = make_net()
    model = elastic_net(net, labelled=False, options=ElasticOptions(labels=0.0))
    model.phase = TOGETHER
    images = make_images(24).pixels
    with tf.GradientTape(persistent=True) as tape:
        answers = model(images, training=True)
        loss = model.compute_loss(x=images, y=None, y_pred=answers)
    largest = batch_norms(model.nets[-1])[-1].gamma.value
    smallest = batch_norms(model.nets[0])[-1].gamma.value
    assert float(loss) > 0.0
    assert tape.gradient(loss, largest) is None
    assert float(tf.reduce_sum(tf.abs(tape.gradient(loss, smallest)))) > 0.0


def test_a_frozen_largest_size_has_no_part_in_the_loss(make_images, make_net):
    frozen = ElasticOptions(kernels="frozen", norms="frozen")
    model = elastic_net(make_net(), options=frozen)
    model.phase = TOGETHER
    images = make_images(24)
    answers = model(images.pixels, training=True)
    loss = float(model.compute_loss(x=images.pixels, y=images.labels, y_pred=answers))
    largest = answers[str(SIZES[-1])]
    small = [float(model._taught_by(largest, answers[str(size)], images.labels)) for size in SIZES[:-1]]
    assert loss == pytest.approx(sum(small) / len(small))


def test_dealt_images_are_seen_once(make_images, make_net):
    model = elastic_net(make_net())
    model.phase = DEALT
    answers = model(make_images(24).pixels, training=False)
    assert [answers[str(size)]["scores"].shape[0] for size in SIZES] == [8, 8, 8]


def test_one_file_cannot_hold_several_nets(make_source):
    from boardfit.converters.targets import export

    source = make_source()
    model = replace(source, nets_by_size=with_private_norms(source.net, SIZES))
    with pytest.raises(ExportError, match="a net of its own at each size"):
        export(model, format_name="onnx", sizes=SIZES, precision="fp32")

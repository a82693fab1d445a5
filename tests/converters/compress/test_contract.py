"""What every compress stage promises, whatever it does. A new stage joins by a line in ``STAGES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from boardfit.converters.compress.distill import Distill
from boardfit.converters.compress.distill_net import DistillOptions
from boardfit.converters.compress.elastic import Elastic
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.stage import Stage, run_stage
from boardfit.converters.compress.train import Training
from boardfit.converters.model import TrainedModel
from boardfit.errors import CompressError

SIZES = (8, 16)
TRAINING = Training(epochs=2, batch=16, learning_rate=0.02, seed=5)


def elastic(images: ImageSet) -> Stage:
    return Elastic(sizes=SIZES, images=lambda _: images, labelled=True, training=TRAINING)


def distill(images: ImageSet) -> Stage:
    options = DistillOptions(hint=1.0, contrast=0.5, decouple=0.5)
    return Distill(size=16, images=lambda _: images, labelled=True, training=TRAINING, options=options)


STAGES: dict[str, Callable[[ImageSet], Stage]] = {"elastic": elastic, "distill": distill}
CHANGES_ANSWERS = {"elastic", "distill"}


@pytest.fixture(params=STAGES)
def stage(request, images) -> Stage:
    made = STAGES[request.param](images)
    assert made.name == request.param
    return made


@pytest.fixture
def tensor() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(3, 16, 16, 3)).astype(np.float32)


def weights(model: TrainedModel) -> list[np.ndarray]:
    nets = (model.nets_by_size or {0: model.net}).values()
    return [np.array(weight) for net in nets for weight in net.get_weights()]


@pytest.mark.parametrize("activation", ["logits", "softmax"])
def test_it_returns_a_model_of_the_same_interface_and_leaves_the_given_one_alone(
    stage, make_source, tensor, activation
):
    model = make_source(activation=activation)
    before, answered = weights(model), model.reference(tensor)[0]
    trainable = [layer.trainable for layer in model.net.layers]
    result = run_stage(stage, model)
    after = result.model
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert [layer.trainable for layer in model.net.layers] == trainable
    assert np.array_equal(model.reference(tensor)[0], answered)
    for name in ("name", "outputs", "image", "labels", "fixed_size", "task", "further"):
        assert getattr(after, name) == getattr(model, name)
    assert [tuple(x.shape) for x in after.net.outputs] == [tuple(x.shape) for x in model.net.outputs]
    assert [x.dtype for x in after.net.outputs] == [x.dtype for x in model.net.outputs]
    assert result.notes and all(isinstance(note, str) for note in result.notes)


def test_its_reference_is_its_net(stage, make_source, tensor):
    after = run_stage(stage, make_source()).model
    found = np.asarray(after.at(16).net(tensor, training=False))
    assert np.isfinite(found).all()
    assert np.allclose(after.reference(tensor)[0], found, atol=1e-5)


def test_it_does_something(stage, make_source, tensor):
    model = make_source()
    after = run_stage(stage, model).model
    same = np.allclose(after.reference(tensor)[0], model.reference(tensor)[0], atol=1e-4)
    assert same is (stage.name not in CHANGES_ANSWERS)
    assert any(
        a.shape != b.shape or not np.array_equal(a, b)
        for a, b in zip(weights(model), weights(after), strict=False)
    )


def test_it_repeats_to_the_last_bit(stage, make_source):
    runs = [weights(run_stage(stage, make_source(dropout=0.3)).model) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


def test_weights_that_are_not_finite_break_its_promise(stage, make_source):
    model = make_source()
    after = run_stage(stage, model).model
    broken = after.at(16).net
    broken.layers[1].set_weights([np.full_like(weight, np.nan) for weight in broken.layers[1].get_weights()])
    with pytest.raises(CompressError, match="not finite"):
        stage.ensures(model, after)


def test_another_answer_breaks_its_promise(stage, make_source):
    model = make_source()
    after = run_stage(stage, model).model
    other = make_source(classes=5).net
    nets = None if after.nets_by_size is None else dict.fromkeys(after.nets_by_size, other)
    with pytest.raises(CompressError, match="answers"):
        stage.ensures(model, replace(after, net=other, nets_by_size=nets))


def test_what_is_no_classifier_is_refused_before_anything_long(stage, make_source):
    model = make_source()
    outputs = (replace(model.outputs[0], activation="none"),)
    with pytest.raises(CompressError, match="needs scores of two or more classes"):
        stage.requires(replace(model, outputs=outputs))

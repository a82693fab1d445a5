"""What every compress stage promises, whatever it does. A new stage joins by a line in ``STAGES``."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from boardfit.converters.compress.distill import Distill
from boardfit.converters.compress.distill_net import DistillOptions
from boardfit.converters.compress.elastic import Elastic
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.stage import Stage, StageResult, run_stage
from boardfit.converters.compress.train import Training
from boardfit.converters.model import TrainedModel
from boardfit.errors import CompressError

_SMALL = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
build_images, build_source = _SMALL["build_images"], _SMALL["build_source"]

SIZES = (8, 16)
TRAINING = Training(epochs=2, batch=16, learning_rate=0.02, seed=5)


def elastic(images: ImageSet) -> Stage:
    return Elastic(sizes=SIZES, images=lambda _: images, labelled=True, training=TRAINING)


def distill(images: ImageSet) -> Stage:
    options = DistillOptions(hint=1.0, contrast=0.5, decouple=0.5)
    return Distill(size=16, images=lambda _: images, labelled=True, training=TRAINING, options=options)


def prune(images: ImageSet) -> Stage:
    from boardfit.converters.compress.prune import Prune
    from boardfit.converters.recipe_prune import PruneSection

    return Prune(PruneSection(macs=0.3, multiple=2), side=16, images=lambda _: images)


def sparsify(_: ImageSet) -> Stage:
    from boardfit.converters.compress.sparsify import Sparsify

    return Sparsify(share=0.5)


STAGES: dict[str, Callable[[ImageSet], Stage]] = {
    "prune": prune,
    "distill": distill,
    "sparsify": sparsify,
    "elastic": elastic,
}
TRAINS = {"distill", "elastic"}


@dataclass(frozen=True)
class Done:
    """A stage that was run once, for all tests."""

    stage: Stage
    model: TrainedModel
    before: list[np.ndarray]
    answered: np.ndarray
    result: StageResult


@pytest.fixture(scope="module")
def tensor() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(3, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=STAGES)
def done(request, tensor) -> Done:
    stage, model = STAGES[request.param](build_images()), build_source(dropout=0.3)
    assert stage.name == request.param
    before, answered = weights(model), model.reference(tensor)[0]
    return Done(stage, model, before, answered, run_stage(stage, model))


def weights(model: TrainedModel) -> list[np.ndarray]:
    nets = (model.nets_by_size or {0: model.net}).values()
    return [np.array(weight) for net in nets for weight in net.get_weights()]


def test_the_given_model_stays_as_it_was(done, tensor):
    assert all(np.array_equal(a, b) for a, b in zip(done.before, weights(done.model), strict=True))
    assert all(layer.trainable for layer in done.model.net.layers)
    assert np.array_equal(done.model.reference(tensor)[0], done.answered)


def test_the_interface_stays_as_it_was(done):
    model, after = done.model, done.result.model
    for name in ("name", "outputs", "image", "labels", "fixed_size", "task", "further"):
        assert getattr(after, name) == getattr(model, name)
    assert [tuple(x.shape) for x in after.net.outputs] == [tuple(x.shape) for x in model.net.outputs]
    assert [x.dtype for x in after.net.outputs] == [x.dtype for x in model.net.outputs]
    assert done.result.notes and all(isinstance(note, str) for note in done.result.notes)


def test_its_reference_is_its_net(done, tensor):
    after = done.result.model
    found = np.asarray(after.at(16).net(tensor, training=False))
    assert np.isfinite(found).all()
    assert np.allclose(after.reference(tensor)[0], found, atol=1e-5)


def test_it_does_something(done, tensor):
    after = done.result.model
    assert not np.allclose(after.reference(tensor)[0], done.answered, atol=1e-4)
    assert [array.tobytes() for array in weights(after)] != [array.tobytes() for array in done.before]


def test_it_repeats_to_the_last_bit(done):
    again = run_stage(STAGES[done.stage.name](build_images()), build_source(dropout=0.3)).model
    assert all(np.array_equal(a, b) for a, b in zip(weights(done.result.model), weights(again), strict=True))


def test_softmax_stays_softmax(done, tensor):
    model = build_source(activation="softmax")
    found = run_stage(done.stage, model).model.reference(tensor)[0]
    assert np.allclose(found.sum(axis=1), 1.0, atol=1e-5) and found.min() >= 0.0


def test_weights_that_are_not_finite_break_its_promise(done):
    after = done.result.model
    broken = build_source(dropout=0.3).net
    broken.set_weights([np.full_like(weight, np.nan) for weight in broken.get_weights()])
    nets = None if after.nets_by_size is None else dict.fromkeys(after.nets_by_size, broken)
    with pytest.raises(CompressError, match="not finite"):
        done.stage.ensures(done.model, replace(after, net=broken, nets_by_size=nets))


def test_another_answer_breaks_its_promise(done):
    after, other = done.result.model, build_source(classes=5).net
    nets = None if after.nets_by_size is None else dict.fromkeys(after.nets_by_size, other)
    with pytest.raises(CompressError, match="answers"):
        done.stage.ensures(done.model, replace(after, net=other, nets_by_size=nets))


def test_what_is_no_classifier_is_not_trained_and_that_is_said_before_anything_long(done):
    if done.stage.name not in TRAINS:
        pytest.skip("it looks at no answers")
    outputs = (replace(done.model.outputs[0], activation="none"),)
    with pytest.raises(CompressError, match="needs scores of two or more classes"):
        done.stage.requires(replace(done.model, outputs=outputs))

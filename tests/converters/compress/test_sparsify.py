"""Magnitude sparsity: which weights become 0, and what is promised of it."""

from __future__ import annotations

import numpy as np
import pytest

from boardfit.converters.compress.sparsify import Sparsify, lamp_scores
from boardfit.converters.compress.stage import run_stage
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.errors import CompressError
from boardfit.specs import ImageSpec, TensorSpec


@pytest.fixture
def model(make_net) -> TrainedModel:
    net = make_net()
    output = TensorSpec("scores", (None, 4), activation="logits")
    return TrainedModel("small", net, (output,), ImageSpec(), keras_reference(net))


def kernels(model: TrainedModel) -> list[np.ndarray]:
    return [weight for weight in model.net.get_weights() if weight.ndim > 1]


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_so_many_weights_are_zero_and_the_rest_is_as_it_was(share, model):
    before = kernels(model)
    result = run_stage(Sparsify(share), model)
    after = kernels(result.model)
    zeros = sum(int((kernel == 0.0).sum()) for kernel in after)
    assert zeros / sum(kernel.size for kernel in after) == pytest.approx(share, abs=0.01)
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(new, np.where(new == 0.0, 0.0, old))
        # No kernel is emptied, and what went is smaller than what stayed.
        assert np.count_nonzero(new) > 0
        gone = np.abs(old[new == 0.0])
        assert gone.size == 0 or gone.max() <= np.abs(new[new != 0.0]).min()
    assert all(np.array_equal(a, b) for a, b in zip(before, kernels(model), strict=True))
    assert "engines as slow as before" in result.notes[0]


def test_scores_of_one_kernel():
    assert lamp_scores(np.array([[1.0, 2.0], [-2.0, 4.0]])) == pytest.approx([1 / 25, 4 / 24, 4 / 20, 1.0])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_that_make_no_sense_are_refused(share, model):
    with pytest.raises(CompressError, match="expected above 0, below 1"):
        Sparsify(share).requires(model)


def test_a_promise_that_is_broken_is_seen(model, make_net):
    from dataclasses import replace

    with pytest.raises(CompressError, match="zeros only"):
        Sparsify(0.5).ensures(model, model)
    with pytest.raises(CompressError, match="other weights"):
        Sparsify(0.5).ensures(model, replace(model, net=make_net(seed=5)))

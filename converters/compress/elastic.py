"""Elastic nets: one training makes one net good at every size of the bundle.

All sizes share the kernels; each has batch normalisation of its own. Training goes through three phases:
the largest size alone, then every batch dealt among the sizes, then every image at every size, where the
largest size teaches the smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from boardfit.converters.compress.elastic_net import DEALT, LARGEST, TOGETHER, ElasticNet, ElasticOptions
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.nets import (
    at_side,
    batch_norms,
    require_scores,
    trainable_copy,
    view,
    with_private_norms,
)
from boardfit.converters.compress.parallel import data_parallel
from boardfit.converters.compress.recalibrate import ENOUGH, STALE, recalibrate, share_before
from boardfit.converters.compress.stage import StageResult
from boardfit.converters.compress.train import Phase, Training, TrainReport, train
from boardfit.converters.ingest.reference import frozen_copy, keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.errors import CompressError


@dataclass(frozen=True, slots=True, eq=False)
class Elastic:
    """The stage: one net becomes one net per size that share their kernels.

    Attributes:
        sizes: Input sides in pixels, ascending.
        images: Reads what is trained on, at the side in pixels that it is given; called once.
        labelled: Whether the images have labels. With or without, the model as it comes teaches the largest
            size where kernels are trained and ``options.teacher`` is not 0.
        training: The loop's settings, and where its checkpoint goes.
        options: How the sizes are taught.
    """

    sizes: tuple[int, ...]
    images: Callable[[int], ImageSet]
    labelled: bool
    training: Training
    options: ElasticOptions = field(default_factory=ElasticOptions)

    @property
    def name(self) -> str:
        """Name of the stage."""
        return "elastic"

    def requires(self, model: TrainedModel) -> None:
        """Raise CompressError unless the model is free of size and answers scores."""
        if model.fixed_size is not None:
            raise CompressError(
                f"{model.name} takes {model.fixed_size} pixels only ({model.fixed_by} binds the size): "
                "an elastic net needs one that takes every size"
            )
        if len(self.sizes) < 2:
            raise CompressError("an elastic net needs two or more sizes, --sizes 112,160,224 for example")
        if self.training.batch < len(self.sizes):
            raise CompressError(
                f"a batch of {self.training.batch} images cannot be dealt among {len(self.sizes)} sizes: "
                "make distill.batch larger"
            )
        taught = self.options.teacher or (self.labelled and self.options.labels)
        if not taught:
            raise CompressError(
                "nothing teaches the net: expected elastic.teacher_weight above 0, or labels "
                "(distill.labels) with elastic.label_weight above 0"
            )
        require_scores(model.net, model.outputs[0].activation)

    def __call__(self, model: TrainedModel) -> StageResult:
        """Train, and return the model with one net per size."""
        if self._frozen and not batch_norms(model.net):
            note = (
                "elastic: skipped, the net has no batch normalisation, so that a size has nothing of its own "
                'to learn while kernels are frozen; elastic.kernels = "trained" in the recipe trains them'
            )
            return StageResult(model=model, notes=(note,))
        images = self.images(self.sizes[-1])
        with data_parallel(self.training.devices, batch=self.training.batch):
            trained, report = self._trained(model, images)
        nets = _as_float32(trained, model.net)
        renewed = self._renewed(nets, model, images, report)
        for net in nets.values():
            net.trainable = False
        references = {size: keras_reference(net) for size, net in nets.items()}

        def reference(images: np.ndarray, further: Sequence[np.ndarray] = ()) -> Any:
            return references[images.shape[1]](images, further)

        # Without normalisation of their own all sizes have the same weights: one net serves them.
        apart = nets if batch_norms(model.net) else None
        made = replace(model, net=nets[self.sizes[-1]], nets_by_size=apart, reference=reference)
        return StageResult(model=made, notes=(*self._notes(model), f"elastic: {report.sentence()}", *renewed))

    def ensures(self, before: TrainedModel, after: TrainedModel) -> None:
        """Raise CompressError unless every size has a net with finite weights, and answers as before."""
        nets = after.nets_by_size or dict.fromkeys(self.sizes, after.net)
        if set(nets) != set(self.sizes):
            raise CompressError(f"the elastic stage made nets for {sorted(nets)} only")
        for size, net in nets.items():
            if tuple(net.outputs[0].shape) != tuple(before.net.outputs[0].shape):
                raise CompressError(f"the elastic net at {size} pixels answers {tuple(net.outputs[0].shape)}")
            if not all(np.isfinite(weight).all() for weight in net.get_weights()):
                raise CompressError(f"the elastic net at {size} pixels has weights that are not finite")

    def _trained(self, model: TrainedModel, images: ImageSet) -> tuple[dict[int, Any], TrainReport]:
        """Return the nets that were trained, by size, and what their training was like."""
        numbers, seed = self.training.numbers, self.training.seed
        nets = with_private_norms(trainable_copy(model.net, seed=seed, numbers=numbers), self.sizes)
        if self._frozen:
            nets[self.sizes[-1]].trainable = False
        recompute = self.training.recompute
        views = {size: view(at_side(net, size) if recompute else net) for size, net in nets.items()}
        elastic = ElasticNet(
            views,
            image=model.image,
            activation=model.outputs[0].activation,
            options=self.options,
            labelled=self.labelled,
            batch=self.training.batch,
            teacher=None if self._frozen or not self.options.teacher else frozen_copy(model.net),
            recompute=recompute,
        )
        return nets, train(elastic, images, settings=self.training, phases=self._phases())

    def _renewed(
        self, nets: Mapping[int, Any], model: TrainedModel, images: ImageSet, report: TrainReport
    ) -> tuple[str, ...]:
        """Take statistics anew at the sizes where too few steps moved them, and return a note of it.

        See ``Distill``: a short training leaves averages of another net. A phase moves those of the sizes
        that it trains.
        """
        stale = {}
        for size, net in nets.items():
            largest = size == self.sizes[-1]
            if self.options.norms != "batch" or (largest and self._frozen):
                continue
            steps = sum(record.steps for record in report.history if largest or record.phase != LARGEST)
            before = share_before(net, steps)
            if before > STALE:
                stale[size] = before
        if not stale:
            return ()
        some = images.spread(ENOUGH)
        for size in stale:
            recalibrate(nets[size], some, model.image, side=size)
        return (
            f"elastic: few steps left up to {100 * max(stale.values()):.0f} % of what batch normalisation "
            f"knew before: at {', '.join(map(str, stale))} it took its statistics anew from {some.count} "
            "images",
        )

    @property
    def _frozen(self) -> bool:
        return self.options.kernels == "frozen"

    def _phases(self) -> tuple[Phase, ...]:
        if self._frozen:
            return (Phase(TOGETHER),)
        names = (LARGEST, DEALT, TOGETHER)
        return tuple(
            Phase(name=n, share=s) for n, s in zip(names, self.options.shares, strict=True) if s > 0.0
        )

    def _notes(self, model: TrainedModel) -> tuple[str, ...]:
        norms = len(batch_norms(model.net))
        if norms:
            return (f"elastic: {norms} batch normalisations are private to each of {len(self.sizes)} sizes",)
        return ("elastic: the net has no batch normalisation, so that all sizes share everything",)


def _as_float32(trained: Mapping[int, Any], source: Any) -> dict[int, Any]:
    """Return the nets as they are exported: computing in float32."""
    nets = with_private_norms(trainable_copy(source), tuple(trained))
    for size, net in nets.items():
        net.set_weights(trained[size].get_weights())
    return nets

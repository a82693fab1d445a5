"""Distillation: a net learns from another one on photographs, with or without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from boardfit.converters.compress.checkpoint import fingerprint
from boardfit.converters.compress.distill_net import DistillNet, DistillOptions, Side
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.nets import at_side, require_scores, trainable_copy, view
from boardfit.converters.compress.parallel import data_parallel
from boardfit.converters.compress.recalibrate import ENOUGH, STALE, recalibrate, share_before
from boardfit.converters.compress.recompute import Recomputed, waists
from boardfit.converters.compress.stage import StageResult
from boardfit.converters.compress.train import Training, TrainReport, train
from boardfit.converters.ingest.reference import frozen_copy, keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.errors import CompressError


@dataclass(frozen=True, slots=True, eq=False)
class Distill:
    """The stage: a model learns to answer like its teacher.

    Attributes:
        size: Input side in pixels at which the model is trained.
        images: Reads what is trained on, at the side in pixels that it is given; called once.
        labelled: Whether the images have labels.
        training: The loop's settings, and where its checkpoint goes.
        options: Weights of the losses.
        teacher: What teaches: the source of a model that was pruned, or a larger net of the same classes and
            image spec. None where nothing compares with it, or for the model as it comes.
    """

    size: int
    images: Callable[[int], ImageSet]
    labelled: bool
    training: Training
    options: DistillOptions = field(default_factory=DistillOptions)
    teacher: TrainedModel | None = None

    @property
    def name(self) -> str:
        """Name of the stage."""
        return "distill"

    def requires(self, model: TrainedModel) -> None:
        """Raise CompressError unless the model can learn what the options ask from this teacher."""
        if model.nets_by_size is not None:
            raise CompressError(f"{model.name} has a net per size: distill first, and make it elastic then")
        model.require_sizes((self.size,))
        require_scores(model.net, model.outputs[0].activation)
        options, taught = self.options, self._teacher_of(model)
        if not (options.asks_the_teacher or (self.labelled and options.labels)):
            raise CompressError(
                "nothing teaches the net: expected a distill weight above 0 (teacher_weight, hint_weight, "
                "contrast_weight), or labels (distill.labels) with label_weight above 0"
            )
        require_scores(taught.net, taught.outputs[0].activation)
        own, theirs = model.net.outputs[0].shape[-1], taught.net.outputs[0].shape[-1]
        if own != theirs:
            raise CompressError(
                f"the teacher {taught.name} answers {theirs} classes and {model.name} {own}: expected a "
                "teacher of the same classes, in the same order"
            )
        if options.reads_embeddings:
            self._require_embeddings(model, taught)

    def __call__(self, model: TrainedModel) -> StageResult:
        """Train, and return the model with the weights that it learned."""
        images = self.images(max(self.size, self._teaching_size(model)))
        with data_parallel(self.training.devices, batch=self.training.batch):
            net, report = self._trained(model, images)
        done = frozen_copy(model.net)
        done.set_weights(net.get_weights())
        notes = (f"distill: {report.sentence()}", *self._renewed(done, model, images, report))
        done.trainable = False
        trained = replace(model, net=done, reference=keras_reference(done))
        return StageResult(model=trained, notes=notes)

    def ensures(self, before: TrainedModel, after: TrainedModel) -> None:
        """Raise CompressError unless the net is the same but for its weights, and they are finite."""
        shapes = [[tuple(output.shape) for output in model.net.outputs] for model in (before, after)]
        if shapes[0] != shapes[1]:
            raise CompressError(f"the distilled net answers {shapes[1]}: expected {shapes[0]}")
        if not all(np.isfinite(weight).all() for weight in after.net.get_weights()):
            raise CompressError("the distilled net has weights that are not finite")

    def _trained(self, model: TrainedModel, images: ImageSet) -> tuple[Any, TrainReport]:
        """Return a net that was trained, and what its training was like."""
        taught, options, seed = self._teacher_of(model), self.options, self.training.seed
        teaching = self._teaching_size(model)
        net = trainable_copy(model.net, seed=seed, numbers=self.training.numbers)
        student, teacher = at_side(net, self.size), None
        if options.asks_the_teacher:
            copy = trainable_copy(taught.net, numbers=self.training.numbers)
            copy.trainable = False
            teacher = at_side(copy, teaching)
        matched = _matched(student, teacher) if options.hint and teacher is not None else ((), ())
        if options.hint and not matched[0]:
            raise CompressError(
                f"{model.name} and {taught.name} have no resolution in common at which features could be "
                "compared: leave out distill.hint_weight"
            )
        distilled = DistillNet(
            net,
            self._side(student, model, self.size, matched[0], recompute=self.training.recompute),
            None if teacher is None else self._side(teacher, taught, teaching, matched[1]),
            image=model.image,
            options=options,
            labelled=self.labelled,
            seed=seed,
            taught_by="" if teacher is None else fingerprint(taught.net.variables, {}),
        )
        return net, train(distilled, images, settings=self.training)

    def _renewed(
        self, net: Any, model: TrainedModel, images: ImageSet, report: TrainReport
    ) -> tuple[str, ...]:
        """Take statistics anew where too few steps moved them, and return a note of it.

        While it trains, a net sees the statistics of its batches. A short training leaves it with averages
        of another net: it then answers unlike what was trained.
        """
        steps = sum(record.steps for record in report.history)
        before = share_before(net, steps)
        if self.options.norms != "batch" or before <= STALE:
            return ()
        some = images.spread(ENOUGH)
        recalibrate(net, some, model.image, side=self.size)
        return (
            f"distill: {steps} steps left {100 * before:.0f} % of what batch normalisation knew before: it "
            f"took its statistics anew from {some.count} images",
        )

    def _teaching_size(self, model: TrainedModel) -> int:
        return self._teacher_of(model).fixed_size or self.size

    def _teacher_of(self, model: TrainedModel) -> TrainedModel:
        return model if self.teacher is None else self.teacher

    def _require_embeddings(self, model: TrainedModel, taught: TrainedModel) -> None:
        for one in (model, taught):
            if not view(one.net).has_features:
                raise CompressError(
                    f"{one.name} has no embedding (its scores come from no Dense layer that reads a vector): "
                    "leave out distill.contrast_weight and decouple_weight"
                )
        width = view(model.net).inner.outputs[1].shape[-1]
        if self.options.decouple and self.options.groups > width:
            raise CompressError(
                f"an embedding of {width} numbers cannot be cut into {self.options.groups} groups: make "
                "distill.decouple_groups smaller"
            )

    def _side(
        self, net: Any, model: TrainedModel, size: int, features: tuple[Any, ...], *, recompute: bool = False
    ) -> Side:
        """Return a net as the losses see it; its tensors have known shapes."""
        seen = view(net).inner
        embedding = seen.outputs[1].shape[-1] if self.options.reads_embeddings else 0
        outputs = [net.outputs[0], *seen.outputs[1 : 1 + bool(embedding)], *features]
        run = keras.Model(net.inputs, outputs)
        return Side(
            net=Recomputed(run) if recompute else partial(_called, run),
            size=size,
            activation=model.outputs[0].activation,
            embedding=embedding,
            features=tuple(tensor.shape[-1] for tensor in features),
        )


def _matched(student: Any, teacher: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the last features of both nets at each resolution that they share, from fine to coarse.

    Only what everything passes through: inside a block, nets of unlike blocks have nothing in common.
    """
    found = []
    for net in (student, teacher):
        maps = [x for x in waists(net)[1:] if len(x.shape) == 4 and x.shape[1] == x.shape[2] > 1]
        found.append({tensor.shape[1]: tensor for tensor in maps})
    shared = sorted(set(found[0]) & set(found[1]), reverse=True)
    return tuple(found[0][side] for side in shared), tuple(found[1][side] for side in shared)


def _called(net: Any, tensor: Any, *, training: bool) -> list[Any]:
    outputs = net(tensor, training=training)
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]

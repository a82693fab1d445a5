"""A student and what its teacher tells it, as one model that Keras trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from boardfit.converters.compress.losses import (
    as_logits,
    cross_entropy,
    feature_hint,
    group_correlation,
    info_nce,
    softened_kl,
)
from boardfit.converters.compress.resize import input_tensor
from boardfit.converters.recipe_train import NORMS
from boardfit.errors import CompressError
from boardfit.specs import ImageSpec


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """How a student is taught. A weight of 0 leaves its loss out.

    Attributes:
        teacher: Weight of the divergence from the teacher's softened answer.
        temperature: Of the softened answers.
        labels: Weight of the cross entropy with labels, where there are some.
        hint: Weight of the distance between features of both nets, at the last layer of each resolution.
        contrast: Weight of InfoNCE between both nets' embeddings.
        contrast_temperature: Of InfoNCE.
        decouple: Weight of the correlation between groups of the student's embedding.
        groups: How many groups.
        norms: ``batch``: normalisation takes statistics from the batches. ``frozen``: they stay as they
            came; dropout is off then, too.
    """

    teacher: float = 1.0
    temperature: float = 2.0
    labels: float = 1.0
    hint: float = 0.0
    contrast: float = 0.0
    contrast_temperature: float = 0.1
    decouple: float = 0.0
    groups: int = 4
    norms: str = "batch"

    def __post_init__(self) -> None:
        if min(self.teacher, self.labels, self.hint, self.contrast, self.decouple) < 0.0:
            raise CompressError("distill weights must not be negative")
        if self.temperature < 1.0 or self.contrast_temperature <= 0.0:
            raise CompressError(
                f"distill.temperature is {self.temperature:g} and contrast_temperature "
                f"{self.contrast_temperature:g}: expected at least 1, and above 0"
            )
        if self.groups < 2:
            raise CompressError(f"distill.decouple_groups is {self.groups}: expected at least 2")
        if self.norms not in NORMS:
            raise CompressError(f"distill.norms is {self.norms!r}: expected {' or '.join(NORMS)}")

    @property
    def asks_the_teacher(self) -> bool:
        """Whether a loss compares with the teacher."""
        return bool(self.teacher or self.hint or self.contrast)

    @property
    def reads_embeddings(self) -> bool:
        """Whether a loss needs what the last Dense layer reads."""
        return bool(self.contrast or self.decouple)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the two nets as the losses see it.

    Attributes:
        net: Called with a (B, size, size, 3) float32 tensor and ``training``; returns a list: scores, then
            the embedding if ``embedding``, then the features to be compared.
        size: Input side in pixels.
        activation: Of the scores: ``softmax`` or ``logits``.
        embedding: Width of the embedding; 0 where it is not returned.
        features: Widths of the features, in their order.
    """

    net: Any
    size: int
    activation: str
    embedding: int = 0
    features: tuple[int, ...] = ()

    def __call__(self, tensor: Any, *, training: bool) -> dict[str, Any]:
        """Return ``scores`` as logits, ``embedding`` and ``features``, all float32."""
        found = [ops.cast(item, "float32") for item in self.net(tensor, training=training)]
        answer = {"scores": as_logits(found[0], self.activation), "features": found[1:]}
        if self.embedding:
            answer["embedding"], answer["features"] = found[1], found[2:]
        return answer


class DistillNet(keras.Model):  # type: ignore[misc]
    """A student that a teacher, labels or both teach."""

    def __init__(
        self,
        net: Any,
        student: Side,
        teacher: Side | None,
        *,
        image: ImageSpec,
        options: DistillOptions,
        labelled: bool,
        seed: int = 0,
        taught_by: str = "",
    ) -> None:
        """Bring the two together.

        Args:
            net: keras.Model whose weights are trained; ``student`` runs it.
            student: How it is run.
            teacher: What teaches; its weights are never touched. None where nothing compares with it.
            image: Mean and deviation of the input.
            options: Weights of the losses.
            labelled: Whether the images have labels.
            seed: Of the projections between features of unlike width.
            taught_by: A hash of the teacher's weights, which a checkpoint must agree with.
        """
        super().__init__(name="distill")
        self.phase = "all"
        self.student = net
        # Projections belong to training alone: they bring the student's features to the teacher's width.
        self.heads: list[Any] = []
        self._embedding_head: Any = None
        if teacher is not None:
            pairs = [*zip(student.features, teacher.features, strict=True)]
            self.heads = [_projection(a, b, seed + i) for i, (a, b) in enumerate(pairs)]
            if options.contrast:
                self._embedding_head = _projection(student.embedding, teacher.embedding, seed + len(pairs))
        # Inside a record, Keras does not take the teacher for a part of what is trained and saved.
        self._own, self._teacher = student, teacher
        self._image = image
        self._options = options
        self._labelled = labelled
        self._taught_by = taught_by
        self._right_name = "accuracy" if labelled else "agreement"
        self._right = keras.metrics.Mean(name=self._right_name)

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with, as JSON values."""
        return {
            "sizes": [side.size for side in (self._own, self._teacher) if side is not None],
            "image": [self._image.channels, self._image.mean, self._image.std],
            "labelled": self._labelled,
            "taught_by": self._taught_by,
            "options": asdict(self._options),
        }

    def call(self, images: Any, training: bool = False) -> dict[str, Any]:
        """Return the student's answer; while it trains, also the teacher's.

        Args:
            images: (B, S, S, 3) uint8.
            training: Whether normalisation uses the batch's statistics.
        """
        batch_norms = training and self._options.norms == "batch"
        answers = {"student": self._own(self.tensor(images, self._own.size), training=batch_norms)}
        if self._teacher is not None and training:
            tensor = self.tensor(images, self._teacher.size)
            answers["teacher"] = self._teacher(tensor, training=False)
        return answers

    def tensor(self, images: Any, size: int) -> Any:
        """Return (B, size, size, 3) float32 input tensors of (B, S, S, 3) uint8 images."""
        return input_tensor(images, self._image, size)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the weighted sum of the losses that the options ask for."""
        options, answer, loss = self._options, y_pred["student"], 0.0
        if self._labelled and options.labels:
            loss = loss + options.labels * cross_entropy(answer["scores"], y)
        if "teacher" in y_pred:
            loss = loss + self._taught(answer, y_pred["teacher"])
        if options.decouple:
            loss = loss + options.decouple * group_correlation(answer["embedding"], options.groups)
        return loss + sum(self.losses) if self.losses else loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Count the answers that are the labels', or the teacher's where there are none."""
        wanted = y
        if not self._labelled and "teacher" in y_pred:
            wanted = ops.argmax(y_pred["teacher"]["scores"], axis=-1)
        found = ops.argmax(y_pred["student"]["scores"], axis=-1)
        self._right.update_state(ops.cast(ops.equal(found, ops.cast(wanted, found.dtype)), "float32"))
        return dict(self.get_metrics_result())

    def _taught(self, answer: Mapping[str, Any], teacher: Mapping[str, Any]) -> Any:
        """Return the losses that compare the student with the teacher."""
        options, loss = self._options, 0.0
        if options.teacher:
            loss = loss + options.teacher * softened_kl(
                teacher["scores"], answer["scores"], temperature=options.temperature
            )
        if options.contrast:
            embedding = _projected(self._embedding_head, answer["embedding"])
            loss = loss + options.contrast * info_nce(
                teacher["embedding"], embedding, temperature=options.contrast_temperature
            )
        pairs = list(zip(teacher["features"], answer["features"], self.heads, strict=True))
        for theirs, own, head in pairs:
            loss = loss + options.hint / len(pairs) * feature_hint(theirs, _projected(head, own))
        return loss


def _projection(width: int, wanted: int, seed: int) -> Any:
    """Return a layer from one width to another, or None where they are the same."""
    if width == wanted:
        return None
    layer = keras.layers.Dense(wanted, use_bias=False, dtype="float32")
    layer.build((None, width))
    # Glorot and Bengio 2010, drawn by numpy: the same on every backend.
    limit = np.sqrt(6.0 / (width + wanted))
    layer.kernel.assign(np.random.default_rng(seed).uniform(-limit, limit, (width, wanted)))
    return layer


def _projected(head: Any, features: Any) -> Any:
    return features if head is None else head(features)

"""One net at several sizes, as one model that Keras trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras

from boardfit.converters.compress.losses import as_logits, cross_entropy, feature_hint, softened_kl
from boardfit.converters.compress.nets import View
from boardfit.converters.compress.recompute import Recomputed
from boardfit.converters.compress.resize import input_tensor
from boardfit.converters.recipe_train import KERNELS, NORMS
from boardfit.errors import CompressError
from boardfit.specs import ImageSpec

LARGEST, DEALT, TOGETHER = "largest", "dealt", "together"


@dataclass(frozen=True, slots=True)
class ElasticOptions:
    """How an elastic net is taught.

    Attributes:
        shares: Shares of the epochs that the three phases get; they add up to 1.
        labels: Weight of the cross entropy with labels, where there are some.
        teacher: Weight of the teacher's divergence: of the given teacher for the largest size, of the largest
            size for the others.
        hint: Weight of the distance between a small size's features and the largest one's.
        temperature: Of the softened answers.
        norms: ``batch``: each size takes statistics from the batches. ``frozen``: they stay as they came,
            and each size learns its own scale and shift; dropout is off then, too.
        kernels: ``trained``: all sizes learn together. ``frozen``: the largest size stays as it came, and the
            others learn their normalisation only, from it.
    """

    shares: tuple[float, float, float] = (0.35, 0.15, 0.5)
    labels: float = 1.0
    teacher: float = 1.0
    hint: float = 0.0
    temperature: float = 1.0
    norms: str = "batch"
    kernels: str = "trained"

    def __post_init__(self) -> None:
        if min(self.shares) < 0.0 or abs(sum(self.shares) - 1.0) > 1e-6:
            raise CompressError(f"elastic.shares are {self.shares}: expected three shares that add up to 1")
        if min(self.labels, self.teacher, self.hint) < 0.0 or self.temperature < 1.0:
            raise CompressError("elastic weights must not be negative, and its temperature at least 1")
        if self.norms not in NORMS:
            raise CompressError(f"elastic.norms is {self.norms!r}: expected {' or '.join(NORMS)}")
        if self.kernels not in KERNELS:
            raise CompressError(f"elastic.kernels is {self.kernels!r}: expected {' or '.join(KERNELS)}")


class ElasticNet(keras.Model):  # type: ignore[misc]
    """The views of one net at all sizes, as one model that Keras trains."""

    def __init__(
        self,
        views: Mapping[int, View],
        *,
        image: ImageSpec,
        activation: str,
        options: ElasticOptions,
        labelled: bool,
        batch: int,
        teacher: Any = None,
        recompute: bool = False,
    ) -> None:
        """Bring the views together.

        Args:
            views: By size in pixels, ascending; they share layers. Of known shapes with ``recompute``.
            image: Mean and deviation of the input.
            activation: Of the net's scores: ``softmax`` or ``logits``.
            options: Weights of the losses.
            labelled: Whether the images have labels.
            batch: Images in a step.
            teacher: keras.Model that teaches the largest size, or None.
            recompute: Whether activations of the sizes that learn are computed twice instead of kept.

        Raises:
            CompressError: A layer adds a loss of its activations, and they are computed twice.
        """
        super().__init__(name="elastic")
        self.sizes = tuple(views)
        self.nets = [item.inner for item in views.values()]
        self.phase = LARGEST
        self._image = image
        self._activation = activation
        self._options = options
        self._labelled = labelled
        self._batch = batch
        # A closure: Keras would take a net in an attribute for a part of what is trained and saved.
        self._teach = None if teacher is None else lambda images: teacher(images, training=False)
        runs = {
            size: Recomputed(net) if recompute and self._learns(size) else net
            for size, net in zip(self.sizes, self.nets, strict=True)
        }
        self._run = _by_size(runs)

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with, as JSON values."""
        return {
            "sizes": self.sizes,
            "image": [self._image.channels, self._image.mean, self._image.std],
            "activation": self._activation,
            "labelled": self._labelled,
            "taught": self._teach is not None,
            "options": asdict(self._options),
        }

    def call(self, images: Any, training: bool = False) -> dict[str, Any]:
        """Return scores and features by size, as the phase shows images to sizes.

        Args:
            images: (B, S, S, 3) uint8.
            training: Whether normalisation uses the batch's statistics.
        """
        answers = {}
        for size, (begin, end) in self._shown():
            tensor = self.tensor(images[begin:end], size)
            # A net that is frozen teaches as it answers, without dropout.
            batch_norms = self._learns(size) and self._options.norms == "batch"
            found = self._run(size, tensor, training and batch_norms)
            scores, features = found if isinstance(found, (list, tuple)) else (found, None)
            answers[str(size)] = {"scores": as_logits(scores, self._activation)}
            if features is not None:
                answers[str(size)]["features"] = features
        return answers

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the mean over the sizes that learn of what each is taught."""
        losses = []
        largest = y_pred.get(str(self.sizes[-1])) if self.phase == TOGETHER else None
        for size, (begin, end) in self._shown():
            if not self._learns(size):
                continue
            answer = y_pred[str(size)]
            if largest is not None and size != self.sizes[-1]:
                losses.append(self._taught_by(largest, answer, y))
            else:
                losses.append(self._taught(answer, x[begin:end], None if y is None else y[begin:end]))
        loss = sum(losses) / float(len(losses))
        return loss + sum(self.losses) if self.losses else loss

    def tensor(self, images: Any, size: int) -> Any:
        """Return (B, size, size, 3) float32 input tensors of (B, S, S, 3) uint8 images."""
        return input_tensor(images, self._image, size)

    def _learns(self, size: int) -> bool:
        """Return whether a size is trained: the largest is not, where kernels are frozen."""
        return self._options.kernels == "trained" or size != self.sizes[-1]

    def _shown(self) -> list[tuple[int, tuple[int, int | None]]]:
        """Return the sizes of this phase with the part of the batch that each sees."""
        if self.phase == LARGEST:
            return [(self.sizes[-1], (0, None))]
        if self.phase == TOGETHER:
            return [(size, (0, None)) for size in self.sizes]
        edges = dealt_edges(self._batch, len(self.sizes))
        return [(size, (edges[i], edges[i + 1])) for i, size in enumerate(self.sizes)]

    def _taught(self, answer: Mapping[str, Any], images: Any, labels: Any) -> Any:
        """Return the loss of a size that labels and the given teacher teach."""
        options, loss = self._options, 0.0
        if self._labelled:
            loss = loss + options.labels * cross_entropy(answer["scores"], labels)
        if self._teach is not None:
            target = as_logits(self._teach(self.tensor(images, self.sizes[-1])), self._activation)
            loss = loss + options.teacher * softened_kl(
                target, answer["scores"], temperature=options.temperature
            )
        return loss

    def _taught_by(self, largest: Mapping[str, Any], answer: Mapping[str, Any], labels: Any) -> Any:
        """Return the loss of a small size that labels and the largest size teach."""
        options = self._options
        loss = options.teacher * softened_kl(
            largest["scores"], answer["scores"], temperature=options.temperature
        )
        if self._labelled:
            loss = loss + options.labels * cross_entropy(answer["scores"], labels)
        if options.hint and "features" in answer:
            loss = loss + options.hint * feature_hint(largest["features"], answer["features"])
        return loss


def _by_size(runs: Mapping[int, Any]) -> Callable[[int, Any, bool], Any]:
    """Return a closure: Keras would take the nets in an attribute for further parts of the model."""
    return lambda size, tensor, training: runs[size](tensor, training=training)


def dealt_edges(batch: int, parts: int) -> list[int]:
    """Return where a batch is cut so that every size gets a part, as equal as multiples of 8 allow.

    TensorFlow 2.21 with oneDNN frees memory twice in convolutions of odd batches (43 of 128, on x86-64).
    """
    unit = 8 if batch >= 8 * parts else 1
    whole = batch // unit
    return [*(unit * (i * whole // parts) for i in range(parts)), batch]

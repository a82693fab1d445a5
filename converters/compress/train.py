"""The one training loop: every compress stage trains with it.

It repeats exactly: order and variation of images come from the seed, the epoch and the step, and a checkpoint
holds every variable, so that a training that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from boardfit.converters.compress.checkpoint import EpochRecord, Position
from boardfit.converters.compress.images import Augment, Batches, ImageSet
from boardfit.converters.compress.keeper import Keeper
from boardfit.converters.compress.optimizer import build_optimizer, inner
from boardfit.converters.recipe_train import NUMBERS, OPTIMIZERS
from boardfit.errors import CompressError


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a training; the model's attribute ``phase`` names it while it runs.

    Attributes:
        name: What the model understands.
        share: Share of the epochs.
    """

    name: str
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a training is.

    Attributes:
        epoch: The running epoch, counted from 1.
        epochs: Epochs of the whole training.
        step: Steps of this epoch that are done.
        steps: Steps of an epoch.
        phase: Name of the phase.
        loss: Mean loss of this epoch so far.
        metrics: Means of this epoch so far by name, the loss among them; ``accuracy`` is the share of answers
            that are the labels', ``agreement`` of those that are the teacher's.
        images_per_s: Images per second since this epoch began or was resumed.
        left_s: Seconds left at this pace; phases differ in theirs.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    phase: str
    loss: float
    images_per_s: float
    left_s: float
    metrics: Mapping[str, float] = field(default_factory=dict)


Watch = Callable[[Moment], None]


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """Settings of a training.

    Attributes:
        epochs: How often every image is seen.
        batch: Images in a step.
        accumulate: Steps whose gradients are added up before the weights change.
        optimizer: ``sgd`` (Nesterov momentum 0.9) or ``adamw``.
        learning_rate: The peak, after warm-up; it falls to 0 like a cosine.
        warm_up: Share of the steps in which the rate rises from 0.
        weight_decay: Share of a kernel that a step takes off, times the rate; norms and biases are spared.
        ema: Decay of the moving average of weights that is kept in the end; 0 for the last weights.
        augment: How images are varied.
        numbers: What layers compute with, one of ``NUMBERS``; for stages, which make the model.
        recompute: Whether activations are computed twice instead of kept; for stages.
        devices: Over how many devices a batch is spread; more than 1 on the JAX backend only. For stages.
        seed: Of order and variation.
        folder: Where checkpoint and log go; None keeps neither.
        resume: Whether to go on from the checkpoint in ``folder``, if there is one.
        save_every_s: Seconds between checkpoints inside an epoch.
        watch: Told after every step how far it is.
    """

    epochs: int
    batch: int = 128
    accumulate: int = 1
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    warm_up: float = 0.05
    weight_decay: float = 5e-3
    ema: float = 0.0
    augment: Augment = field(default_factory=Augment)
    numbers: str = "float32"
    recompute: bool = False
    devices: int = 1
    seed: int = 0
    folder: Path | None = None
    resume: bool = False
    save_every_s: float = 60.0
    watch: Watch = lambda _: None

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.accumulate, self.devices) < 1:
            raise CompressError(
                f"{self.epochs} epochs of {self.accumulate} batches of {self.batch} on {self.devices} "
                "devices: expected at least 1 of each"
            )
        if self.numbers not in NUMBERS:
            raise CompressError(f"layers compute with {self.numbers!r}: expected {' or '.join(NUMBERS)}")
        if self.optimizer not in OPTIMIZERS:
            raise CompressError(f"the optimizer is {self.optimizer!r}: expected {' or '.join(OPTIMIZERS)}")
        if not self.learning_rate > 0.0 or not 0.0 <= self.warm_up < 1.0 or not 0.0 <= self.ema < 1.0:
            raise CompressError("learning_rate must be positive, warm_up and ema from 0 to below 1")

    def settings(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with, as JSON values."""
        names = ["epochs", "batch", "accumulate", "optimizer", "learning_rate", "warm_up", "weight_decay"]
        names += ["ema", "numbers", "seed"]
        return {**{name: getattr(self, name) for name in names}, "augment": asdict(self.augment)}


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training was like, epoch by epoch."""

    history: tuple[EpochRecord, ...]

    def sentence(self) -> str:
        """Return it in a sentence."""
        seconds = sum(record.seconds for record in self.history)
        last = self.history[-1]
        return (
            f"trained for {len(self.history)} epochs in {seconds:.0f} s, "
            f"loss {self.history[0].metrics['loss']:.3f} to {last.metrics['loss']:.3f}"
        )


def train(
    model: Any, images: ImageSet, *, settings: Training, phases: Sequence[Phase] = (Phase("all"),)
) -> TrainReport:
    """Train a Keras model that makes its own loss.

    Args:
        model: keras.Model; takes (B, S, S, 3) uint8, has an attribute ``phase``, and a method ``settings``
            with what a checkpoint must agree with, as JSON values.
        images: What to train on.
        settings: Epochs, optimizer, seed, checkpoints.
        phases: In their order; the shares add up to 1.

    Raises:
        CompressError: Fewer images than a batch, a checkpoint of something else or one that cannot be
            written, or a loss that is not finite: then the last good checkpoint stays.
        KeyboardInterrupt: After a checkpoint was written.
    """
    steps = images.count // settings.batch
    if steps == 0:
        raise CompressError(
            f"{images.count} images are fewer than a batch of {settings.batch}: make it smaller"
        )
    model.compile(optimizer=build_optimizer(settings, steps))
    model.phase = phases[-1].name
    model(images.pixels[: settings.batch], training=False)
    model.optimizer.build(model.trainable_variables)
    keeper = Keeper(model, settings, phases, images)
    position = keeper.load()
    history = list(position.history)
    for epoch in range(position.epoch, settings.epochs):
        phase = _phase_of(epoch, settings.epochs, phases)
        if model.phase != phase.name or model.train_function is None:
            model.phase, model.train_function = phase.name, None
        record = _run_epoch(model, images, keeper, steps=steps, phase=phase, position=position)
        history.append(record)
        position = Position(epoch=epoch + 1, history=tuple(history))
        keeper.save(position)
    if settings.ema:
        model.optimizer.finalize_variable_values(model.trainable_variables)
    return TrainReport(history=tuple(history))


def _run_epoch(
    model: Any, images: ImageSet, keeper: Keeper, *, steps: int, phase: Phase, position: Position
) -> EpochRecord:
    """Run what is left of an epoch."""
    settings = keeper.settings
    batches = Batches(
        images,
        batch=settings.batch,
        augment=settings.augment,
        seed=settings.seed,
        epoch=position.epoch,
        first_step=position.step,
    )
    watcher = _Watcher(keeper, position, phase=phase.name, steps=steps)
    try:
        # All steps may have been done when the training was interrupted, only the epoch not closed.
        if len(batches) == 0:
            return watcher.record()
        with warnings.catch_warnings():
            # A phase may leave parts of the model alone: Keras warns of each variable without a gradient.
            warnings.filterwarnings("ignore", message="Gradients do not exist")
            # Without shuffle=False Keras deals the batches themselves in an order of its own.
            model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[watcher])
    except KeyboardInterrupt:
        watcher.save()
        raise
    inner(model.optimizer).use_ema = bool(settings.ema)
    return watcher.record()


class _Watcher(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds up an epoch, tells how far it is, writes checkpoints, and stops at a loss that is not finite."""

    def __init__(self, keeper: Keeper, position: Position, *, phase: str, steps: int) -> None:
        super().__init__()
        self._keeper = keeper
        self._position = position
        self._phase = phase
        self._steps = steps
        self._before = dict(position.sums or {})
        self.sums: dict[str, float] = dict(self._before)
        self._begun = self._saved = time.monotonic()
        self._done = position.step

    def record(self) -> EpochRecord:
        """Return what the epoch was like, when all its steps are done."""
        seconds, settings = self.seconds, self._keeper.settings
        return EpochRecord(
            epoch=self._position.epoch + 1,
            phase=self._phase,
            steps=self._steps,
            seconds=round(seconds, 3),
            images_per_s=round(self._steps * settings.batch / max(seconds, 1e-9), 1),
            metrics={name: total / self._steps for name, total in self.sums.items()},
        )

    @property
    def seconds(self) -> float:
        """Time of this epoch, before and after a break."""
        return self._position.seconds + time.monotonic() - self._begun

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count a step."""
        self._done = self._position.step + batch + 1
        # Keras logs means over the steps since fit began.
        for name, mean in (logs or {}).items():
            self.sums[name] = self._before.get(name, 0.0) + float(mean) * (batch + 1)
        loss = float((logs or {}).get("loss", math.nan))
        if not math.isfinite(loss):
            raise CompressError(
                f"the loss is not finite at step {self._done} of epoch {self._position.epoch + 1}: the "
                f"training is stopped{self._keeper.kept()}; lower the learning rate"
            )
        self._tell(batch + 1)
        if time.monotonic() - self._saved > self._keeper.settings.save_every_s:
            self.save()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep ``fit`` from putting the moving average in the weights' place before the training ends."""
        inner(self.model.optimizer).use_ema = False

    def save(self) -> None:
        """Write a checkpoint inside the epoch."""
        self._catch_up()
        self._keeper.save(
            Position(
                epoch=self._position.epoch,
                step=self._done,
                sums=self.sums,
                seconds=self.seconds,
                history=self._position.history,
            )
        )
        self._saved = time.monotonic()

    def _catch_up(self) -> None:
        """Count a step that is done but was not told: Ctrl-C mostly comes while one runs."""
        # On JAX, reading ``self.model`` brings the trained values into the variables.
        model = self.model
        # Not what the optimizer counts: it leaves out steps that overflow, and those that only add up.
        images = next(metric.count for metric in model.metrics if metric.name == "loss")
        here = round(float(images) / self._keeper.settings.batch)
        done = self._position.step + here
        if done > self._done:
            for name, mean in model.get_metrics_result().items():
                self.sums[name] = self._before.get(name, 0.0) + float(mean) * here
            self._done = done

    def _tell(self, done_here: int) -> None:
        settings = self._keeper.settings
        seconds = max(time.monotonic() - self._begun, 1e-9)
        pace = done_here / seconds
        left = (settings.epochs - self._position.epoch) * self._steps - self._done
        settings.watch(
            Moment(
                epoch=self._position.epoch + 1,
                epochs=settings.epochs,
                step=self._done,
                steps=self._steps,
                phase=self._phase,
                loss=self.sums["loss"] / self._done,
                images_per_s=pace * settings.batch,
                left_s=left / pace,
                metrics={name: total / self._done for name, total in self.sums.items()},
            )
        )


def _phase_of(epoch: int, epochs: int, phases: Sequence[Phase]) -> Phase:
    """Return the phase of an epoch, counted from 0."""
    edges = np.cumsum([phase.share for phase in phases]) * epochs
    for phase, edge in zip(phases, edges, strict=True):
        if epoch < round(float(edge)):
            return phase
    return phases[-1]

"""The optimizer of a training, with its schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from boardfit.converters.compress.train import Training


def build_optimizer(settings: Training, steps: int) -> Any:
    """Return the optimizer that a training asks for.

    Args:
        settings: Of the training.
        steps: Steps of an epoch.
    """
    total = settings.epochs * steps
    warm = max(1, round(settings.warm_up * total))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, total - warm), warmup_target=settings.learning_rate, warmup_steps=warm
    )
    common = {
        "learning_rate": rate,
        "weight_decay": settings.weight_decay or None,
        "use_ema": bool(settings.ema),
        # Keras moves the average in every step, also in those that only add up gradients.
        "ema_momentum": (settings.ema or 0.99) ** (1.0 / settings.accumulate),
        "gradient_accumulation_steps": settings.accumulate if settings.accumulate > 1 else None,
    }
    if settings.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **common)
    else:
        optimizer = keras.optimizers.AdamW(**{**common, "weight_decay": settings.weight_decay})
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    if settings.numbers == "mixed_float16":
        # The smallest gradients are 0 in float16: the loss is scaled up, and gradients down again.
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def inner(optimizer: Any) -> Any:
    """Return the optimizer behind one that scales the loss, or the given one."""
    return getattr(optimizer, "inner_optimizer", optimizer)

"""Views of one Keras net: its scores and features, and copies that share everything but the normalisation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from boardfit.errors import CompressError

_AFTER_SCORES = (
    keras.layers.Softmax,
    keras.layers.Activation,
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Dropout,
)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One net as training sees it.

    Attributes:
        net: keras.Model, image -> scores.
        inner: keras.Model, image -> [scores, features]; features is (N, D), or absent.
    """

    net: Any
    inner: Any

    @property
    def has_features(self) -> bool:
        """Whether the input of the last Dense layer was found."""
        return len(self.inner.outputs) > 1


def view(net: Any) -> View:
    """Return a net with its features: what the last Dense layer reads.

    Args:
        net: keras.Model, functional, flat, one image input; its first output are the scores.
    """
    scores = net.outputs[0]
    features = _features(scores)
    outputs = [scores] if features is None else [scores, features]
    return View(net=net, inner=keras.Model(net.inputs, outputs))


def with_private_norms(net: Any, sizes: Sequence[int]) -> dict[int, Any]:
    """Return one net per size; all share every layer but batch normalisation.

    Yu et al. 2019, "Slimmable Neural Networks" (https://arxiv.org/abs/1812.08928), and Wang et al. 2020,
    "Resolution Switchable Networks" (https://arxiv.org/abs/2007.09558): what is shared are the kernels; the
    statistics of activations differ by size, and are private.

    Args:
        net: keras.Model, functional, flat, free of size.
        sizes: Input sides in pixels, ascending. The largest one gets ``net`` itself.
    """
    nets = {size: _renormalised(net, size) for size in sizes[:-1]}
    return {**nets, sizes[-1]: net}


def trainable_copy(net: Any, *, seed: int = 0, numbers: str = "float32") -> Any:
    """Return a copy with weights of its own, every layer of which is trained.

    Args:
        net: keras.Model, functional.
        seed: Of layers that draw at random and have no seed of their own, such as dropout.
        numbers: Policy of the copy's layers, ``mixed_bfloat16`` for example; weights stay float32, and what
            makes the scores computes in it.
    """
    exact = _makers_of_scores(net)
    seeds = itertools.count(seed)

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if config.get("seed", 0) is None:
            config["seed"] = next(seeds)
        if numbers != "float32" and layer.name not in exact:
            config["dtype"] = numbers
        return type(layer).from_config(config)

    copy = keras.models.clone_model(net, clone_function=clone)
    copy.set_weights(net.get_weights())
    for layer in copy.layers:
        layer.trainable = True
    return copy


def at_side(net: Any, side: int) -> Any:
    """Return a net whose tensors have the shapes that they have at one input side; layers are shared."""
    image = keras.Input((side, side, 3), name=net.inputs[0].name)
    inputs = keras.tree.pack_sequence_as(net.input, [image])
    return keras.models.clone_model(net, input_tensors=inputs, clone_function=lambda layer: layer)


def batch_norms(net: Any) -> list[Any]:
    """Return the batch normalisation layers of a flat net."""
    return [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]


def require_scores(net: Any, activation: str) -> None:
    """Raise CompressError unless a net's first output are scores of classes."""
    shape = net.outputs[0].shape
    if activation not in ("softmax", "logits") or len(shape) != 2 or (shape[1] or 0) < 2:
        raise CompressError(
            f"{net.name} answers {tuple(shape)} with the activation {activation!r}: training with a teacher "
            "needs scores of two or more classes (softmax or logits)"
        )


def _renormalised(net: Any, size: int) -> Any:
    def clone(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer
        config = {**layer.get_config(), "name": f"{layer.name}_{size}"}
        return keras.layers.BatchNormalization.from_config(config)

    copy = keras.models.clone_model(net, clone_function=clone)
    for old, new in zip(batch_norms(net), batch_norms(copy), strict=True):
        new.set_weights(old.get_weights())
    return copy


def _features(scores: Any) -> Any:
    operation, read = _before_scores(scores)[-1]
    if not isinstance(operation, keras.layers.Dense) or len(read.shape) != 2:
        return None
    return read


def _makers_of_scores(net: Any) -> set[str]:
    """Return the names of the last layer with weights and of what follows it."""
    return {operation.name for operation, _ in _before_scores(net.outputs[0])}


def _before_scores(scores: Any) -> list[tuple[Any, Any]]:
    """Return the operations from the scores back to the first that computes, each with what it reads."""
    found = [_made_by(scores)]
    while isinstance(found[-1][0], _AFTER_SCORES):
        found.append(_made_by(found[-1][1]))
    return found


def _made_by(tensor: Any) -> tuple[Any, Any]:
    """Return the layer that made a tensor, and what it read; a shared layer is called in several graphs."""
    history = tensor._keras_history
    return history.operation, history.operation._inbound_nodes[history.node_index].input_tensors[0]

"""Folding batch normalisation into the layers before it, as every converter does.

After it surgery sees the weights that the formats see: each convolution and dense layer has a bias, and its
activation is a layer of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from boardfit.converters.ingest.keras_rebuild import walk
from boardfit.converters.quantize.graph import Graph, Node, graph_of


def folded(net: Any) -> Any:
    """Return a net of the same answers, with weights of its own and without foldable batch normalisation.

    Args:
        net: keras.Model, functional, one input.

    Raises:
        UnsupportedModel: It has no graph.
    """
    import keras

    graph = graph_of(net)
    norms = {id(norm.operation): conv for conv, norm in _foldable(graph)}
    weighted = {id(node.operation) for node in graph.nodes if node.weighted}
    scaled = {id(conv.operation): norm.operation for conv, norm in _foldable(graph)}
    clones: dict[int, Any] = {}

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if id(operation) in norms:
            return args[0]
        if id(operation) not in weighted:
            return _call_clone(operation, clones, args, kwargs)
        bare = _bare(operation)
        output = bare(*args, **kwargs)
        bare.set_weights(_weights(operation, scaled.get(id(operation))))
        if operation.activation is keras.activations.linear:
            return output
        return keras.layers.Activation(operation.activation, name=f"{operation.name}_activation")(output)

    image = keras.Input(net.inputs[0].shape[1:], name="image")
    return keras.Model(image, walk(net, image, call), name=net.name)


def kernel_of(layer: Any) -> np.ndarray:
    """Return a layer's kernel by output channel.

    Returns:
        (fan-in, channels) float32: rows in the order of the patches that ``rounding.patches`` makes.
    """
    kernel = np.asarray(layer.get_weights()[0])
    if _is_depthwise(layer):
        return kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)
    return kernel.reshape(-1, kernel.shape[-1])


def set_kernel(layer: Any, columns: np.ndarray, bias: np.ndarray) -> None:
    """Write a layer's kernel, as ``kernel_of`` gives it, and its (channels,) bias."""
    shape = layer.get_weights()[0].shape
    layer.set_weights([columns.reshape(shape).astype(np.float32), bias.astype(np.float32)])


def _is_depthwise(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.layers.DepthwiseConv2D)


def _foldable(graph: Graph) -> list[tuple[Node, Node]]:
    """Return each linear weighted call that one batch normalisation alone reads, with that one."""
    import keras

    pairs = []
    for node in graph.nodes:
        reader = graph.only_reader(node.label)
        if not node.weighted or node.operation.activation is not keras.activations.linear or reader is None:
            continue
        if type(reader.operation) is keras.layers.BatchNormalization and reader.once:
            rank = len(node.operation.output.shape)
            if reader.operation.axis in (-1, rank - 1):
                pairs.append((node, reader))
    return pairs


def _call_clone(operation: Any, clones: dict[int, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a copy of a layer, the same one each time; an operation that is no layer is called itself."""
    import keras

    if not isinstance(operation, keras.Layer):
        return operation(*args, **kwargs)
    known = id(operation) in clones
    if not known:
        clones[id(operation)] = type(operation).from_config(operation.get_config())
    output = clones[id(operation)](*args, **kwargs)
    if not known and operation.weights:
        clones[id(operation)].set_weights(operation.get_weights())
    return output


def _bare(layer: Any) -> Any:
    """Return an unbuilt layer without activation and with a bias, nothing of it random."""
    config = {**layer.get_config(), "use_bias": True, "activation": "linear"}
    for name in ("kernel_regularizer", "bias_regularizer", "activity_regularizer", "depthwise_regularizer"):
        if name in config:
            config[name] = None
    return type(layer).from_config(config)


def _weights(layer: Any, norm: Any) -> list[np.ndarray]:
    """Return kernel and bias of a layer with the batch normalisation behind it."""
    kernel, *biases = (np.asarray(item, np.float64) for item in layer.get_weights())
    channels = kernel.shape[-2] * kernel.shape[-1] if _is_depthwise(layer) else kernel.shape[-1]
    bias = biases[0] if biases else np.zeros(channels)
    if norm is None:
        return [kernel.astype(np.float32), bias.astype(np.float32)]
    variance = np.asarray(norm.moving_variance, np.float64)
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * np.asarray(norm.gamma, np.float64)
    bias = (bias - np.asarray(norm.moving_mean, np.float64)) * factor
    if norm.center:
        bias = bias + np.asarray(norm.beta, np.float64)
    shape = kernel.shape[-2:] if _is_depthwise(layer) else kernel.shape[-1:]
    return [(kernel * factor.reshape(shape)).astype(np.float32), bias.astype(np.float32)]

"""What tf2onnx leaves undone: operators that ONNX has not, and transposes that its optimizer gave up on."""

from __future__ import annotations

from typing import Any

import numpy as np


def plain_net(net: Any) -> Any:
    """Return a net that exporters understand, over the same weights.

    Keras runs grouped convolutions in functions that must be compiled by XLA, which tf2onnx takes for
    operators of its own; and it repeats pixels by tiling tensors of six axes, which ncnn has not.

    Args:
        net: keras.Model, functional, flat.
    """
    import keras

    from boardfit.converters.ingest.own_layers import PlainConv2D, PlainUpSampling2D

    def plain_class(layer: Any) -> Any:
        if type(layer) is keras.layers.Conv2D and layer.groups > 1:
            return PlainConv2D
        if type(layer) is keras.layers.UpSampling2D and layer.interpolation == "nearest":
            return PlainUpSampling2D
        return None

    def replaced(layer: Any) -> Any:
        plain = plain_class(layer)
        return plain.from_config(layer.get_config()) if plain else layer

    changed = [layer for layer in net.layers if plain_class(layer)]
    if not changed:
        return net
    copy = keras.models.clone_model(net, clone_function=replaced)
    for layer in changed:
        copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def repair(model: Any) -> Any:
    """Return a model of standard operators, its transposes optimized.

    Args:
        model: onnx.ModelProto as tf2onnx makes it; it is changed.
    """
    from tf2onnx.graph import GraphUtil

    changed = _without_erfc(model.graph)
    if _with_vectors(model.graph) or changed:
        return GraphUtil.optimize_model_proto(model)
    return model


def _without_erfc(graph: Any) -> bool:
    """Write erfc(c * x), which GELU is made of in TensorFlow, as 1 + erf(-c * x)."""
    from onnx import helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = [node for node in graph.node if node.op_type == "Erfc"]
    for number, node in enumerate(found):
        product = makers.get(node.input[0])
        place = list(graph.node).index(node)
        negated, error, one = (f"{node.output[0]}/{part}" for part in ("negated", "erf", "one"))
        factor = next((name for name in product.input if name in stored), None) if product else None
        if product is not None and product.op_type == "Mul" and factor is not None:
            value = -numpy_helper.to_array(stored[factor])
            graph.initializer.append(numpy_helper.from_array(value, f"{negated}/factor"))
            inputs = [f"{negated}/factor" if name == factor else name for name in product.input]
            first = helper.make_node("Mul", inputs, [negated], name=f"negated_{number}")
        else:
            first = helper.make_node("Neg", [node.input[0]], [negated], name=f"negated_{number}")
        graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), one))
        graph.node.remove(node)
        fresh = [
            first,
            helper.make_node("Erf", [negated], [error], name=f"erf_{number}"),
            helper.make_node("Add", [error, one], [node.output[0]], name=f"erfc_{number}"),
        ]
        for offset, item in enumerate(fresh):
            graph.node.insert(place + offset, item)
    return bool(found)


def _with_vectors(graph: Any) -> bool:
    """Give scalar summands one axis: tf2onnx 1.17 stops at one that follows a convolution without a bias."""
    from onnx import numpy_helper

    summands = {name for node in graph.node if node.op_type == "Add" for name in node.input}
    found = False
    for tensor in graph.initializer:
        if tensor.name in summands and not tensor.dims:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(1), tensor.name))
            found = True
    return found

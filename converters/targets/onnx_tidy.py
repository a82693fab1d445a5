"""Small rewrites of an ONNX graph that tf2onnx and onnxslim leave: what pnnx does not take otherwise."""

from __future__ import annotations

from typing import Any

_PAIRS = ("Add", "Sub", "Mul", "Div")
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin")


def tidy(model: Any) -> Any:
    """Return the model with transposes moved past operators that do not mind, and resizes in plain form.

    Args:
        model: onnx.ModelProto, opset 17; it is changed.
    """
    graph = model.graph
    changed = True
    while changed:
        makers = {name: node for node in graph.node for name in node.output}
        changed = any(_transposes_meet(graph, node, makers) for node in list(graph.node))
    makers = {name: node for node in graph.node for name in node.output}
    empty = {tensor.name for tensor in graph.initializer if 0 in tensor.dims}
    for node in list(graph.node):
        if node.op_type in _REDUCTIONS and _reduce_before(node, makers) and node.op_type == "ReduceMax":
            _max_as_pool(graph, node)
        elif node.op_type == "Resize":
            _plain_resize(node, empty)
        elif node.op_type in ("AveragePool", "MaxPool"):
            _pad_into_pool(graph, node, makers)
    for node in graph.node:
        if node.op_type == "Pad":
            _name_mode(node)
    return model


def _transposes_meet(graph: Any, node: Any, makers: dict[str, Any]) -> bool:
    """One operator of two tensors that were transposed alike: transpose its result instead."""
    if node.op_type not in _PAIRS:
        return False
    both = [makers.get(name) for name in node.input]
    if any(maker is None or maker.op_type != "Transpose" for maker in both):
        return False
    first, second = (list(maker.attribute[0].ints) for maker in both if maker is not None)
    if first != second:
        return False
    from onnx import helper

    output, inner = node.output[0], f"{node.output[0]}/before"
    place = list(graph.node).index(node)
    inputs = [maker.input[0] for maker in both if maker is not None]
    graph.node.remove(node)
    graph.node.insert(place, helper.make_node("Transpose", [inner], [output], perm=first))
    graph.node.insert(place, helper.make_node(node.op_type, inputs, [inner]))
    return True


def _reduce_before(node: Any, makers: dict[str, Any]) -> bool:
    """Reduce before a transpose, where the axes that are left keep their order; return whether it did."""
    maker = makers.get(node.input[0])
    attributes = {item.name: item for item in node.attribute}
    if maker is None or maker.op_type != "Transpose" or "axes" not in attributes:
        return False
    perm = list(maker.attribute[0].ints)
    axes = sorted(perm[axis] for axis in attributes["axes"].ints)
    left = [perm[axis] for axis in range(len(perm)) if perm[axis] not in axes]
    if left != sorted(left) or "keepdims" not in attributes or attributes["keepdims"].i:
        return False
    node.input[0] = maker.input[0]
    attributes["axes"].ints[:] = axes
    return True


def _max_as_pool(graph: Any, node: Any) -> None:
    """The maximum over height and width of an NCHW image is a pooling, which ncnn has."""
    from onnx import helper

    if list(next(item for item in node.attribute if item.name == "axes").ints) != [2, 3]:
        return
    place, pooled = list(graph.node).index(node), f"{node.output[0]}/pooled"
    graph.node.remove(node)
    graph.node.insert(place, helper.make_node("Flatten", [pooled], list(node.output), axis=1))
    graph.node.insert(place, helper.make_node("GlobalMaxPool", [node.input[0]], [pooled]))


def _pad_into_pool(graph: Any, node: Any, makers: dict[str, Any]) -> None:
    """Zeros that an average counts, or no maximum of what a Relu made can see: the pooling pads itself."""
    from onnx import helper, numpy_helper

    pad = makers.get(node.input[0])
    own = {item.name: item for item in node.attribute}
    if (
        pad is None
        or pad.op_type != "Pad"
        or own.keys() & {"auto_pad", "pads", "ceil_mode", "count_include_pad"}
    ):
        return
    before = makers.get(pad.input[0])
    counts = node.op_type == "AveragePool"
    stored = {tensor.name: tensor for tensor in graph.initializer}
    if not counts and (before is None or before.op_type != "Relu"):
        return
    if pad.attribute or len(pad.input) < 2:
        return
    if pad.input[1] not in stored or not _pads_with_zeros(pad, stored):
        return
    amounts = [int(item) for item in numpy_helper.to_array(stored[pad.input[1]]).reshape(-1)]
    if len(amounts) != 8 or any(amounts[axis] for axis in (0, 1, 4, 5)) or min(amounts) < 0:
        return
    if max(amounts) >= min(own["kernel_shape"].ints):
        return
    node.input[0] = pad.input[0]
    node.attribute.append(helper.make_attribute("pads", [*amounts[2:4], *amounts[6:8]]))
    if counts:
        node.attribute.append(helper.make_attribute("count_include_pad", 1))


def _pads_with_zeros(pad: Any, stored: dict[str, Any]) -> bool:
    """Return whether a Pad's third input, its value, is left out or zero."""
    from onnx import numpy_helper

    name = pad.input[2] if len(pad.input) > 2 else ""
    return not name or (name in stored and not numpy_helper.to_array(stored[name]).any())


def _name_mode(pad: Any) -> None:
    """Say that a Pad is of a constant, which is what it is without a word: pnnx drops those without one."""
    from onnx import helper

    if all(item.name != "mode" for item in pad.attribute):
        pad.attribute.append(helper.make_attribute("mode", "constant"))


def _plain_resize(node: Any, empty: set[str]) -> None:
    """Leave out what has no meaning: an empty region, the rounding of a linear resize."""
    if len(node.input) > 1 and node.input[1] in empty:
        node.input[1] = ""
    mode = next((item.s for item in node.attribute if item.name == "mode"), b"nearest")
    idle = {"exclude_outside", "extrapolation_value", "cubic_coeff_a"} if mode != b"cubic" else set()
    if mode != b"nearest":
        idle.add("nearest_mode")
    kept = [item for item in node.attribute if item.name not in idle]
    del node.attribute[:]
    node.attribute.extend(kept)

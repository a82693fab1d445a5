from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardfit.converters.targets.onnx_canonical import canonical, half_weights
from boardfit.errors import ExportError


def graph(prefix: str, *, swap: bool = False) -> onnx.ModelProto:
    """image -> two branches -> sum, under the given names and in one of two orders."""
    weight = numpy_helper.from_array(np.full((300,), 1.5, np.float32), f"{prefix}w")
    bound = numpy_helper.from_array(np.full((1,), 2.0, np.float32), f"{prefix}b")
    left = helper.make_node("Mul", [f"{prefix}x", f"{prefix}w"], [f"{prefix}l"], name=f"{prefix}1")
    right = helper.make_node("Add", [f"{prefix}x", f"{prefix}b"], [f"{prefix}r"], name=f"{prefix}2")
    total = helper.make_node("Add", [f"{prefix}l", f"{prefix}r"], [f"{prefix}y"], name=f"{prefix}3")
    unused = helper.make_node("Relu", [f"{prefix}x"], [f"{prefix}u"])
    nodes = [unused, right, left, total] if swap else [left, right, total]
    shape = ["n", 300]
    return helper.make_model(
        helper.make_graph(
            nodes,
            prefix,
            [helper.make_tensor_value_info(f"{prefix}x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(f"{prefix}y", TensorProto.FLOAT, shape)],
            initializer=[bound, weight] if swap else [weight, bound],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )


def test_names_and_order_do_not_matter():
    first = canonical(graph("a"), output_names=["y"]).SerializeToString(deterministic=True)
    second = canonical(graph("zz", swap=True), output_names=["y"]).SerializeToString(deterministic=True)
    assert first == second


def test_the_graph_still_computes_the_same():
    import onnxruntime

    model = canonical(graph("a", swap=True), output_names=["y"])
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.ones((2, 300), np.float32)
    np.testing.assert_allclose(session.run(["y"], {"image": x})[0], x * 1.5 + x + 2.0)


def test_large_weights_are_stored_in_half_and_small_ones_are_not():
    model = half_weights(canonical(graph("a"), output_names=["y"]))
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert sorted(kinds.values()) == [TensorProto.FLOAT, TensorProto.FLOAT16]
    onnx.checker.check_model(model, full_check=True)


def test_a_weight_beyond_half_range_stays_in_float32():
    source = canonical(graph("a"), output_names=["y"])
    large = np.full((300,), 1e6, np.float32)
    index = next(i for i, t in enumerate(source.graph.initializer) if t.dims[0] == 300)
    source.graph.initializer[index].CopyFrom(
        numpy_helper.from_array(large, source.graph.initializer[index].name)
    )
    kinds = {tensor.data_type for tensor in half_weights(source).graph.initializer}
    assert kinds == {TensorProto.FLOAT}


def test_another_number_of_outputs_is_refused():
    with pytest.raises(ExportError, match="expected 1 and 2"):
        canonical(graph("a"), output_names=["y", "z"])

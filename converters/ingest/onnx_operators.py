"""The table of operators: what the importer can turn into Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from boardfit.converters.ingest import onnx_activations as activations
from boardfit.converters.ingest import onnx_arithmetic as arithmetic
from boardfit.converters.ingest import onnx_layers as layers
from boardfit.converters.ingest import onnx_logic as logic
from boardfit.converters.ingest import onnx_matmul as products
from boardfit.converters.ingest import onnx_norms as norms
from boardfit.converters.ingest import onnx_pools as pools
from boardfit.converters.ingest import onnx_reduce as reduce
from boardfit.converters.ingest import onnx_resize as grids
from boardfit.converters.ingest import onnx_shapes as shapes
from boardfit.converters.ingest import onnx_slices as slices
from boardfit.converters.ingest.onnx_records import Build, Step, Value

Handler = Callable[[Step, Build], Value | tuple[Value, ...]]

HANDLERS: Mapping[str, Handler] = {
    "Abs": activations.function_of_one("absolute", nonnegative=True),
    "Add": arithmetic.add,
    "And": logic.conjunction,
    "ArgMax": reduce.argmax,
    "ArgMin": reduce.argmax,
    "AveragePool": pools.average_pool,
    "BatchNormalization": norms.batch_normalization,
    "Ceil": activations.function_of_one("ceil"),
    "Celu": activations.celu,
    "Clip": activations.clip,
    "Concat": shapes.concat,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Cos": activations.function_of_one("cos"),
    "DepthToSpace": grids.depth_to_space,
    "Div": arithmetic.div,
    "Einsum": products.einsum,
    "Elu": activations.elu,
    "Equal": logic.comparison("equal"),
    "Erf": activations.function_of_one("erf"),
    "Exp": activations.function_of_one("exp", nonnegative=True),
    "Expand": shapes.expand,
    "Flatten": shapes.reshape,
    "Floor": activations.function_of_one("floor"),
    "Gather": slices.gather,
    "Gelu": activations.gelu,
    "Gemm": products.gemm,
    "GlobalAveragePool": pools.global_average_pool,
    "GlobalMaxPool": pools.global_max_pool,
    "Greater": logic.comparison("greater"),
    "GreaterOrEqual": logic.comparison("greater_equal"),
    "GroupNormalization": norms.group_normalization,
    "HardSigmoid": activations.hard_sigmoid,
    "HardSwish": activations.hard_swish,
    "InstanceNormalization": norms.instance_normalization,
    "LRN": norms.local_response_normalization,
    "LayerNormalization": norms.layer_normalization,
    "LeakyRelu": activations.leaky_relu,
    "Less": logic.comparison("less"),
    "LessOrEqual": logic.comparison("less_equal"),
    "Log": activations.function_of_one("log"),
    "LogSoftmax": activations.log_softmax,
    "MatMul": products.matmul,
    "Max": arithmetic.extremum,
    "MaxPool": pools.max_pool,
    "Mean": arithmetic.total,
    "Min": arithmetic.extremum,
    "Mish": activations.mish,
    "Mod": arithmetic.modulo,
    "Mul": arithmetic.mul,
    "Neg": activations.function_of_one("negative"),
    "Not": logic.negation,
    "Or": logic.disjunction,
    "PRelu": activations.prelu,
    "Pad": shapes.pad,
    "Pow": arithmetic.power,
    "Reciprocal": activations.function_of_one("reciprocal"),
    "ReduceL1": reduce.norm_l1,
    "ReduceL2": reduce.norm_l2,
    "ReduceLogSum": reduce.log_sum,
    "ReduceLogSumExp": reduce.log_sum_exp,
    "ReduceMax": reduce.reduce_max,
    "ReduceMean": reduce.reduce_mean,
    "ReduceMin": reduce.reduction("min"),
    "ReduceProd": reduce.reduction("prod"),
    "ReduceSum": reduce.reduction("sum"),
    "ReduceSumSquare": reduce.sum_of_squares,
    "Relu": activations.relu,
    "Reshape": shapes.reshape,
    "Resize": grids.resize,
    "Round": activations.function_of_one("round"),
    "Selu": activations.selu,
    "Shrink": activations.shrink,
    "Sigmoid": activations.sigmoid,
    "Sign": activations.function_of_one("sign"),
    "Silu": activations.silu,
    "Sin": activations.function_of_one("sin"),
    "Slice": slices.slice_,
    "Softmax": activations.softmax,
    "Softplus": activations.softplus,
    "Softsign": activations.softsign,
    "SpaceToDepth": grids.space_to_depth,
    "Split": slices.split,
    "Sqrt": activations.function_of_one("sqrt", nonnegative=True),
    "Squeeze": shapes.reshape,
    "Sub": arithmetic.sub,
    "Sum": arithmetic.total,
    "Tanh": activations.tanh,
    "ThresholdedRelu": activations.thresholded_relu,
    "Tile": shapes.expand,
    "TopK": slices.top_k,
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.reshape,
    "Where": logic.where,
}
"""Operator -> handler. Identity, Dropout, Cast, constants and shape arithmetic are gone before this table."""

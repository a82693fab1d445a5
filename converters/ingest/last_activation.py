"""What the numbers of an output are, told from the operators that make them: ONNX's or TFLite's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Tensor = TypeVar("Tensor", bound=Hashable)

_MOVING = frozenset(
    ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
) | frozenset(("CAST", "DEQUANTIZE", "EXPAND_DIMS", "QUANTIZE", "RESHAPE", "SQUEEZE", "TRANSPOSE"))
"""They move or store numbers, and make no others of them."""

_BENDING = frozenset(
    ("Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Silu", "Tanh")
) | frozenset(("ELU", "GELU", "HARD_SWISH", "LEAKY_RELU", "PRELU", "RELU", "RELU6", "TANH"))
"""What comes out of these is no logit any more: a softmax over it would be made up."""

_PROBABILITIES = {"Softmax": "softmax", "SOFTMAX": "softmax", "Sigmoid": "sigmoid", "LOGISTIC": "sigmoid"}


def activation_behind(output: Tensor, makers: Mapping[Tensor, tuple[str, Tensor]]) -> str:
    """Return ``softmax``, ``sigmoid``, ``none`` for another activation, and ``logits`` for all else.

    Args:
        output: A tensor.
        makers: Of each tensor the operator that makes it, and that operator's first input.
    """
    while output in makers and makers[output][0] in _MOVING:
        output = makers[output][1]
    operator = makers[output][0] if output in makers else ""
    return "none" if operator in _BENDING else _PROBABILITIES.get(operator, "logits")

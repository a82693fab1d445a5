"""The records that every room speaks: tensors, images, artifacts, policies.

Plain, frozen, validated when they are made. What is persisted has ``to_dict`` and ``from_dict``;
``from_dict`` takes untrusted JSON and raises ``BundleError`` that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from boardfit.errors import BundleError

ACTIVATIONS = ("logits", "softmax", "sigmoid", "none")
DTYPES = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")
FORMATS = ("tflite", "onnx", "ncnn")
LAYOUTS = ("NHWC", "NCHW", "")
POLICY_KINDS = ("fixed", "entropy", "two-look")
QUANTIZED = ("int8", "int16x8", "dynamic")
PRECISIONS = ("fp32", "fp16", *QUANTIZED)
MIXED = "mixed"
"""Asked for as int8, but too much of it stayed in float to be called so."""
RESIZES = ("area", "linear", "cubic", "pil-bicubic")
TASKS = ("classify", "detect", "segment", "embed", "raw")
"""What a net is for. Of all but ``classify`` the runtime returns the named arrays as they are."""

MAX_AXES = 8
MAX_ELEMENTS = 1 << 31
"""Of one tensor: what is more cannot be an honest input or output on any board."""
MAX_ENTROPY_BITS = 8.0
"""Of an image of 256 greys."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: Name under which the engine knows the tensor.
        shape: Extent of each axis; None where it is free (batch, height, width).
        dtype: numpy's name of the element type.
        layout: Order of the axes of an image: ``NHWC``, ``NCHW``, or empty for other tensors.
        activation: What the numbers of an output are: ``logits``, ``softmax``, ``sigmoid``,
            ``none``.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    layout: str = ""
    activation: str = "none"

    def __post_init__(self) -> None:
        _require_text(self.name, "tensor name")
        _require(
            all(axis is None or (type(axis) is int and 0 < axis < 2**31) for axis in self.shape),
            f"shape of tensor {self.name!r} is {self.shape!r}: every axis must be positive or null",
        )
        _require(
            len(self.shape) <= MAX_AXES and math.prod(axis or 1 for axis in self.shape) <= MAX_ELEMENTS,
            f"shape of tensor {self.name!r} is {self.shape!r}: expected at most {MAX_AXES} axes, and "
            f"{MAX_ELEMENTS} numbers",
        )
        _require_choice(self.dtype, DTYPES, f"dtype of tensor {self.name!r}")
        _require_choice(self.layout, LAYOUTS, f"layout of tensor {self.name!r}")
        _require_choice(self.activation, ACTIVATIONS, f"activation of tensor {self.name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, data: object) -> TensorSpec:
        """Read the record back from JSON values."""
        fields = _fields(data, cls, "tensor")
        return cls(**{**fields, "shape": _tuple(fields["shape"], "tensor.shape")})


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How a frame becomes the input tensor: crop, resize, then ``(pixel - mean) / std``.

    Attributes:
        resize: ``area``, ``linear``, ``cubic`` or ``pil-bicubic``; see ``boardfit.runtime.preprocess``
            for the one definition of each.
        crop: Side of the centred square that is cut out, as a fraction (0, 1] of the frame's short
            side.
        mean: Per channel, in pixel units 0 to 255, in the order of ``channels``.
        std: Per channel, in pixel units, in the order of ``channels``.
        channels: Order of the tensor's colour channels: ``rgb`` or ``bgr``.
    """

    resize: str = "area"
    crop: float = 0.875
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    channels: str = "rgb"

    def __post_init__(self) -> None:
        _require_choice(self.resize, RESIZES, "image.resize")
        _require_choice(self.channels, ("rgb", "bgr"), "image.channels")
        _require_number(self.crop, "image.crop")
        _require(0.0 < self.crop <= 1.0, f"image.crop is {self.crop!r}: expected more than 0, at most 1")
        for name, values in (("mean", self.mean), ("std", self.std)):
            _require(len(values) == 3, f"image.{name} has {len(values)} values: expected 3")
            for value in values:
                _require_number(value, f"image.{name}")
        _require(min(self.std) > 0.0, f"image.std is {self.std!r}: every value must be positive")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: object) -> ImageSpec:
        """Read the record back from JSON values."""
        fields = _fields(data, cls, "image")
        for name in ("mean", "std"):
            values = _tuple(fields[name], f"image.{name}")
            for value in values:
                _require_number(value, f"image.{name}")
            fields[name] = tuple(float(value) for value in values)
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One exported model: a format, a precision, the sizes that it serves, its files.

    Attributes:
        format: ``tflite``, ``onnx`` or ``ncnn``.
        precision: ``fp32``; ``fp16`` (weights stored in half; arithmetic is the engine's); ``int8`` (weights
            and activations; at least 90 % of the multiplications, and at most 0.35 of the fp32 file);
            ``int16x8`` (weights of 8, activations of 16 bits); ``dynamic`` (weights of 8 bits, activations
            rounded while it runs); ``mixed`` (int8 in part). Inputs and outputs are float32 in all.
        sizes: Input sides in pixels, ascending, that this artifact serves.
        files: Paths inside the bundle, in the order in which the engine wants them.
        inputs: Specs of the inputs; the first one is the image.
        outputs: Specs of the outputs, in the order in which ``Engine.run`` returns them.
    """

    format: str
    precision: str
    sizes: tuple[int, ...]
    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        _require_text(self.format, "artifact.format")
        _require_text(self.precision, "artifact.precision")
        check_sizes(self.sizes, "artifact.sizes")
        _require(len(self.files) > 0, "artifact.files is empty")
        for path in self.files:
            _require_text(path, "artifact.files")
        _require(len(self.inputs) > 0 and len(self.outputs) > 0, "artifact without inputs or outputs")

    @property
    def name(self) -> str:
        """Short name for people: ``tflite-fp16`` or ``ncnn-fp32-224``."""
        base = f"{self.format}-{self.precision}"
        return f"{base}-{self.sizes[0]}" if len(self.sizes) == 1 else base

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "format": self.format,
            "precision": self.precision,
            "sizes": list(self.sizes),
            "files": list(self.files),
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
        }

    @classmethod
    def from_dict(cls, data: object) -> Artifact:
        """Read the record back from JSON values."""
        fields = _fields(data, cls, "artifact")
        for name in ("sizes", "files"):
            fields[name] = _tuple(fields[name], f"artifact.{name}")
        for name in ("inputs", "outputs"):
            tensors = _tuple(fields[name], f"artifact.{name}")
            fields[name] = tuple(TensorSpec.from_dict(tensor) for tensor in tensors)
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class FitSummary:
    """On what evidence a policy was chosen, and by how much it won.

    All figures are of images that the choice did not see.

    Attributes:
        images: How many images were scored.
        labelled: Whether right means the label; else it means the answer of the largest size.
        drop_points: Right answers of the largest size minus the policy's, in per cent of the images.
        time_ratio: The policy's time over the largest size's.
        gain_points: The policy's right answers minus those of the best fixed size, or mix of two at
            random, that takes as long.
        gain_low: Lower end of the 95 % interval of ``gain_points``.
        gain_high: Upper end.
        machine: Where the times were taken.
    """

    images: int
    labelled: bool
    drop_points: float
    time_ratio: float
    gain_points: float
    gain_low: float
    gain_high: float
    machine: str

    def __post_init__(self) -> None:
        _require(type(self.images) is int and self.images > 0, "policy.fit.images must be positive")
        _require(type(self.labelled) is bool, "policy.fit.labelled must be true or false")
        _require_text(self.machine, "policy.fit.machine")
        for name in ("drop_points", "time_ratio", "gain_points", "gain_low", "gain_high"):
            _require_number(getattr(self, name), f"policy.fit.{name}")

    @classmethod
    def from_dict(cls, data: object) -> FitSummary:
        """Read the record back from JSON values."""
        return cls(**_fields(data, cls, "policy.fit"))


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Which size a frame gets.

    Attributes:
        kind: ``fixed`` (always the largest of ``sizes``), ``entropy`` (image entropy chooses) or
            ``two-look`` (image entropy chooses the first look, an answer in doubt asks for a
            larger second one).
        sizes: Input sides in pixels, ascending.
        thresholds_bits: ``len(sizes) - 1`` ascending image entropies in bits; below the first one
            the first size is taken, and so on. Empty for ``fixed``. No image has more than 8 bits:
            a threshold of 9 means always.
        hysteresis_bits: In a stream, how far an entropy must pass a threshold before the size
            changes.
        second_look_bits: ``two-look``: the doubt of an answer, in bits, above which a larger size looks
            again; 0 is certain, 1 a tie of the two best classes.
        second_size: ``two-look``: the side of the second look; None for the next larger of ``sizes``.
        average: ``two-look``: whether the answer is the average of all looks, or the last one's alone.
        third_look_bits: ``two-look``: the doubt of the second answer above which the next larger size looks
            once more; None for two looks at most.
        fit: The evidence behind the thresholds; None for the classic ones.
    """

    kind: str
    sizes: tuple[int, ...]
    thresholds_bits: tuple[float, ...] = ()
    hysteresis_bits: float = 0.2
    second_look_bits: float = 0.5
    second_size: int | None = None
    average: bool = False
    third_look_bits: float | None = None
    fit: FitSummary | None = None

    def __post_init__(self) -> None:
        _require_choice(self.kind, POLICY_KINDS, "policy.kind")
        check_sizes(self.sizes, "policy.sizes")
        for value in (*self.thresholds_bits, self.hysteresis_bits, *self.look_bits):
            _require_number(value, "policy bits")
        expected = 0 if self.kind == "fixed" else len(self.sizes) - 1
        _require(
            len(self.thresholds_bits) == expected,
            f"policy {self.kind!r} over {len(self.sizes)} sizes has {len(self.thresholds_bits)} "
            f"thresholds: expected {expected}",
        )
        _require(
            list(self.thresholds_bits) == sorted(self.thresholds_bits),
            f"policy.thresholds_bits are {list(self.thresholds_bits)}: they must ascend",
        )
        _require(self.hysteresis_bits >= 0.0, "policy.hysteresis_bits must not be negative")
        _require(
            self.second_size is None or (self.kind == "two-look" and self.second_size in self.sizes),
            f"policy.second_size is {self.second_size!r}: expected null, or for two-look one of the sizes",
        )
        _require(type(self.average) is bool, "policy.average must be true or false")
        three = self.kind == "two-look" and len(self.sizes) > 2 and self.second_size is None
        _require(
            self.third_look_bits is None or three,
            f"policy.third_look_bits is {self.third_look_bits!r}: expected null, or for two-look over three "
            "sizes or more without a second_size a number",
        )

    @property
    def look_bits(self) -> tuple[float, ...]:
        """Return the doubts above which another look follows: after the first, after the second."""
        if self.third_look_bits is None:
            return (self.second_look_bits,)
        return self.second_look_bits, self.third_look_bits

    @property
    def needs_entropy(self) -> bool:
        """Whether an image's entropy can make a difference to the first look."""
        return any(bits <= MAX_ENTROPY_BITS for bits in self.thresholds_bits)

    @property
    def fitted(self) -> bool:
        """Whether the policy was chosen on evidence."""
        return self.fit is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {**asdict(self), "sizes": list(self.sizes), "thresholds_bits": list(self.thresholds_bits)}

    @classmethod
    def from_dict(cls, data: object) -> PolicySpec:
        """Read the record back from JSON values."""
        fields = _fields(data, cls, "policy")
        for name in ("sizes", "thresholds_bits"):
            fields[name] = _tuple(fields[name], f"policy.{name}")
        if fields["fit"] is not None:
            fields["fit"] = FitSummary.from_dict(fields["fit"])
        return cls(**fields)


def classic_policy(kind: str, sizes: tuple[int, ...]) -> PolicySpec:
    """Return the unfitted rule over some sizes.

    Below 4.0 bits the smallest size, below 7.0 bits the middle one, else the largest; other numbers
    of sizes get thresholds evenly spaced from 4.0 to 7.0 bits, and two sizes get 7.0 alone.

    Args:
        kind: ``fixed``, ``entropy`` or ``two-look``.
        sizes: Input sides in pixels, ascending.
    """
    gaps = len(sizes) - 1
    if kind == "fixed" or gaps == 0:
        return PolicySpec(kind=kind, sizes=sizes)
    step = 3.0 / max(gaps - 1, 1)
    return PolicySpec(
        kind=kind, sizes=sizes, thresholds_bits=tuple(7.0 - step * i for i in reversed(range(gaps)))
    )


def check_sizes(sizes: tuple[int, ...], what: str) -> None:
    """Raise BundleError unless sizes are distinct, ascending sides from 1 to 8192 pixels."""
    ok = len(sizes) > 0 and all(type(size) is int and 0 < size <= 8192 for size in sizes)
    _require(
        ok and list(sizes) == sorted(set(sizes)),
        f"{what} are {list(sizes)!r}: expected distinct, ascending sides from 1 to 8192 pixels",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BundleError(message)


def _require_choice(value: object, choices: tuple[str, ...], what: str) -> None:
    _require(value in choices, f"{what} is {value!r}: expected one of {', '.join(filter(None, choices))}")


def _require_text(value: object, what: str) -> None:
    _require(isinstance(value, str) and 0 < len(value) <= 255, f"{what} is {value!r}: expected a short text")


def _require_number(value: object, what: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    _require(number, f"{what} is {value!r}: expected a finite number")


def _fields(data: object, cls: type, what: str) -> dict[str, Any]:
    names = set(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    _require(isinstance(data, Mapping), f"{what} is {type(data).__name__}: expected an object")
    assert isinstance(data, Mapping)
    _require(
        set(data) == names,
        f"{what} has the fields {sorted(map(str, data))}: expected exactly {sorted(names)}",
    )
    return dict(data)


def _tuple(value: object, what: str) -> tuple[Any, ...]:
    _require(isinstance(value, (list, tuple)), f"{what} is {value!r}: expected a list")
    assert isinstance(value, (list, tuple))
    return tuple(value)

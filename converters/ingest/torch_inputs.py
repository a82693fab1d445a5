"""PyTorch nets that take more than an image: what the factory says of ``forward``, and how it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from boardfit.converters.ingest.interface import FRAME
from boardfit.converters.ingest.onnx_file import OnnxSource
from boardfit.errors import UnsupportedModel
from boardfit.specs import TensorSpec

EXPECTED = (
    "a torch.nn.Module, or a pair of one and a dict of example tensors by the names of its forward's "
    "parameters, images with a batch of one"
)


@dataclass(frozen=True, slots=True, eq=False)
class FactoryNet:
    """What a factory returned.

    Attributes:
        net: torch.nn.Module, float32, on the CPU, in evaluation.
        examples: A tensor for each parameter of ``forward``, by name; empty where it takes one image.
    """

    net: Any
    examples: Mapping[str, Any]

    def feeds(self, torch: Any, size: int) -> dict[str, Any]:
        """Return a tensor for each input; images are black, of the side asked for.

        A second image of other sides than the first keeps them, and is refused by its name later.

        Args:
            torch: The module.
            size: Side in pixels.
        """
        if not self.examples:
            return {FRAME: torch.zeros(1, 3, size, size)}
        feeds = dict(self.examples)
        images = [(name, first) for name, item in feeds.items() if (first := _first_side_axis(torch, item))]
        sides = {name: tuple(feeds[name].shape[first : first + 2]) for name, first in images}
        for name, first in images:
            if sides[name] != sides[images[0][0]]:
                continue
            shape = list(feeds[name].shape)
            shape[first : first + 2] = [size, size]
            feeds[name] = torch.zeros(shape)
        return feeds

    def __call__(self, feeds: Mapping[str, Any]) -> Any:
        """Run the net.

        Args:
            feeds: A tensor for each input, by name.
        """
        return self.net(**feeds) if self.examples else self.net(feeds[FRAME])

    def exportable(self, torch: Any) -> Any:
        """Return a module that takes the inputs in the order of ``feeds``."""
        if not self.examples:
            return self.net
        return _by_place(torch, self.net, tuple(self.examples))


def factory_net(torch: Any, answer: Any, source: str) -> FactoryNet:
    """Read what a factory returned.

    Args:
        torch: The module.
        answer: A net, or a pair of a net and example tensors by name.
        source: Name of the factory, for messages.

    Raises:
        UnsupportedModel: It is neither.
    """
    pair = isinstance(answer, tuple) and len(answer) == 2
    net, examples = answer if pair else (answer, {})
    if not isinstance(net, torch.nn.Module):
        raise UnsupportedModel(f"the factory {source} returned {_kind(answer)}: expected {EXPECTED}.")
    if not isinstance(examples, Mapping) or (pair and not examples):
        raise UnsupportedModel(
            f"the factory {source} returned a net and {_kind(examples)}: expected {EXPECTED}."
        )
    for name, item in examples.items():
        _require_example(torch, name, item, source)
    kept = {name: item.detach().cpu() for name, item in examples.items()}
    return FactoryNet(net.float().cpu().eval(), kept)


def _require_example(torch: Any, name: Any, item: Any, source: str) -> None:
    found = f"the factory {source} gives {name!r} the example "
    if not isinstance(name, str) or not name.isidentifier() or not isinstance(item, torch.Tensor):
        raise UnsupportedModel(f"{found}{_kind(item)}: expected {EXPECTED}.")
    if _first_side_axis(torch, item) and item.shape[0] != 1:
        raise UnsupportedModel(f"{found}{list(item.shape)}: expected a batch of one. Give one image.")


def require_read(model: Any, names: Sequence[str], name: str) -> None:
    """Refuse an input that the net does not read: torch's exporter leaves it out.

    Args:
        model: onnx.ModelProto, exported.
        names: Of the inputs that were given.
        name: Of the net.

    Raises:
        UnsupportedModel: There is one.
    """
    left = {item.name for item in model.graph.input}
    idle = [item for item in names if item not in left]
    if idle:
        raise UnsupportedModel(
            f"nothing in {name} reads its input {idle[0]!r}: expected inputs that change an answer. Leave it "
            "out of the factory's examples, or mend the net."
        )


def require_equal_inputs(sources: Mapping[int, OnnxSource], name: str) -> None:
    """Refuse a net one of whose inputs is another at another size, images apart.

    Args:
        sources: The net at each size.
        name: Of the net.

    Raises:
        UnsupportedModel: One is.
    """
    sizes = list(sources)
    first = sources[sizes[0]]
    for size in sizes[1:]:
        other = sources[size]
        if _facts(first) != _facts(other):
            raise UnsupportedModel(
                f"the inputs of {name} are {_written(first)} at {sizes[0]} pixels and {_written(other)} at "
                f"{size}: expected equal ones, but for the sides of images. Let the net make what depends on "
                "the size."
            )


def free_of_size(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return the inputs besides the frame with images of any side.

    Args:
        specs: At one size.
    """
    return tuple(replace(spec, shape=(None, None, None, 3)) if spec.layout else spec for spec in specs)


def _facts(source: OnnxSource) -> list[tuple[object, ...]]:
    return [
        (source.image, source.layout),
        *((item.source, item.layout, item.shape, item.batched, item.spec.dtype) for item in source.further),
    ]


def _written(source: OnnxSource) -> str:
    return ", ".join([source.image, *(f"{item.source} {list(item.shape)}" for item in source.further)])


def _by_place(torch: Any, net: Any, names: Sequence[str]) -> Any:
    """Return a module that hands its inputs on by name: torch's exporter knows them by place."""

    class ByPlace(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, *tensors: Any) -> Any:
            return self.net(**dict(zip(names, tensors, strict=True)))

    return ByPlace().eval()


def _first_side_axis(torch: Any, item: Any) -> int:
    """Return the axis of the height where a tensor looks like a colour image, as of an ONNX file; else 0."""
    if item.dtype != torch.float32 or item.dim() != 4 or 3 not in (item.shape[1], item.shape[3]):
        return 0
    return 2 if item.shape[1] == 3 else 1


def _kind(item: Any) -> str:
    return "an empty dict" if isinstance(item, Mapping) and not item else type(item).__name__

"""Gradient checkpointing: a net in pieces, of which training keeps what goes in and computes the rest twice.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (https://arxiv.org/abs/1604.06174).
``keras.RematScope`` does it layer by layer: see docs/decisions/0042-recompute-by-pieces.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from boardfit.errors import CompressError


def waists(net: Any) -> list[Any]:
    """Return the tensors through which everything passes on its way to the outputs, from the image on.

    Args:
        net: keras.Model, functional, flat, one input.
    """
    order = _in_order(net.outputs)
    readers = {id(tensor): 0 for tensor in order}
    for tensor in order:
        for read in _reads(tensor):
            readers[id(read)] += 1
    found, open_ends = [], set[int]()
    for tensor in order:
        for read in _reads(tensor):
            readers[id(read)] -= 1
            if not readers[id(read)]:
                open_ends.discard(id(read))
        if readers[id(tensor)]:
            open_ends.add(id(tensor))
            if open_ends == {id(tensor)}:
                found.append(tensor)
    return found


class Recomputed:
    """A net as a chain of pieces."""

    def __init__(self, net: Any) -> None:
        """Cut a net where the least is kept.

        Args:
            net: keras.Model, functional, flat, one input, of known shapes (see ``at_side``); layers are
                shared with it.

        Raises:
            CompressError: A layer adds a loss of its activations, which would be lost.
        """
        losing = [layer.name for layer in net.layers if getattr(layer, "activity_regularizer", None)]
        if losing:
            raise CompressError(
                f"{losing[0]} adds a loss of its activations, which is lost where activations are computed "
                "twice: leave out distill.recompute"
            )
        cuts = _cuts(net)
        made = _made_between(net, cuts)
        begins = [net.inputs[0], *cuts]
        self.pieces = [keras.Model(begin, ends) for begin, ends in zip(begins, made, strict=True)]
        names = [id(tensor) for ends in made for tensor in ends]
        self._order = [names.index(id(tensor)) for tensor in net.outputs]

    def __call__(self, image: Any, training: bool = False) -> list[Any]:
        """Return the net's outputs, in its order; see ``keras.Model.__call__``."""
        tensor, found = image, []
        for piece in self.pieces[:-1]:
            made = _run_twice(piece, tensor, training=training)
            tensor = made[-1]
            found.extend(made)
        # What the last piece keeps is needed at once: computing it twice would save nothing.
        found.extend(_as_list(self.pieces[-1](tensor, training=training)))
        return [found[place] for place in self._order]


def _run_twice(piece: Any, tensor: Any, *, training: bool) -> list[Any]:
    """Run a piece so that its inside is computed again for the gradient.

    The function that is run twice changes no variable: statistics and seeds are given to it, and what
    becomes of them is assigned once, outside: run twice, it would move statistics and seeds twice.
    """
    trained = [variable.value for variable in piece.trainable_variables]
    state = [variable.value for variable in piece.non_trainable_variables]
    changing = [i for i, v in enumerate(piece.non_trainable_variables) if "float" in str(v.dtype)]
    count = len(piece.outputs)

    def run(image: Any, *weights: Any) -> list[Any]:
        outputs, after = piece.stateless_call(list(weights), state, image, training=training)
        return [*_as_list(outputs), *(after[i] for i in changing)]

    found = keras.remat(run)(tensor, *trained)
    for i, value in zip(changing, found[count:], strict=True):
        piece.non_trainable_variables[i].assign(ops.stop_gradient(value))
    if training:
        for layer in piece.layers:
            if hasattr(layer, "seed_generator") and layer.seed_generator is not None:
                layer.seed_generator.next()
    return list(found[:count])


def _cuts(net: Any) -> list[Any]:
    """Return the waists at which to cut: the least is kept together with what the largest piece needs."""
    places = {id(tensor) for tensor in waists(net)} - {id(net.inputs[0])}
    order = _in_order(net.outputs)
    sizes = [math.prod(extent or 1 for extent in tensor.shape) for tensor in order]
    best, chosen = math.inf, []
    for pieces in range(2, len(places) + 2):
        cuts, kept, largest, piece = [], 0, 0, 0
        for tensor, size in zip(order, sizes, strict=True):
            piece += size
            if id(tensor) in places and piece >= sum(sizes) / pieces:
                cuts.append(tensor)
                kept, largest, piece = kept + size, max(largest, piece), 0
        cost = kept + max(largest, piece)
        if cost < best:
            best, chosen = cost, cuts
    return chosen


def _made_between(net: Any, cuts: Sequence[Any]) -> list[list[Any]]:
    """Return what each piece makes: those of the net's outputs that lie in it, and the cut at its end."""
    wanted = {id(tensor) for tensor in net.outputs}
    cut = {id(tensor) for tensor in cuts}
    made: list[list[Any]] = [[]]
    for tensor in _in_order(net.outputs):
        if id(tensor) in wanted | cut:
            made[-1].append(tensor)
        if id(tensor) in cut:
            made.append([])
    return made


def _in_order(outputs: Sequence[Any]) -> list[Any]:
    """Return all tensors that outputs depend on, each behind what it is made of."""
    order: list[Any] = []
    seen = set[int]()
    stack = [(tensor, False) for tensor in reversed(outputs)]
    while stack:
        tensor, ready = stack.pop()
        if ready:
            order.append(tensor)
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            stack.append((tensor, True))
            stack.extend((read, False) for read in reversed(_reads(tensor)))
    return order


def _reads(tensor: Any) -> list[Any]:
    """Return what the layer that made a tensor read, each once."""
    history = tensor._keras_history
    read = history.operation._inbound_nodes[history.node_index].input_tensors
    return list({id(item): item for item in read}.values())


def _as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]

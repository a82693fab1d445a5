"""Following channels through a net, call by call. What a kind of layer does to them is in ``rules_*``."""

from __future__ import annotations

from typing import Any

import keras

from boardfit.converters.compress.channels import Blocked, Flow, Step
from boardfit.converters.compress.rules_layers import LAYER_RULES
from boardfit.converters.compress.rules_shapes import SHAPE_RULES
from boardfit.converters.ingest.keras_rebuild import symbols, walk

_RULES = {**LAYER_RULES, **SHAPE_RULES}
_OURS = ("keras.", "boardfit.converters.ingest.own_layers")


def follow(net: Any, side: int) -> Flow:
    """Return which channels of a net go together, and which weights hold them.

    What a layer of no known kind reads or writes keeps its width, as do the inputs and outputs of the net.

    Args:
        net: keras.Model, functional, flat.
        side: Of its images in pixels, where it takes more than one.
    """
    flow = Flow()
    count = 0

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        output = operation.compute_output_spec(*args, **kwargs)
        leaves = keras.tree.flatten((args, kwargs))
        inputs = [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]
        step = Step(count, operation, args, kwargs, inputs, keras.tree.flatten(output))
        count += 1
        _visit(flow, step)
        return output

    images = symbols(net, side, batch=1)
    for image in images:
        flow.put(image, None, "it is an input of the net")
    answer = walk(net, images if len(images) > 1 else images[0], call)
    for output in keras.tree.flatten(answer):
        track = flow.get(output)
        if track is not None:
            flow.units.freeze(track.ids, "it is an output of the net")
    return flow


def _visit(flow: Flow, step: Step) -> None:
    kind = type(step.operation)
    rule = _RULES.get(kind.__name__)
    if rule is None or not kind.__module__.startswith(_OURS):
        flow.block(step, f"{step.label} is no layer that channels are followed through")
        return
    try:
        rule(flow, step)
    except Blocked as blocked:
        flow.block(step, str(blocked))

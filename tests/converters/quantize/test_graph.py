"""Running a net call by call."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from boardfit.converters.ingest.own_layers import Constant
from boardfit.converters.quantize import graph as graph_module
from boardfit.converters.quantize.graph import graph_of, run_node


def test_a_constant_of_one_row_serves_all_images_in_batches(monkeypatch):
    """As a vision transformer's position embedding comes from ONNX."""
    monkeypatch.setattr(graph_module, "_VALUES", 100)
    image = keras.Input((4, 4, 3))
    x = layers.Add()([image, Constant((4, 4, 3), tiled=False)(image)])
    net = keras.Model(image, layers.Add()([x, image]))
    net.set_weights([np.random.default_rng(0).normal(size=weight.shape) for weight in net.get_weights()])
    # A batch is 16: the last one has a single image, which is no constant.
    images = np.random.default_rng(1).normal(size=(33, 4, 4, 3)).astype(np.float32)
    graph = graph_of(net)
    values = {graph.image: images}
    for node in graph.nodes:
        values[node.label] = run_node(node, values)
    assert np.allclose(values[graph.outputs[0]], np.asarray(net(images)), atol=1e-6)

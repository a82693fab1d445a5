"""Train a small net on CIFAR-10 that plain 8-bit quantisation ruins: the int8 rescue is measured on it.

    python benchmarks/evidence/ruined_net.py WORK [--epochs 10]

A MobileNetV3 in small: inverted residuals, squeeze-excite, hard-swish; Adam at a high rate, weight decay on
dense and pointwise kernels alone. As trained, plain int8 does it no harm.
What ruins it is planted: each channel of its three residual streams is multiplied by a factor
drawn from a log-normal distribution, and what reads the stream is divided by it. In float its answers stay
the same; but 8 bits for a whole tensor can no longer hold its small channels beside its large ones.
Training leaves such factors free. It resumes where it stopped, is recorded in results/ruined_net.jsonl, and
is written to nets/ruined.keras.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from cifar import IMAGE, cifar, record, recorded
from keras import layers

from boardfit.converters.compress.images import ImageSet
from boardfit.timing import machine_name

HERE = Path(__file__).parent
NET = HERE / "nets" / "ruined.keras"
RESULTS = HERE / "results" / "ruined_net.jsonl"
SEED = 7
SPREAD = 1.6
"""Standard deviation of the planted factors' logarithms."""
STREAMS = (((0, 1), ("expand_1", "expand_2")), ((2, 3), ("expand_3", "expand_4")), ((4,), ("head",)))
"""Blocks that write a residual stream, and the convolutions that read it."""
BATCH = 128
RATE = 0.01
DECAY = 0.02
BLOCKS = (
    # expanded, out, kernel, stride, squeeze-excite
    (48, 24, 3, 1, False),
    (96, 24, 3, 1, True),
    (120, 48, 5, 2, True),
    (160, 48, 3, 1, True),
    (192, 64, 3, 1, True),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args(argv)
    if recorded(RESULTS, "ruined") and NET.is_file():
        print("recorded before:", recorded(RESULTS, "ruined"))
        return 0
    sets = cifar(args.work)
    net, seconds = trained(args.work / "ruined", args.epochs, sets["train"])
    before = right(net, sets["test"])
    plant(net)
    NET.parent.mkdir(exist_ok=True)
    net.save(NET)
    row = {
        "name": "ruined",
        "machine": machine_name(),
        "epochs": args.epochs,
        "seconds_of_this_run": round(seconds),
        "parameters": net.count_params(),
        "right_as_trained": round(100.0 * before, 2),
        "right": round(100.0 * right(net, sets["test"]), 2),
    }
    record(RESULTS, row)
    print(row)
    return 0


def mobile_net() -> Any:
    """Return the untrained net: (N, H, W, 3) normalized images to 10 logits."""

    def normed(x: Any, name: str | None = None) -> Any:
        return layers.BatchNormalization(momentum=0.95, name=name)(x)

    def bent(x: Any) -> Any:
        return layers.Activation("hard_silu")(normed(x))

    def squeezed(x: Any) -> Any:
        width = x.shape[-1]
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(max(8, width // 4), 1, activation="relu")(y)
        y = layers.Conv2D(width, 1, activation="hard_sigmoid")(y)
        return layers.Multiply()([x, y])

    image = keras.Input((None, None, 3), name="image")
    x = bent(layers.Conv2D(16, 3, 2, padding="same", use_bias=False)(image))
    for number, (expanded, out, side, stride, squeeze) in enumerate(BLOCKS):
        y = bent(layers.Conv2D(expanded, 1, use_bias=False, name=f"expand_{number}")(x))
        y = bent(layers.DepthwiseConv2D(side, stride, padding="same", use_bias=False)(y))
        y = squeezed(y) if squeeze else y
        y = normed(layers.Conv2D(out, 1, use_bias=False)(y), f"project_norm_{number}")
        x = layers.Add()([x, y]) if stride == 1 and x.shape[-1] == out else y
    x = bent(layers.Conv2D(192, 1, use_bias=False, name="head")(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, name="scores")(x), name="ruined")


def trained(folder: Path, epochs: int, images: ImageSet) -> tuple[Any, float]:
    """Return the trained net, and how long this run took in seconds."""
    keras.utils.set_random_seed(SEED)
    net = mobile_net()
    steps = epochs * (images.count // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        RATE / 20.0, steps - steps // 10, warmup_target=RATE, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=DECAY)
    optimizer.exclude_from_weight_decay(var_names=["depthwise", "gamma", "beta", "bias"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    started = time.monotonic()
    net.fit(
        Dealt(images),
        epochs=epochs,
        verbose=2,
        shuffle=False,
        callbacks=[keras.callbacks.BackupAndRestore(str(folder))],
    )
    # Without the optimizer's state, twice as large as the net.
    bare = keras.models.clone_model(net)
    bare.set_weights(net.get_weights())
    return bare, time.monotonic() - started


def plant(net: Any) -> None:
    """Multiply each channel of the residual streams by a factor of its own that its readers take back."""
    rng = np.random.default_rng(SEED)
    for blocks, readers in STREAMS:
        factor = np.exp(rng.normal(0.0, SPREAD, BLOCKS[blocks[0]][1])).astype(np.float32)
        for number in blocks:
            norm = net.get_layer(f"project_norm_{number}")
            norm.gamma.assign(norm.gamma * factor)
            norm.beta.assign(norm.beta * factor)
        for name in readers:
            kernel = net.get_layer(name).kernel
            kernel.assign(kernel / factor[:, None])


class Dealt(keras.utils.PyDataset):
    """Batches of normalized images, mirrored and shifted by up to 4 pixels at random."""

    def __init__(self, images: ImageSet) -> None:
        super().__init__(workers=1, max_queue_size=4)
        self._images = images
        self._padded = np.pad(images.pixels, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
        self._rng = np.random.default_rng(SEED)
        self._order = self._rng.permutation(images.count)

    def __len__(self) -> int:
        return self._images.count // BATCH

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._order[index * BATCH : (index + 1) * BATCH]
        tops, lefts = self._rng.integers(0, 9, (2, len(rows)))
        shown = np.stack(
            [self._padded[r, t : t + 32, f : f + 32] for r, t, f in zip(rows, tops, lefts, strict=True)]
        )
        mirrored = self._rng.random(len(rows)) < 0.5
        shown[mirrored] = shown[mirrored, :, ::-1]
        return normalized(shown), self._images.labels[rows]

    def on_epoch_end(self) -> None:
        """Deal in another order."""
        self._order = self._rng.permutation(self._images.count)


def normalized(pixels: np.ndarray) -> np.ndarray:
    """Return (N, S, S, 3) float32 of (N, S, S, 3) uint8 RGB images, as the runtime would feed them."""
    return ((pixels - np.float32(IMAGE.mean)) / np.float32(IMAGE.std)).astype(np.float32)


def right(net: Any, images: ImageSet) -> float:
    """Return the share of images that are answered rightly."""
    scores = net.predict(normalized(images.pixels), batch_size=500, verbose=0)
    return float((scores.argmax(axis=1) == images.labels).mean())


if __name__ == "__main__":
    sys.exit(main())

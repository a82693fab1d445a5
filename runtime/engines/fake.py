"""An engine without a library, for the tests of boardfit and of those who use it.

Its one file is JSON: ``{"classes": 10, "seed": 0, "delay_s": 0.0, "fault": "", "after": 0}``. The logits are
a fixed random projection of the means and deviations of the image's channels, so that they depend on the
pixels and are the same everywhere; the mean of each further input is added to the first of them. ``fault``
makes every run go wrong that follows the first ``after`` ones.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from boardfit.errors import EngineError
from boardfit.runtime.engines.faults import FAULTS, strike
from boardfit.specs import Artifact, ImageSpec, PolicySpec, TensorSpec, classic_policy

_FIELDS = {"classes": 10, "seed": 0, "delay_s": 0.0, "fault": "", "after": 0}


class FakeEngine:
    """Computes made-up answers with numpy.

    Attributes:
        calls: Shape of the first input of the last 1000 runs.
    """

    formats: ClassVar[tuple[str, ...]] = ("fake",)

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
        self.threads = threads
        self.calls: deque[tuple[int, ...]] = deque(maxlen=1000)
        self._artifact = artifact
        fields = _parse(files[artifact.files[0]], artifact.name)
        self._delay_s = float(fields["delay_s"])
        self._fault = str(fields["fault"])
        self._good_runs = int(fields["after"])
        random = np.random.RandomState(int(fields["seed"]))
        self._weights = [
            random.standard_normal((6, int(fields["classes"]))).astype(np.float32) for _ in artifact.outputs
        ]
        self._closed = False

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Run once; see ``Engine.run``."""
        spec = self._artifact.inputs[0]
        if self._closed:
            raise EngineError(f"{self._artifact.name} is closed: load it again")
        if spec.name not in feeds or feeds[spec.name].ndim != 4:
            raise EngineError(f"{self._artifact.name} wants the input {spec.name!r} with four axes")
        image = feeds[spec.name]
        self.calls.append(image.shape)
        if self._delay_s > 0.0:
            time.sleep(self._delay_s)
        faulty = self._good_runs == 0
        self._good_runs = max(0, self._good_runs - 1)
        if faulty:
            strike(self._fault, self._delay_s)
        axes = (2, 3) if spec.layout == "NCHW" else (1, 2)
        seen = np.concatenate([image.mean(axes), image.std(axes)], axis=1)
        further = sum(_row_means(feeds, item, self._artifact.name) for item in self._artifact.inputs[1:])
        gain = np.nan if faulty and self._fault == "nan" else 4.0
        logits = [np.asarray(gain * seen @ weights, np.float32) for weights in self._weights]
        for rows in logits:
            rows[:, 0] += further
        return [
            _activate(rows, output.activation)
            for output, rows in zip(self._artifact.outputs, logits, strict=True)
        ]

    def close(self) -> None:
        """Refuse further runs."""
        self._closed = True


def fake_artifact(
    sizes: tuple[int, ...],
    *,
    classes: int = 10,
    activation: str = "logits",
    further: tuple[TensorSpec, ...] = (),
) -> Artifact:
    """Return the artifact of a fake model that serves some sizes.

    Args:
        sizes: Input sides in pixels, ascending.
        classes: Columns of the output.
        activation: Of the output.
        further: Inputs besides the image.
    """
    return Artifact(
        format="fake",
        precision="fp32",
        sizes=sizes,
        files=("model/fake.json",),
        inputs=(TensorSpec("image", (None, None, None, 3), layout="NHWC"), *further),
        outputs=(TensorSpec("scores", (None, classes), activation=activation),),
    )


def fake_files(
    classes: int = 10, seed: int = 0, *, delay_s: float = 0.0, fault: str = "", after: int = 0
) -> dict[str, bytes]:
    """Return the files of a fake model.

    Args:
        classes: Columns of the output.
        seed: Of the made-up weights.
        delay_s: Seconds that every run sleeps.
        fault: What goes wrong; see ``boardfit.runtime.engines.faults``. Nothing by default.
        after: Runs that go well before.
    """
    fields: dict[str, Any] = {"classes": classes, "seed": seed, "delay_s": delay_s}
    if fault:
        fields |= {"fault": fault, "after": after}
    return {"model/fake.json": json.dumps(fields, sort_keys=True).encode()}


def write_fake_bundle(
    out: str | os.PathLike[str],
    *,
    sizes: tuple[int, ...] = (32, 48, 64),
    classes: int = 10,
    seed: int = 0,
    delay_s: float = 0.0,
    activation: str = "logits",
    image: ImageSpec | None = None,
    policy: PolicySpec | None = None,
    labels: int | None = None,
    fault: str = "",
    after: int = 0,
    further: tuple[TensorSpec, ...] = (),
) -> None:
    """Write a bundle that runs anywhere, for tests.

    Args:
        out: Path of the bundle.
        sizes: Input sides in pixels, ascending.
        classes: Number of classes, labelled ``class 0`` and so on.
        seed: Of the made-up weights.
        delay_s: Seconds that every run sleeps.
        activation: Of the output.
        image: How frames become tensors; the default ImageSpec if None.
        policy: How sizes are chosen; the classic entropy rule if None.
        labels: How many classes are labelled, rightly or not; all if None.
        fault: What goes wrong in every run after the first ones; see ``boardfit.runtime.engines.faults``.
        after: Runs of an engine that go well before.
        further: Inputs besides the image; the golden frame comes with ones, and with itself for an image.
    """
    from boardfit.bundle import write_bundle
    from boardfit.runtime.inputs import Given, further_feeds
    from boardfit.runtime.preprocess import Preprocessor

    image = image or ImageSpec()
    artifact = fake_artifact(sizes, classes=classes, activation=activation, further=further)
    if labels is not None:  # a shape that says nothing of the classes: no reader can object
        output = replace(artifact.outputs[0], shape=(None, None))
        artifact = replace(artifact, outputs=(output,))
    files = fake_files(classes, seed, delay_s=delay_s, fault=fault, after=after)
    frame = np.random.RandomState(0).randint(0, 256, (96, 128, 3)).astype(np.uint8)
    engine = FakeEngine(artifact, fake_files(classes, seed), threads=1)
    preprocessor = Preprocessor(image, "NHWC")
    given = [frame if s.layout else np.ones([e or 1 for e in s.shape[1:]], np.float32) for s in further]

    def feeds(size: int) -> dict[str, np.ndarray]:
        more = further_feeds(artifact, [Given(tuple(given))], size, preprocessor)
        return {"image": preprocessor.fit(frame, size)[0], **more}

    write_bundle(
        out,
        name="fake",
        labels=tuple(f"class {i}" for i in range(classes if labels is None else labels)),
        image=image,
        policy=policy or classic_policy("entropy", sizes),
        artifacts=(artifact,),
        files=files,
        golden_frame=frame,
        golden_outputs={size: engine.run(feeds(size)) for size in sizes},
        golden_inputs=given,
    )


def _row_means(feeds: Mapping[str, np.ndarray], spec: TensorSpec, name: str) -> np.ndarray:
    if spec.name not in feeds:
        raise EngineError(f"{name} wants the input {spec.name!r}")
    array = feeds[spec.name]
    return np.asarray(array.reshape(len(array), -1).mean(axis=1), np.float32)


def _parse(data: bytes, name: str) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise EngineError(f"{name} is no JSON: expected the fields {sorted(_FIELDS)}") from error
    if not isinstance(fields, dict) or not set(fields) <= set(_FIELDS):
        raise EngineError(f"{name} holds {fields!r}: expected the fields {sorted(_FIELDS)}")
    merged = {**_FIELDS, **fields}
    numbers = [value for key, value in merged.items() if key != "fault"]
    if not all(isinstance(value, (int, float)) and value >= 0 for value in numbers):
        raise EngineError(f"{name} holds {fields!r}: expected numbers that are not negative")
    if merged["fault"] not in FAULTS:
        raise EngineError(
            f"{name} has the fault {merged['fault']!r}: expected one of {', '.join(FAULTS[1:])}"
        )
    return merged


def _activate(logits: np.ndarray, activation: str) -> np.ndarray:
    if activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)
    if activation != "softmax":
        return logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

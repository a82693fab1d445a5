"""A format made of numpy, so that the flow around a quantizer is tested without any."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cv2
import numpy as np
import pytest

from boardfit.converters.calibrate import ESTIMATORS
from boardfit.converters.model import TrainedModel
from boardfit.converters.quantize.bench import Bench
from boardfit.converters.quantize.gate import Answers, Limits
from boardfit.converters.quantize.records import Layer
from boardfit.converters.quantize.stage import Tools
from boardfit.converters.samples import synthetic_frame
from boardfit.converters.targets import Exported, file_stem
from boardfit.errors import ExportError
from boardfit.specs import Artifact, ImageSpec, TensorSpec

CLASSES = 8
WIDTH = 24
NAMES = ("first", "second", "third")


def pack(weights: dict[str, np.ndarray], **facts: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, facts=json.dumps(facts), **weights)
    return stream.getvalue()


def unpack(exported: Exported) -> tuple[list[np.ndarray], dict]:
    with np.load(io.BytesIO(exported.files[exported.artifact.files[0]])) as found:
        return [found[name] for name in NAMES], json.loads(str(found["facts"]))


def features(image: np.ndarray) -> np.ndarray:
    """(1, S, S, 3) -> (1, 48): a 4 x 4 mosaic of the image."""
    side = image.shape[1] // 4
    blocks = image[:, : 4 * side, : 4 * side].reshape(1, 4, side, 4, side, 3)
    return blocks.mean(axis=(2, 4)).reshape(1, -1)


def rounded(values: np.ndarray, low: float, high: float, levels: int) -> np.ndarray:
    step = (high - low) / (levels - 1)
    if step == 0.0:
        return np.zeros_like(values)
    zero = np.round(-low / step)
    return (np.clip(np.round(values / step) + zero, 0, levels - 1) - zero) * step


def per_column(weight: np.ndarray) -> np.ndarray:
    step = np.abs(weight).max(axis=0) / 127.0
    return np.round(weight / step) * step


def forward(exported: Exported, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor by name: in, a, b, scores."""
    weights, facts = unpack(exported)
    ranges, floats = facts.get("ranges", {}), facts.get("keep_float", [])
    levels = {"int8": 256, "int16x8": 65536}.get(facts.get("scheme", ""), 0)
    tensors = {"in": features(image)}
    x = tensors["in"]
    for layer, name, weight in zip(NAMES, ("a", "b", "scores"), weights, strict=True):
        source = {"a": "in", "b": "a", "scores": "b"}[name]
        if levels and layer not in floats and not facts.get("dynamic"):
            x = rounded(x, *ranges[source], levels)
        x = x @ weight
        x = x if name == "scores" else np.maximum(x, 0.0)
        tensors[name] = x
    return {name: values.astype(np.float32) for name, values in tensors.items()}


class FakeProbe:
    def __init__(self, exported: Exported) -> None:
        self._exported = exported

    def run(self, image):
        return forward(self._exported, image)

    def close(self):
        pass


@dataclass
class FakeQuantizer:
    """Counts its calls; ``stop_at`` stands for a Ctrl-C at that call."""

    SCHEMES: tuple[str, ...] = ("int8", "dynamic")
    calls: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    stop_at: int = 10**9

    def layers(self, exported):
        weights, facts = unpack(exported)
        quantized = "scheme" in facts
        return tuple(
            Layer(
                name=name,
                kind="dense",
                macs=weight.size,
                weights=weight.size,
                inputs=({"first": "in", "second": "a", "third": "b"}[name],),
                output={"first": "a", "second": "b", "third": "scores"}[name],
                integer=quantized and name not in facts["keep_float"],
            )
            for name, weight in zip(NAMES, weights, strict=True)
        )

    def open_probe(self, exported, *, threads=1):
        return FakeProbe(exported)

    def quantize(self, exported, *, ranges, keep_float=frozenset(), scheme="int8"):
        self.calls.append((exported.artifact.name, keep_float))
        if len(self.calls) >= self.stop_at:
            raise KeyboardInterrupt
        weights, facts = unpack(exported)
        if scheme != "dynamic" and not {"in", "a", "b"} <= ranges.keys():
            raise ExportError("a range is missing")
        kept = [w if n in keep_float else per_column(w) for n, w in zip(NAMES, weights, strict=True)]
        facts = {
            "scheme": scheme,
            "dynamic": scheme == "dynamic",
            "keep_float": sorted(keep_float),
            "ranges": {name: (each.low, each.high) for name, each in ranges.items()},
        }
        path = f"{file_stem('fake', precision=scheme, sizes=exported.artifact.sizes)}.npz"
        # A file of int8 weights is a quarter as long; a layer in float is as long as before.
        full = len(exported.files[exported.artifact.files[0]])
        data = pack(dict(zip(NAMES, kept, strict=True)), **facts)
        artifact = replace(exported.artifact, precision=scheme, files=(path,))
        return SizedExported.of(artifact, path, data, full // 4 if len(keep_float) < 2 else full // 2)


class SizedBytes(bytes):
    """Bytes that say how long they would be in a real format."""

    length = 0

    def __len__(self):
        return self.length or super().__len__()


class SizedExported:
    @staticmethod
    def of(artifact: Artifact, path: str, data: bytes, length: int) -> Exported:
        sized = SizedBytes(data)
        sized.length = length
        return Exported(artifact=artifact, files={path: sized})


def fake_weights(*, ruined: bool) -> dict[str, np.ndarray]:
    """Weights of a net; a ruined one has a channel 2000 times the others that means next to nothing."""
    rng = np.random.default_rng(3)
    shapes = [(48, WIDTH), (WIDTH, WIDTH), (WIDTH, CLASSES)]
    first, second, third = (rng.normal(0.0, np.sqrt(2.0 / s[0]), s) for s in shapes)
    if ruined:
        second[:, 0] = 2000.0 * np.abs(second[:, 0])
        third[0] /= 4e6
    return dict(zip(NAMES, (first, second, third), strict=True))


def fake_export(weights, size, precision="fp32") -> Exported:
    path = f"{file_stem('fake', precision=precision, sizes=(size,))}.npz"
    artifact = Artifact(
        format="fake",
        precision=precision,
        sizes=(size,),
        files=(path,),
        inputs=(TensorSpec("image", (None, size, size, 3), layout="NHWC"),),
        outputs=(TensorSpec("scores", (None, CLASSES), activation="logits"),),
    )
    data = pack(weights)
    return SizedExported.of(artifact, path, data, 40_000)


def fake_run(exported: Exported, tensor: np.ndarray) -> list[np.ndarray]:
    return [np.concatenate([forward(exported, image[None])["scores"] for image in tensor])]


def pixels(count: int, size: int = 16) -> np.ndarray:
    frames = [synthetic_frame(seed, height=40, width=50) for seed in range(count)]
    return np.stack([cv2.resize(f, (size, size)) / 64.0 - 2.0 for f in frames]).astype(np.float32)


@pytest.fixture
def make_bench():
    """Return a function that makes a bench over the fake format."""

    def make(*, ruined=False, variants=None, schemes=("int8", "dynamic"), estimators=ESTIMATORS, **limits):
        twin = fake_export(fake_weights(ruined=ruined), 16)
        images = pixels(90)
        calibration, validation = images[:40], images[40:]
        validated = fake_run(twin, validation)
        top = validated[0].argmax(axis=1)
        return Bench(
            quantizer=FakeQuantizer(SCHEMES=schemes),
            twin=twin,
            calibration=calibration,
            expected=fake_run(twin, calibration),
            validation=validation,
            validated=validated,
            answers=Answers(fp32=top, source=top),
            limits=Limits(**limits),
            largest=True,
            estimators=estimators,
            variants=variants or {},
            run=fake_run,
            progress=lambda _: None,
        )

    return make


@pytest.fixture
def fake_format():
    """The functions of the fake format, for tests that put it together themselves."""

    @dataclass
    class Format:
        weights = staticmethod(fake_weights)
        export = staticmethod(fake_export)
        run = staticmethod(fake_run)
        quantizer = FakeQuantizer

        @staticmethod
        def tools(quantizer, weights) -> Tools:
            return Tools(
                find=lambda _: quantizer,
                export=lambda model, name, size, precision: fake_export(weights, size, precision),
                run=fake_run,
                surgeries=lambda *_: {},
            )

    return Format


@pytest.fixture
def fake_model():
    """A TrainedModel around the fake weights; its net is a stand-in that can be fingerprinted."""

    def make(weights) -> TrainedModel:
        class Net:
            def to_json(self):
                return "{}"

            def get_weights(self):
                return list(weights.values())

        twin = fake_export(weights, 16)
        return TrainedModel(
            name="fake",
            net=Net(),
            outputs=(TensorSpec("scores", (None, CLASSES), activation="logits"),),
            image=ImageSpec(mean=(127.0,) * 3, std=(64.0,) * 3),
            reference=lambda x: fake_run(twin, x),
        )

    return make


@pytest.fixture(scope="session")
def many_pictures(tmp_path_factory):
    """A folder of 60 different images."""
    folder = tmp_path_factory.mktemp("many")
    for seed in range(60):
        cv2.imwrite(str(folder / f"{seed:02d}.png"), synthetic_frame(seed, height=40, width=50))
    return folder


@pytest.fixture(scope="session")
def nets():
    """The module of tiny Keras nets beside this file; tests are no package that it could be imported from."""
    spec = spec_from_file_location("tiny_nets", Path(__file__).with_name("nets.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

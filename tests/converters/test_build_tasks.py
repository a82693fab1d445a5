"""Detectors, segmenters and embeddings: from source to answers by name, through the command line."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import boardfit
from boardfit.cli import main
from boardfit.converters.masks import masks, mean_iou
from boardfit.errors import RecipeError


def trunk():
    import keras
    from keras import layers

    keras.utils.set_random_seed(5)
    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(image)
    return image, x, layers


def detector():
    import keras

    image, x, layers = trunk()
    boxes = layers.Conv2D(4, 3, padding="same", name="boxes")(x)
    scores = layers.Conv2D(2, 1, activation="sigmoid", name="scores")(x)
    return keras.Model(image, [boxes, scores], name="detector")


def segmenter():
    import keras

    image, x, layers = trunk()
    mask = layers.Conv2D(3, 3, padding="same", name="mask")(layers.UpSampling2D(2)(x))
    return keras.Model(image, mask, name="segmenter")


def embedder():
    import keras

    image, x, layers = trunk()
    return keras.Model(image, layers.Dense(16, name="vector")(layers.GlobalAveragePooling2D()(x)))


NETS = {"detect": detector, "segment": segmenter, "embed": embedder}


@pytest.fixture(scope="module", params=NETS)
def built(request, tmp_path_factory, photos):
    """A net of each task, and its bundle at two sizes."""
    folder = tmp_path_factory.mktemp(request.param)
    net = NETS[request.param]()
    net.save(folder / "net.keras")
    out = folder / "net.boardfit"
    words = ["build", str(folder / "net.keras"), "--images", str(photos), "-o", str(out)]
    assert main([*words, "--task", request.param, "--sizes", "32,64", "--image-spec", "unit"]) == 0
    return net, out


@pytest.mark.parametrize("engine", ["litert", "onnxruntime", "ncnn"])
def test_answers_are_the_sources_by_name(built, engine, photos):
    import keras

    net, out = built
    frame = cv2.imread(str(next(photos.iterdir())))
    with boardfit.load(out, engine=engine) as session:
        assert session.sizes == (32, 64)
        result = session(frame)
        assert result.size == 64
        assert result.top() == []
        assert result.answer_entropy_bits is None
        assert list(result.named) == net.output_names
        pixels = session(frame).placement
        assert pixels is not None
        wanted = keras.tree.flatten(net(_tensor(session, frame), training=False))
        for (name, actual), expected in zip(result.named.items(), wanted, strict=True):
            np.testing.assert_allclose(actual, expected, atol=2e-4, err_msg=name)


def _tensor(session, frame):
    from boardfit.runtime.preprocess import Preprocessor

    return Preprocessor(session.manifest.image, "NHWC").fit(frame, 64)[0]


def test_the_command_line_knows_them(built, photos, capsys):
    net, out = built
    assert main(["run", str(out), str(next(photos.iterdir())), "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[0])
    assert list(record["outputs"]) == net.output_names
    assert record["top"] == []
    assert main(["run", str(out), str(next(photos.iterdir()))]) == 0
    assert net.output_names[0] in capsys.readouterr().out
    assert main(["verify", str(out)]) == 0
    assert main(["inspect", str(out)]) == 0
    text = capsys.readouterr().out
    assert "the largest size" in text or "fixed" in text
    assert main(["fit", str(out), "--images", str(photos), "-o", str(out.with_name("again.boardfit"))]) == 1
    assert "classifier" in capsys.readouterr().err


def test_two_look_needs_a_classifier(built):
    _, out = built
    with pytest.raises(RecipeError, match="two-look"):
        boardfit.load(out, policy="two-look")


@pytest.mark.parametrize(
    ("words", "match"),
    [(["--precisions", "fp32,int8"], "int8"), (["--val", "labels.csv"], "--val")],
    ids=["int8", "labels"],
)
def test_what_only_a_classifier_can_be_asked(words, match, tmp_path, photos, capsys):
    embedder().save(tmp_path / "net.keras")
    (tmp_path / "labels.csv").write_text("file,label\n0.png,0\n")
    source = [
        "build",
        str(tmp_path / "net.keras"),
        "--images",
        str(photos),
        "-o",
        str(tmp_path / "o.boardfit"),
    ]
    assert main([*source, "--task", "embed", "--sizes", "32", *words]) == 1
    assert match in capsys.readouterr().err


def test_masks_and_their_overlap():
    scores = np.zeros((1, 2, 4, 4), np.float32)
    scores[:, 1, :2] = 1.0
    first = masks(scores, "logits")
    assert first.sum() == 8
    np.testing.assert_array_equal(masks(scores.transpose(0, 2, 3, 1), "logits"), first)
    assert mean_iou(first, first) == 1.0
    other = first.copy()
    other[0, 0] = 0
    assert mean_iou(other, first) == pytest.approx((4 / 8 + 8 / 12) / 2)
    single = np.array([[[[0.4, 0.6], [0.7, 0.2]]]], np.float32)
    assert masks(single, "sigmoid").sum() == 2
    assert masks(single, "logits").sum() == 4

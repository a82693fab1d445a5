"""From a source of several inputs to a bundle that is asked with all of them."""

import json

import cv2
import numpy as np
import pytest

from boardfit.cli import main
from boardfit.converters.build import build
from boardfit.converters.recipe import ExportSection, ImagesSection, Recipe, SourceSection
from boardfit.converters.samples import synthetic_frame
from boardfit.errors import RecipeError
from boardfit.runtime import load
from boardfit.runtime.selftest import self_test

FORMATS = ("tflite", "onnx", "ncnn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hold a Keras net of a stereo pair and a box, photographs, and boxes."""
    import keras

    place = tmp_path_factory.mktemp("inputs")
    keras.utils.set_random_seed(5)
    left, right = keras.Input((32, 32, 3), name="left"), keras.Input((32, 32, 3), name="right")
    box, tilt = keras.Input((4,), name="box"), keras.Input((1,), name="tilt")
    conv = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")
    pool = keras.layers.GlobalAveragePooling2D()
    features = keras.layers.Subtract()([pool(conv(left)), pool(conv(right))])
    gated = keras.layers.Multiply()([features, keras.layers.Dense(8, activation="sigmoid")(box)])
    scores = keras.layers.Dense(5)(keras.layers.Concatenate()([gated, box, tilt]))
    keras.Model([left, right, box, tilt], scores).save(place / "pair.keras")
    (place / "photos").mkdir()
    for number in range(6):
        cv2.imwrite(str(place / "photos" / f"{number}.png"), synthetic_frame(number))
    np.save(place / "box.npy", np.random.default_rng(0).uniform(0, 4, (5, 4)).astype(np.float32))
    return place


def recipe(folder, **changed):
    source = {"model": str(folder / "pair.keras"), "image_spec": "unit", **changed.pop("source", {})}
    export = {"sizes": (32, 48), "precisions": ("fp32",), **changed.pop("export", {})}
    return Recipe(SourceSection(**source), ImagesSection(str(folder / "photos")), ExportSection(**export))


@pytest.fixture(scope="module")
def built(folder):
    return build(recipe(folder, source={"inputs": (f"box={folder / 'box.npy'}",)}), folder / "a.boardfit")


def test_every_format_answers_like_the_source(built, folder):
    assert {row.artifact for row in built.parity} == {f"{name}-fp32" for name in FORMATS}
    assert not any(row.fault for row in built.parity)
    assert all(test.passed for test in self_test(built.out))
    assert any("no values were given for tilt:" in note for note in built.notes)
    assert any("fitted on images alone" in note for note in built.notes)


def test_engines_agree_and_every_input_counts(built):
    left, right = synthetic_frame(20), synthetic_frame(21)
    inputs = {"right": right, "box": [1, 2, 3, 4], "tilt": [0.5]}
    answers = {}
    for engine in ("litert", "onnxruntime", "ncnn"):
        with load(built.out, engine=engine, size=48) as model:
            assert {spec.name for spec in model.inputs[1:]} == set(inputs)
            answers[engine] = model(left, inputs=inputs).outputs[0]
            for name, value in {"right": left, "box": [4, 3, 2, 1], "tilt": [0.0]}.items():
                other = model(left, inputs={**inputs, name: value}).outputs[0]
                assert np.abs(other - answers[engine]).max() > 1e-3, name
    for answer in answers.values():
        np.testing.assert_allclose(answer, answers["onnxruntime"], atol=1e-4)


def test_run_takes_them_from_files(built, folder, tmp_path, capsys):
    np.save(tmp_path / "box.npy", np.ones(4))
    np.save(tmp_path / "tilt.npy", np.ones(1))
    photo = str(folder / "photos" / "0.png")
    words = ["run", str(built.out), photo, "--json", "--size", "32"]
    given = [f"box={tmp_path / 'box.npy'}", f"tilt={tmp_path / 'tilt.npy'}", f"right={photo}"]
    assert main([*words, *(part for word in given for part in ("--input", word))]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["top"]
    assert main(words) != 0
    assert "is missing" in capsys.readouterr().err


def test_a_policy_is_not_fitted_on_images_alone(built, folder, tmp_path, capsys):
    words = ["fit", str(built.out), "--images", str(folder / "photos"), "-o", str(tmp_path / "b.boardfit")]
    assert main(words) != 0
    assert "takes right, box, tilt besides the frame" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source": {"inputs": ("cox=a.npy",)}}, "--input cox=a.npy: the net has no such input"),
        ({"source": {"inputs": ("right=a.npy",)}}, "no such input; it takes numbers for: box, tilt"),
        ({"source": {"inputs": ("box=nowhere.npy",)}}, "cannot be read as .npy"),
        ({"export": {"precisions": ("fp32", "int8")}}, "takes right, box, tilt besides the image, and int8"),
    ],
    ids=["unknown", "image", "no-file", "int8"],
)
def test_what_makes_no_sense_is_refused_before_the_work(folder, changed, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        build(recipe(folder, **changed), tmp_path / "a.boardfit")


@pytest.mark.parametrize(
    "array",
    [np.ones((3, 5)), np.ones(4), np.zeros((0, 4)), np.full((1, 4), np.nan), np.array(["a"] * 4)[None]],
    ids=["columns", "no-rows", "empty", "nan", "text"],
)
def test_values_of_another_form_are_refused(folder, array, tmp_path):
    np.save(tmp_path / "box.npy", array)
    with pytest.raises(RecipeError, match=r"expected finite numbers \(K, 4\)"):
        build(recipe(folder, source={"inputs": (f"box={tmp_path / 'box.npy'}",)}), tmp_path / "a.boardfit")


def test_a_word_without_a_file_is_refused():
    with pytest.raises(RecipeError, match=r"expected NAME=FILE\.npy"):
        SourceSection(model="a.keras", inputs=("box",))


def test_passed_through_with_whole_numbers(folder, tmp_path):
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Cast", ["scale"], ["s"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("scale", TensorProto.INT64, ["n", 4]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(kernel, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "scale.npy", np.asarray([[1, 2, 3, 4]]))
    words = {"model": str(tmp_path / "net.onnx"), "pass_through": True, "task": "raw"}
    words["inputs"] = (f"scale={tmp_path / 'scale.npy'}",)
    export = {"sizes": (32,), "formats": ("onnx",)}
    report = build(recipe(folder, source=words, export=export), tmp_path / "a.boardfit")
    assert report.manifest.artifacts[0].inputs[1].dtype == "int64"
    with load(report.out) as session:
        one = session(synthetic_frame(1), inputs={"scale": [1, 1, 1, 1]}).outputs[0]
        two = session(synthetic_frame(1), inputs={"scale": [2, 2, 2, 2]}).outputs[0]
    np.testing.assert_allclose(two, 2 * one, rtol=1e-5)

"""Nets that take more than an image: boxes, numbers, a second picture."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardfit.converters.ingest import ingest, own_side
from boardfit.converters.ingest.check import (
    max_relative_difference,
    outputs_of,
    random_further,
    random_images,
)
from boardfit.converters.ingest.interface import plain_names
from boardfit.converters.ingest.survey import survey
from boardfit.converters.ingest.untouched import read_untouched
from boardfit.errors import UnsupportedModel

CONV = {"pads": [1, 1, 1, 1], "strides": [2, 2]}


@pytest.fixture
def save_net(tmp_path):
    """Write an ONNX net of the input ``left``, and of others by name: (element type, shape)."""

    def save(others, *, side=32, batch="n", layout="NCHW", opset=17):
        rng = np.random.default_rng(3)
        sides = [side or "h", side or "w"]
        image = [batch, 3, *sides] if layout == "NCHW" else [batch, *sides, 3]
        inputs = [helper.make_tensor_value_info("left", TensorProto.FLOAT, image)]
        consts = {"kernel": rng.standard_normal((6, 3, 3, 3)).astype(np.float32) * 0.2}
        nodes = []
        features = _branch(nodes, "left", layout)
        columns = 6
        for name, (kind, shape) in others.items():
            shape = image if shape == "image" else shape
            # Numbers stand before the frame, a second image behind it: the first image is the frame.
            place = len(inputs) if len(shape) == 4 else 0
            inputs.insert(place, helper.make_tensor_value_info(name, kind, shape))
            if len(shape) == 4:
                second = _branch(nodes, name, layout)
                nodes.append(helper.make_node("Sub", [features, second], [f"{name}/joined"]))
                features = f"{name}/joined"
                continue
            if kind != TensorProto.FLOAT:
                nodes.append(helper.make_node("Cast", [name], [f"{name}/float"], to=TensorProto.FLOAT))
            source = name if kind == TensorProto.FLOAT else f"{name}/float"
            width = int(np.prod([extent for extent in shape if isinstance(extent, int) and extent > 1]))
            consts[f"{name}/shape"] = np.asarray([-1, width], np.int64)
            nodes.append(helper.make_node("Reshape", [source, f"{name}/shape"], [f"{name}/row"]))
            nodes.append(helper.make_node("Concat", [features, f"{name}/row"], [f"{name}/joined"], axis=1))
            features, columns = f"{name}/joined", columns + width
        consts["dense"] = rng.standard_normal((columns, 5)).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [features, "dense"], ["scores"]))
        graph = helper.make_graph(
            nodes,
            "net",
            inputs,
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, key) for key, value in consts.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        return tmp_path / "net.onnx"

    return save


def _branch(nodes, name, layout):
    source = name
    if layout == "NHWC":
        source = f"{name}/planar"
        nodes.append(helper.make_node("Transpose", [name], [source], perm=[0, 3, 1, 2]))
    nodes.append(helper.make_node("Conv", [source, "kernel"], [f"{name}/conv"], **CONV))
    nodes.append(helper.make_node("Relu", [f"{name}/conv"], [f"{name}/relu"]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"{name}/relu"], [f"{name}/pool"]))
    nodes.append(helper.make_node("Flatten", [f"{name}/pool"], [f"{name}/flat"]))
    return f"{name}/flat"


def worst(model, size):
    images = random_images(size, model.image, count=3, seed=size)
    further = random_further(model.further, size, model.image, count=3, seed=9)
    pairs = zip(outputs_of(model.net, images, further), model.reference(images, further), strict=True)
    return max(max_relative_difference(actual, expected) for actual, expected in pairs)


FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@pytest.mark.parametrize("side", [32, None], ids=["fixed", "free"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("others", "shapes"),
    [
        ({"box": (FLOAT, ["n", 4])}, {"box": (None, 4)}),
        ({"box.1": (FLOAT, ["n", 2, 3])}, {"box_1": (None, 2, 3)}),
        ({"tilt": (FLOAT, ["n", 1])}, {"tilt": (None, 1)}),
        ({"id": (INT64, ["n", 2])}, {"id": (None, 2)}),
        ({"night": (BOOL, ["n", 1])}, {"night": (None, 1)}),
        ({"right": (FLOAT, "image")}, {"right": "image"}),
        ({"right": (FLOAT, "image"), "box": (FLOAT, ["n", 4])}, {"box": (None, 4), "right": "image"}),
    ],
    ids=["box", "matrix", "number", "int64", "bool", "two-images", "two-images-and-box"],
)
def test_onnx_inputs_become_inputs_of_the_net(save_net, request_for, others, shapes, layout, side):
    model = ingest(request_for(save_net(others, side=side, layout=layout), 32, 48))
    sides = (None, None, None, 3) if side is None else (None, 32, 32, 3)
    expected = {name: sides if shape == "image" else shape for name, shape in shapes.items()}
    assert {spec.name: spec.shape for spec in model.further} == expected
    assert len(model.net.inputs) == 1 + len(others)
    assert model.fixed_size is None
    assert max(worst(model, size) for size in (32, 48)) < 1e-5
    assert "given by name besides it" in model.notes[-1]


@pytest.mark.parametrize(
    ("shape", "expected"), [([4], (None, 4)), ([2, 3], (None, 2, 3))], ids=["vector", "matrix"]
)
def test_an_input_without_a_batch_takes_one_image_at_a_time(save_net, request_for, shape, expected):
    model = ingest(request_for(save_net({"box": (FLOAT, shape)}, batch=1), 32))
    assert model.further[0].shape == expected
    assert worst(model, 32) < 1e-5


def test_one_number_of_an_input_without_a_batch(request_for, tmp_path):
    kernel = np.random.default_rng(3).standard_normal((6, 3, 3, 3)).astype(np.float32)
    consts = {"kernel": kernel, "second": np.asarray(1), "one": np.asarray(1, np.float32)}
    nodes = []
    features = _branch(nodes, "left", "NCHW")
    nodes.append(helper.make_node("Gather", ["scale", "second"], ["number"]))
    nodes.append(helper.make_node("Add", ["number", "one"], ["more"]))
    nodes.append(helper.make_node("Mul", [features, "more"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("left", FLOAT, [1, 3, 32, 32]),
            helper.make_tensor_value_info("scale", FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("scores", FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in consts.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert worst(ingest(request_for(tmp_path / "net.onnx", 32)), 32) < 1e-5


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"box": (FLOAT, ["n", "k"])}, "expected a fixed number in every axis but the batch"),
        ({"box": (TensorProto.STRING, ["n", 4])}, "expected FLOAT, INT32, INT64 or BOOL"),
        ({"small": (FLOAT, ["n", 3, 16, 16])}, "a second image must have the sides of the first"),
    ],
    ids=["free", "text", "another-size"],
)
def test_inputs_that_cannot_be_given_are_refused_by_name(save_net, request_for, others, message):
    path = save_net(others) if "small" in others else _declared(save_net({}), others)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        ingest(request_for(path, 32))
    assert repr(next(iter(others))) in str(caught.value)


def _declared(path, others):
    """Add inputs to a file, read by nothing."""
    import onnx

    model = onnx.load(str(path))
    for name, (kind, shape) in others.items():
        model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    onnx.save(model, str(path))
    return path


def test_an_input_that_nothing_reads_is_refused(save_net, request_for):
    with pytest.raises(UnsupportedModel, match="nothing in net reads its input 'box'"):
        ingest(request_for(_declared(save_net({}), {"box": (FLOAT, ["n", 4])}), 32))


@pytest.fixture
def keras_net(tmp_path):
    """Save a Keras net of two images and a vector, its inputs as a list or a dict, the frame not first."""
    import keras

    def save(form, side=32):
        keras.utils.set_random_seed(4)
        box = keras.Input((4,), name="box")
        left = keras.Input((side, side, 3), name="left")
        right = keras.Input((side, side, 3), name="right")
        tower_image = keras.Input((side, side, 3))
        y = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(tower_image)
        tower = keras.Model(tower_image, keras.layers.GlobalAveragePooling2D()(y), name="tower")
        gate = keras.layers.Dense(8, activation="sigmoid")(box)
        joined = keras.layers.Multiply()([keras.layers.Subtract()([tower(left), tower(right)]), gate])
        outputs = keras.layers.Dense(5)(keras.layers.Concatenate()([joined, box]))
        inputs = [box, left, right] if form == "list" else {"box": box, "left": left, "right": right}
        keras.Model(inputs, outputs, name="pair").save(tmp_path / "pair.keras")
        return tmp_path / "pair.keras"

    return save


@pytest.mark.parametrize("side", [32, None], ids=["fixed", "free"])
@pytest.mark.parametrize("form", ["list", "dict"])
def test_keras_inputs_keep_their_names(keras_net, request_for, form, side):
    model = ingest(request_for(keras_net(form, side), 32, 48))
    assert [(spec.name, spec.layout) for spec in model.further] == [("box", ""), ("right", "NHWC")]
    assert [item.name for item in model.net.inputs] == ["image", "box", "right"]
    assert model.fixed_size is None
    assert max(worst(model, size) for size in (32, 48)) < 1e-5


def test_keras_nets_of_odd_interfaces_are_refused(tmp_path, request_for):
    import keras

    image, words = keras.Input((32, 32, 3)), keras.Input((None, 4), name="words")
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    outputs = keras.layers.Concatenate()([pooled, keras.layers.GlobalAveragePooling1D()(words)])
    keras.Model([image, words], outputs).save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedModel, match=r"'words'.*expected a fixed number in every axis"):
        ingest(request_for(tmp_path / "a.keras", 32))
    small = keras.Input((16, 16, 3), name="small")
    outputs = keras.layers.Concatenate()([pooled, keras.layers.GlobalAveragePooling2D()(small)])
    keras.Model([image, small], outputs).save(tmp_path / "b.keras")
    with pytest.raises(UnsupportedModel, match=r"'small'.*the sides of the first"):
        ingest(request_for(tmp_path / "b.keras", 32))


def test_survey_shows_every_input(save_net):
    path = save_net({"box": (FLOAT, ["n", 4])})
    found = survey(str(path))
    assert [(spec.name, spec.shape) for spec in found.inputs] == [
        ("image", (None, 32, 32, 3)),
        ("box", (None, 4)),
    ]
    assert found.free and own_side(str(path)) == 32
    assert any(row.macs for row in found.layers)


def test_passed_through_as_it_is(save_net, request_for):
    model = read_untouched(request_for(save_net({"id.1": (INT64, ["n", 2])}), 32))
    assert [(spec.name, spec.dtype) for spec in model.untouched.further] == [("id.1", "int64")]
    images = random_images(32, model.image, count=2)
    first, second = (model.reference(images, [np.full((2, 2), value, np.float32)]) for value in (0, 1))
    assert not np.array_equal(first[0], second[0])


def test_passed_through_needs_a_batch(save_net, request_for):
    with pytest.raises(UnsupportedModel, match=r"'box' of .* has no axis for the batch"):
        read_untouched(request_for(save_net({"box": (FLOAT, [4])}, batch=1), 32))


def test_names_become_plain_and_distinct():
    assert plain_names(["box.1", "box_1", "1", "image", "µ", ""]) == [
        "box_1",
        "box_1_1",
        "input_1",
        "image_1",
        "input",
        "input_2",
    ]


@pytest.mark.long
def test_saved_models_too(keras_net, tmp_path, request_for):
    import keras

    keras.models.load_model(keras_net("list")).export(str(tmp_path / "saved"), verbose=False)
    model = ingest(request_for(tmp_path / "saved", 32))
    assert [(spec.name, spec.layout) for spec in model.further] == [("box", ""), ("right", "NHWC")]
    assert worst(model, 32) < 1e-5

"""What a user may give by mistake, and what a stranger may give on purpose."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from boardfit.converters.ingest import ingest
from boardfit.converters.ingest.keras_file import FREE_BYTES, MAX_BYTES, unpack_limit
from boardfit.converters.ingest.reference import keras_reference
from boardfit.errors import InputError, RecipeError, UnsupportedModel


@pytest.fixture
def small(tmp_path):
    """A small model saved as .keras and .h5."""
    import keras
    from keras import layers

    image = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    model = keras.Model(image, layers.Dense(3)(x))
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"small.{suffix}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        ("gone.onnx", None, InputError, "does not exist"),
        ("model.xyz", b"abc", InputError, r"'\.xyz': expected \.h5, \.hdf5, \.keras, \.onnx"),
        ("weights.pth", b"abc", InputError, "package.module:factory"),
        ("empty.onnx", b"", UnsupportedModel, "empty"),
        ("text.onnx", b"This is a text.\n" * 9, UnsupportedModel, "not an ONNX model"),
        ("text.keras", b"This is a text.\n" * 9, UnsupportedModel, "not a Keras model"),
        ("text.h5", b"This is a text.\n" * 9, UnsupportedModel, "not a Keras model"),
    ],
)
def test_not_a_model(name, content, error, match, tmp_path, request_for):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=match):
        ingest(request_for(tmp_path / name))


def test_folder(tmp_path, request_for):
    with pytest.raises(InputError, match="is a folder"):
        ingest(request_for(tmp_path))


def test_unknown_kind(tmp_path, request_for):
    with pytest.raises(RecipeError, match=r"'caffe' is unknown: .* keras, onnx, savedmodel, torch"):
        ingest(request_for(tmp_path), "caffe")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_truncated_keras(suffix, share, small, request_for):
    path = small / f"small.{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnsupportedModel, match=r"not a Keras model|cannot be loaded"):
        ingest(request_for(path, 16))


def test_damage_in_a_compressed_keras(small, request_for):
    path = small / "small.keras"
    repack(path)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("model.weights.h5")
    data = bytearray(path.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename) + 20
    data[start : start + 6] = b"\xff" * 6
    path.write_bytes(data)
    with pytest.raises(UnsupportedModel, match="not a Keras model, or is damaged"):
        ingest(request_for(path, 16))


def test_a_failure_inside_keras_is_named():
    class Model:
        name = "net"
        inputs = ()

        def __call__(self, images, training):
            raise AttributeError("no shape")

    with pytest.raises(UnsupportedModel, match=r"cannot run net at 8 pixels \(no shape\)"):
        keras_reference(Model())(np.zeros((1, 8, 8, 3), np.float32))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_onnx(share, export_torch, request_for):
    path = export_torch("residual")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnsupportedModel, match=r"damaged|not an ONNX model"):
        ingest(request_for(path))


def repack(path, **replace):
    """Write a .keras again with some of its entries replaced."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries.update({name.replace("__", "."): content for name, content in replace.items()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def huge_hdf5(**options):
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("weights", shape=(FREE_BYTES // 4 + 1,), dtype="float32", **options)
    return buffer.getvalue()


def test_zip_bomb_is_not_unpacked(small, request_for, monkeypatch):
    import keras

    path = small / "small.keras"
    repack(path, model__weights__h5=b"", bomb=b"\0" * (FREE_BYTES + 1))
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(UnsupportedModel, match="would unpack to 64 MiB or more"):
        ingest(request_for(path, 16))


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (4096,), "compression": "gzip"}, {"fillvalue": 1.0}],
    ids=["unwritten", "gzip", "fill"],
)
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_hdf5_bomb_is_not_unpacked(suffix, options, small, request_for, monkeypatch):
    import keras

    path = small / f"small.{suffix}"
    content = huge_hdf5(**options)
    assert len(content) < 1 << 20
    if suffix == "keras":
        repack(path, model__weights__h5=content)
    else:
        path.write_bytes(content)
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(UnsupportedModel, match="would unpack"):
        ingest(request_for(path, 16))


def test_hdf5_link_out_of_the_file(small, request_for):
    import h5py

    path = small / "small.h5"
    with h5py.File(path, "a") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(UnsupportedModel, match="'elsewhere' is a link"):
        ingest(request_for(path, 16))


def test_weights_alone_are_no_model(tmp_path, request_for):
    import h5py

    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    with pytest.raises(UnsupportedModel, match=r"no model: save with model\.save"):
        ingest(request_for(tmp_path / "weights.h5"))


def test_unpack_limit():
    assert unpack_limit(1000) == FREE_BYTES
    assert unpack_limit(10 << 20) == 200 << 20
    assert unpack_limit(1 << 40) == MAX_BYTES


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_lambda_is_refused_before_it_runs(suffix, nested, tmp_path, request_for, monkeypatch):
    import keras
    from keras import layers

    image = keras.Input((16, 16, 3))
    x = layers.Lambda(lambda tensor: tensor * 2, name="trick")(image)
    if nested:
        x = keras.Model(image, x)(image)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(UnsupportedModel, match="Lambda 'trick'"):
        ingest(request_for(path, 16))


@pytest.mark.parametrize(
    "change",
    [
        {"module": "os", "class_name": "system", "registered_name": None},
        {"module": None, "class_name": "Mine", "registered_name": "package>Mine"},
        {"module": "keras.layers", "class_name": "TFSMLayer", "registered_name": None},
    ],
    ids=["foreign-module", "registered", "saved-model"],
)
def test_foreign_class_is_refused(change, small, request_for):
    path = small / "small.keras"
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    config["config"]["layers"][1].update(change)
    repack(path, config__json=json.dumps(config).encode())
    with pytest.raises(UnsupportedModel, match=change["class_name"]):
        ingest(request_for(path, 16))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda model: setattr(model, "ir_version", 1 << 40), "damaged, or no valid ONNX"),
        (lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", 76), "element type 76"),
        (lambda model: setattr(model.opset_import[0], "version", 1 << 40), "damaged, or no valid ONNX"),
    ],
    ids=["ir-version", "element-type", "opset"],
)
def test_numbers_that_onnx_does_not_know(change, match, export_torch, request_for):
    import onnx

    path = export_torch("residual")
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedModel, match=match):
        ingest(request_for(path, 32))

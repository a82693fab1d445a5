from __future__ import annotations

import json
from dataclasses import replace

import pytest

from boardfit.bundle import Manifest, write_bundle
from boardfit.bundle.manifest import FileEntry
from boardfit.errors import BundleError
from boardfit.specs import PolicySpec


@pytest.fixture
def manifest(tmp_path, parts) -> Manifest:
    return write_bundle(tmp_path / "a.boardfit", **parts)


def test_it_comes_back_equal(manifest):
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert Manifest.from_bytes(manifest.to_bytes()).to_bytes() == manifest.to_bytes()


def test_it_lists_models_and_golden_files_only(manifest):
    assert [entry.path for entry in manifest.files] == [
        "golden/32-0.npy",
        "golden/48-0.npy",
        "golden/64-0.npy",
        "golden/frame.npy",
        "models/ncnn-fp16.bin",
        "models/ncnn-fp16.param",
        "models/tflite-fp32.tflite",
    ]


@pytest.mark.parametrize("schema", [0, 1, "2", None, True], ids=repr)
def test_another_schema_is_named_before_anything_else(manifest, schema):
    data = {**manifest.to_dict(), "schema": schema, "later": 1}
    with pytest.raises(BundleError, match=r"has schema .* reads schema 2"):
        Manifest.from_dict(data)


@pytest.mark.parametrize("name", sorted(set(Manifest.__dataclass_fields__) - {"schema"}))
def test_a_missing_field_is_refused(manifest, name):
    data = manifest.to_dict()
    del data[name]
    with pytest.raises(BundleError, match="expected exactly"):
        Manifest.from_dict(data)


@pytest.mark.parametrize("value", [None, 7, "x", [7], {"x": 7}, [None], [[]], ""], ids=repr)
@pytest.mark.parametrize("name", sorted(Manifest.__dataclass_fields__))
def test_a_value_of_another_kind_is_refused_or_means_the_same(manifest, name, value):
    data = json.loads(json.dumps({**manifest.to_dict(), name: value}))
    try:
        read = Manifest.from_dict(data)
    except BundleError:
        return
    assert read.to_dict() == data


def test_a_file_that_an_artifact_uses_must_be_listed(manifest):
    with pytest.raises(BundleError, match=r"uses 'models/ncnn-fp16.bin'"):
        replace(manifest, files=tuple(e for e in manifest.files if not e.path.endswith(".bin")))


def test_the_policy_may_name_served_sizes_only(manifest):
    with pytest.raises(BundleError, match="size 96, which no artifact serves"):
        replace(manifest, policy=PolicySpec(kind="fixed", sizes=(64, 96)))


def test_labels_must_match_the_classes(manifest):
    with pytest.raises(BundleError, match="2 labels, but tflite-fp32 answers 3 classes"):
        replace(manifest, labels=("cat", "dog"))


def test_artifacts_must_have_distinct_names(manifest):
    with pytest.raises(BundleError, match="distinct names"):
        replace(manifest, artifacts=manifest.artifacts * 2)


@pytest.mark.parametrize("path", ["manifest.json", "SHA256SUMS", "measurements.json"])
def test_the_bundles_own_names_are_taken(path):
    with pytest.raises(BundleError, match="bundle's own"):
        FileEntry.of(path, b"")

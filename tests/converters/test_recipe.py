from __future__ import annotations

import pytest

from boardfit.converters.image_specs import IMAGE_SPECS, resolve_image_spec
from boardfit.converters.recipe import Recipe, merge, to_toml
from boardfit.converters.toml_file import load_toml
from boardfit.errors import RecipeError

MINIMAL = {"source": {"model": "net.keras"}, "images": {"folder": "photos"}}


def test_a_printed_recipe_reads_back_the_same(tmp_path):
    recipe = Recipe.from_dict({**MINIMAL, "export": {"sizes": [96, 128], "formats": ["onnx"]}})
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe))
    assert Recipe.from_dict(load_toml(path)) == recipe


def test_flags_win_over_the_file_and_absent_flags_do_not():
    tables = merge(
        {**MINIMAL, "export": {"sizes": [96]}},
        {"export": {"sizes": (64,), "formats": None}, "source": {"labels": None}},
    )
    assert Recipe.from_dict(tables).export.sizes == (64,)
    assert tables["source"] == {"model": "net.keras"}


def test_a_source_given_as_a_flag_replaces_the_other_kind():
    tables = merge(MINIMAL, {"source": {"torch": "a.b:c", "model": None}})
    assert Recipe.from_dict(tables).source.torch == "a.b:c"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "needs one source"),
        ({"source": {"model": "a.keras", "torch": "b:c"}, "images": {"folder": "p"}}, "not both"),
        ({"source": {"model": "a.keras"}}, "give --images"),
        ({**MINIMAL, "export": {"sizes": [224, 112]}}, "ascending"),
        ({**MINIMAL, "export": {"sizes": [0]}}, "from 1 to 8192"),
        ({**MINIMAL, "export": {"sizes": []}}, "from 1 to 8192"),
        ({**MINIMAL, "export": {"sizes": "112"}}, "expected a value like"),
        ({**MINIMAL, "export": {"formats": ["coreml"]}}, "tflite, onnx, ncnn"),
        ({**MINIMAL, "export": {"formats": ["onnx", "onnx"]}}, "distinct"),
        ({**MINIMAL, "export": {"precisions": ["int4"]}}, "fp32, fp16, int8"),
        ({**MINIMAL, "export": {"size": [112]}}, "no field 'size'"),
        ({**MINIMAL, "exports": {}}, "unknown section 'exports'"),
        ({**MINIMAL, "export": 3}, "expected a table"),
        ({**MINIMAL, "images": {"folder": "p", "limit": 0}}, "at least 1"),
        ({**MINIMAL, "policy": {"kind": "magic"}}, "fixed, entropy, two-look"),
        ({**MINIMAL, "schema": 99}, "schema 99"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tables, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(tables)


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("sizes = [")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_toml(path)
    with pytest.raises(RecipeError, match="cannot read"):
        load_toml(tmp_path / "absent.toml")


def test_image_specs_by_name_and_from_a_file(tmp_path):
    assert resolve_image_spec("efficientnet-lite") is IMAGE_SPECS["efficientnet-lite"]
    path = tmp_path / "spec.toml"
    path.write_text("mean = [1, 2, 3]\ncrop = 1.0\n")
    spec = resolve_image_spec(str(path))
    assert (spec.mean, spec.crop, spec.resize) == ((1.0, 2.0, 3.0), 1.0, "area")
    path.write_text("std = [0, 1, 1]\n")
    with pytest.raises(RecipeError, match="must be positive"):
        resolve_image_spec(str(path))
    with pytest.raises(RecipeError, match="efficientnet-lite"):
        resolve_image_spec("caffe")

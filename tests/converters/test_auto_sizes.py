"""--sizes auto: what is proposed, from what, and where there is nothing to propose."""

from __future__ import annotations

import pytest

from boardfit.cli import main
from boardfit.converters.auto_sizes import propose_sizes, resolve_sizes
from boardfit.converters.ingest import own_side
from boardfit.converters.plan import plan
from boardfit.converters.recipe import Recipe, to_toml
from boardfit.converters.toml_file import load_toml
from boardfit.errors import UnsupportedSize


def recipe(source, photos, **export) -> Recipe:
    kind = "torch" if str(source).endswith(":factory") else "model"
    return Recipe.from_dict(
        {
            "source": {kind: str(source), "image_spec": "unit"},
            "images": {"folder": str(photos)},
            "export": {"auto_sizes": True, **export},
        }
    )


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (224, (128, 160, 224)),
        (299, (160, 224, 299)),
        (384, (224, 256, 384)),
        (128, (64, 96, 128)),
        (96, (56, 64, 96)),
        (32, (16, 24, 32)),
        (20, (16, 20)),
        (8, (8,)),
    ],
)
def test_a_half_and_a_third_of_the_time_in_sides_that_waste_nothing(largest, sizes):
    assert propose_sizes(largest) == sizes


def test_every_side_yields_legal_sizes_below_it():
    for largest in range(1, 700):
        sizes = propose_sizes(largest)
        assert sizes[-1] == largest and list(sizes) == sorted(set(sizes)) and sizes[0] > 0


def test_a_source_of_a_fixed_input_gives_its_own_side(tiny_net, tmp_path, photos):
    import keras

    image = keras.Input((56, 56, 3))
    keras.Model(image, tiny_net(image)).save(tmp_path / "own.keras")
    resolved, notes = resolve_sizes(recipe(tmp_path / "own.keras", photos))
    assert resolved.export.sizes == (32, 40, 56)
    assert not resolved.export.auto_sizes
    assert notes[0].startswith("sizes 32, 40, 56 were proposed: 56 is the source's own; 40 takes about 0.51")


def test_a_source_that_is_free_of_size_gets_the_usual_one_and_the_plan_says_so(tiny_file, photos, tmp_path):
    said: list[str] = []
    made = plan(recipe(tiny_file, photos, formats=["onnx"]), tmp_path / "x.boardfit", progress=said.append)
    assert made.recipe.export.sizes == (128, 160, 224)
    assert made.model.notes[0] in said
    assert "takes any size, and 224 is the usual one" in made.model.notes[0]


def test_a_source_that_takes_one_size_only_is_refused(flatten_file, photos, tmp_path):
    with pytest.raises(UnsupportedSize, match=r"auto has nothing to choose: fixed takes 28 .*flatten"):
        plan(recipe(flatten_file, photos), tmp_path / "x.boardfit")


def test_sizes_that_were_given_are_left_alone(tiny_file, photos):
    asked = recipe(tiny_file, photos, auto_sizes=False, sizes=[40])
    assert resolve_sizes(asked) == (asked, ())


@pytest.mark.parametrize(
    ("signature", "side"), [("size=48", 48), ("size", None), ("", None)], ids=["default", "none", "fixed"]
)
def test_a_factorys_default_is_its_own_side(signature, side, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "nets.py").write_text(f"def factory({signature}):\n    raise RuntimeError\n")
    assert own_side(f"{tmp_path}/nets.py:factory") == side


def test_the_flag_and_the_recipe_file_say_the_same(tiny_file, photos, tmp_path, capsys):
    command = ["build", str(tiny_file), "--images", str(photos), "--sizes", "auto", "--print-recipe"]
    assert main(command) == 0
    path = tmp_path / "recipe.toml"
    path.write_text(capsys.readouterr().out)
    read = Recipe.from_dict(load_toml(path))
    assert read.export.auto_sizes
    assert to_toml(read) == path.read_text()
    assert main(["build", "--recipe", str(path), "--sizes", "28,56", "--print-recipe"]) == 0
    assert "auto_sizes = false" in capsys.readouterr().out


def test_another_word_than_auto_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["build", "x.keras", "--sizes", "some"])
    assert "expected sides like 112,160,224, or auto" in capsys.readouterr().err

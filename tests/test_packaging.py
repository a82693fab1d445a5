"""What pip will install: base dependencies, extras, entry points."""

from __future__ import annotations

import configparser
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirements(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def names(text: str) -> list[str]:
    heads = [line.partition(";")[0] for line in requirements(text)]
    return sorted(head.split(">")[0].split("<")[0].split("=")[0].strip() for head in heads)


def test_the_base_needs_numpy_opencv_and_a_toml_reader_only(config):
    assert names(config["options"]["install_requires"]) == ["numpy", "opencv-python-headless", "tomli"]


def test_armv7l_takes_both_from_debian(config):
    lines = requirements(config["options"]["install_requires"])
    markers = {line.partition(";")[0].split(">")[0]: line.partition(";")[2].strip() for line in lines}
    assert markers.pop("tomli") == 'python_version < "3.11"'  # pure Python, and in the language since 3.11
    assert set(markers.values()) == {'platform_machine != "armv7l"'}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("litert", ["ai-edge-litert"]),
        ("tflite", ["numpy", "tflite-runtime"]),
        ("onnx", ["onnxruntime"]),
        ("ncnn", ["ncnn"]),
        ("torch", ["torch"]),
        ("sign", ["cryptography"]),
    ],
)
def test_an_extra_holds_what_it_promises(config, extra, expected):
    assert names(config["options.extras_require"][extra]) == expected


def test_tflite_keeps_the_old_numpy(config):
    assert "numpy<2" in requirements(config["options.extras_require"]["tflite"])


def test_convert_and_dev_exist(config):
    assert {"tensorflow", "tf2onnx", "onnx", "onnxslim"} <= set(
        names(config["options.extras_require"]["convert"])
    )
    assert {"pytest", "ruff", "mypy"} <= set(names(config["options.extras_require"]["dev"]))


def test_no_extra_draws_torch_in_by_itself(config):
    """pnnx declares torch, and torch brings gigabytes: both are the user's own choice."""
    for extra, text in config["options.extras_require"].items():
        found = set(names(text))
        assert "pnnx" not in found, extra
        assert extra == "torch" or "torch" not in found, extra


def test_opencv_is_the_one_without_a_screen(config):
    everything = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    for text in everything:
        assert not {"opencv-python", "opencv-contrib-python"} & set(names(text))


def test_pythons_from_3_10_on(config):
    assert config["options"]["python_requires"] == ">=3.10"


def test_the_command_is_boardfit(config):
    scripts = requirements(config["options.entry_points"]["console_scripts"])
    assert scripts == ["boardfit = boardfit.cli:entry"]


def test_the_wheel_ships_the_boards(config):
    patterns = config["options.package_data"]["boardfit.boards"].split()
    folder = ROOT / "boards"
    shipped = {path for pattern in patterns for path in folder.glob(pattern)}
    assert shipped == set((folder / "profiles").iterdir())
    found = {entry.name for entry in (files("boardfit.boards") / "profiles").iterdir()}
    assert found == {path.name for path in shipped}


def test_the_wheel_ships_what_images_are_built_from(config):
    patterns = config["options.package_data"]["boardfit.boards.cross"].split()
    shipped = {path.name for pattern in patterns for path in (ROOT / "boards" / "cross").glob(pattern)}
    assert {"runtime.Dockerfile", "armhf.Dockerfile", "jetson.Dockerfile", "image.md"} <= shipped


def test_the_native_runner_is_in_the_source_package_only(config, tmp_path):
    words = [
        sys.executable,
        "-c",
        "import setuptools; setuptools.setup()",
        "-q",
        "egg_info",
        "-e",
        str(tmp_path),
    ]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    listed = (tmp_path / "boardfit.egg-info" / "SOURCES.txt").read_text().splitlines()
    native = {
        path for folder in ("runtime/native", "boards/cross/toolchains") for path in (ROOT / folder).iterdir()
    }
    assert {str(path.relative_to(ROOT)) for path in native} <= set(listed)
    assert "include_package_data" not in config["options"]
    assert "boardfit.runtime" not in config["options.package_data"]


@pytest.mark.parametrize(
    "group", ["boardfit.engines", "boardfit.policies", "boardfit.ingest", "boardfit.targets"]
)
def test_entry_points_lead_somewhere(config, group):
    declared = dict(
        line.replace(" ", "").split("=") for line in requirements(config["options.entry_points"][group])
    )
    assert declared
    for name, target in declared.items():
        module, _, attribute = target.partition(":")
        found = import_module(module)
        assert not attribute or hasattr(found, attribute), name
    assert declared.keys() <= {point.name for point in entry_points(group=group)}


@pytest.mark.parametrize("package", ["boardfit", "boardfit.runtime"])
def test_lazy_names_are_those_that_are_promised(package):
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'lunar'"):
        _ = module.lunar

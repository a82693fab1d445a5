"""Executes the house rules: who may import whom, which packages there are, how light the import is."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "sdk": "boardfit",
    "converters": "boardfit.converters",
    "runtime": "boardfit.runtime",
    "boards": "boardfit.boards",
    "benchmarks": "boardfit.benchmarks",
}
SCRIPTS = ("benchmarks/evidence", "sdk/examples")

KERNEL = tuple(
    f"boardfit.{name}" for name in ("errors", "specs", "timing", "files", "names", "bundle", "_version")
)
DOOR = ("boardfit.cli", "boardfit.loading")
HEAVY_FRAMEWORKS = ("tensorflow", "keras", "torch", "jax", "tf2onnx", "onnx", "onnxslim", "pnnx", "h5py")
CONVERSION = (*HEAVY_FRAMEWORKS, "ai_edge_quantizer", "flatbuffers")
ENGINE_LIBRARIES = ("onnxruntime", "ai_edge_litert", "tflite_runtime", "ncnn")
TOML = ("tomli", "tomli_w")
# sys.stdlib_module_names of Python 3.10 lacks the one that came with 3.11.
STDLIB = sys.stdlib_module_names | {"tomllib"}


@dataclass(frozen=True)
class Room:
    """What one line of the table allows.

    Attributes:
        ours: Prefixes of our own modules.
        foreign: Top-level names besides the standard library, anywhere.
        inside: The same, but inside functions only.
    """

    ours: tuple[str, ...]
    foreign: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()


ROOMS = {
    "kernel": Room(KERNEL, ("numpy",), inside=("cryptography",)),
    "boards": Room((*KERNEL, "boardfit.boards"), ("numpy",), inside=TOML),
    "runtime": Room((*KERNEL, "boardfit.runtime"), ("numpy", "cv2")),
    "engine": Room((*KERNEL, "boardfit.runtime"), ("numpy", "cv2"), inside=ENGINE_LIBRARIES),
    "camera device": Room((*KERNEL, "boardfit.runtime"), ("numpy", "cv2"), inside=("picamera2",)),
    "converters": Room(
        (*KERNEL, "boardfit.runtime", "boardfit.converters"),
        ("numpy",),
        inside=("cv2", *CONVERSION, *ENGINE_LIBRARIES, *TOML),
    ),
    # Subclasses keras.Model and its callbacks: pure Keras 3, for any backend, so nothing of TensorFlow's.
    "compress": Room((*KERNEL, "boardfit.runtime", "boardfit.converters"), ("numpy", "keras")),
    # Subclasses keras.layers.Layer; one of its layers is an operation of TensorFlow's where that is below.
    "layers": Room(KERNEL, ("numpy", "keras"), inside=("tensorflow",)),
    "benchmarks": Room(
        (*KERNEL, "boardfit.runtime", "boardfit.boards", "boardfit.benchmarks"),
        ("numpy",),
        inside=TOML,
    ),
    # The door may use everything, but inside functions; of its own and of the kernel also above.
    "door": Room(("boardfit",), ("numpy",), inside=("cv2", "rich")),
}
DOOR_AT_TOP = (*KERNEL, "boardfit.cli", "boardfit.loading", "boardfit.runtime.results")


@dataclass(frozen=True)
class Import:
    """One imported module, with where it stands."""

    module: str
    line: int
    at_top: bool


@dataclass(frozen=True)
class Source:
    """One module of the package."""

    path: str
    module: str
    room: str


def room_of(module: str) -> str:
    if module in ("boardfit", "boardfit.__main__") or is_under(module, DOOR):
        return "door"
    if is_under(module, KERNEL):
        return "kernel"
    if module.startswith("boardfit.runtime.engines."):
        return "engine"
    if module.startswith("boardfit.runtime.camera.devices."):
        return "camera device"
    if is_under(module, ("boardfit.converters.compress",)):
        return "compress"
    if module == "boardfit.converters.ingest.own_layers":
        return "layers"
    return module.split(".")[1]


def is_under(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def sources() -> list[Source]:
    found = []
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if is_script(relative):
                continue
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            names = [package, *(part for part in parts if part != "__init__")]
            module = ".".join(names)
            found.append(Source(str(relative), module, room_of(module)))
    return found


def is_script(relative: Path) -> bool:
    return any(str(relative).startswith(f"{folder}/") for folder in SCRIPTS)


def imports_of(text: str) -> Iterator[Import]:
    """Yield every import; those under TYPE_CHECKING run never and are left out."""
    yield from _walk(ast.parse(text), at_top=True)


def _walk(node: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield from _walk(ast.Module([other], []), at_top=at_top)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_top)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            for alias in child.names:
                # "from boardfit import x" may name a module or a lazy name: both count as boardfit.x.
                full = f"{module}.{alias.name}" if module == "boardfit" else module
                yield Import(full, child.lineno, at_top)
        elif isinstance(child, ast.Call) and is_import_call(child):
            name = child.args[0] if child.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Import(name.value, child.lineno, at_top)
            yield from _walk(child, at_top=at_top)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _walk(child, at_top=at_top and not inside)


def is_import_call(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    return name in ("__import__", "import_module", "importlib.import_module")


def faults(source: Source, text: str) -> list[str]:
    room = ROOMS[source.room]
    return [
        f"{source.path}:{item.line} imports {item.module}: {reason}"
        for item in imports_of(text)
        if (reason := _reason_against(item, source, room))
    ]


def _reason_against(item: Import, source: Source, room: Room) -> str:
    top = item.module.partition(".")[0]
    if item.module.startswith("."):
        return "imports are absolute"
    if top in FOLDERS:
        return "a folder's bare name gives a second copy of every class"
    if top == "boardfit":
        if source.room != "door" and is_under(item.module, DOOR):
            return "the door is imported by nobody"
        if not is_under(item.module, room.ours):
            return f"{source.room} may import {', '.join(room.ours)}"
        if source.room == "door" and item.at_top and not is_under(item.module, DOOR_AT_TOP):
            return "the door imports other rooms inside functions"
        return ""
    if top in STDLIB or top in room.foreign:
        return ""
    if top in room.inside:
        return "at the top of a module" if item.at_top else ""
    return f"{source.room} may import {', '.join((*room.foreign, *room.inside))}"


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_a_module_imports_only_what_its_room_may(source):
    assert faults(source, (ROOT / source.path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("boardfit.errors", "import cv2"),
        ("boardfit.errors", "from boardfit.runtime.session import load"),
        ("boardfit.bundle.reader", "def f():\n    import boardfit.runtime"),
        ("boardfit.bundle.sign", "import cryptography"),
        ("boardfit.boards.detect", "import cv2"),
        ("boardfit.boards.detect", "from boardfit.runtime import load"),
        ("boardfit.runtime.session", "import onnxruntime"),
        ("boardfit.runtime.session", "def f():\n    import onnxruntime"),
        ("boardfit.runtime.session", "from boardfit.boards import detect"),
        ("boardfit.runtime.session", "from boardfit import converters"),
        ("boardfit.runtime.session", "from .entropy import entropy_bits"),
        ("boardfit.runtime.session", "from runtime.entropy import entropy_bits"),
        ("boardfit.runtime.session", "class A:\n    import torch"),
        ("boardfit.runtime.session", "try:\n    import torch\nexcept ImportError:\n    torch = None"),
        ("boardfit.runtime.session", "from importlib import import_module\nimport_module('torch')"),
        ("boardfit.runtime.engines.litert", "import ai_edge_litert"),
        ("boardfit.runtime.camera.source", "def f():\n    import picamera2"),
        ("boardfit.runtime.camera.devices.picamera", "import picamera2"),
        ("boardfit.runtime.engines.litert", "def f():\n    import tensorflow"),
        ("boardfit.converters.build", "import tensorflow as tf"),
        ("boardfit.converters.build", "if True:\n    from keras import ops"),
        ("boardfit.converters.build", "def f():\n    from boardfit.benchmarks import measure"),
        ("boardfit.converters.build", "def f():\n    from boardfit.cli import main"),
        ("boardfit.benchmarks.report", "from boardfit.converters.recipe import Recipe"),
        ("boardfit.benchmarks.report", "import jinja2"),
        ("boardfit.cli.run", "from boardfit.runtime.session import load"),
        ("boardfit.cli.run", "import cv2"),
        ("boardfit", "from boardfit.runtime.session import load"),
    ],
    ids=lambda text: text.replace("\n", "; "),
)
def test_the_table_sees_a_forbidden_import(module, line):
    assert len(faults(Source("x.py", module, room_of(module)), line)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("boardfit.bundle.sign", "def f():\n    import cryptography"),
        (
            "boardfit.runtime.engines.litert",
            "class A:\n    def __init__(self):\n        import ai_edge_litert",
        ),
        ("boardfit.runtime.camera.devices.picamera", "def f():\n    import picamera2"),
        ("boardfit.converters.build", "def f():\n    import tensorflow as tf"),
        ("boardfit.cli.build", "def f():\n    from boardfit.converters.build import build"),
        ("boardfit.runtime.session", "if TYPE_CHECKING:\n    import torch"),
    ],
    ids=lambda text: text.replace("\n", "; "),
)
def test_the_table_lets_an_allowed_import_pass(module, line):
    assert faults(Source("x.py", module, room_of(module)), line) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_room_has_sources(folder):
    assert any(source.path.startswith(f"{folder}/") for source in sources())


def test_scripts_are_imported_by_nobody():
    for source in sources():
        for item in imports_of((ROOT / source.path).read_text(encoding="utf-8")):
            assert "evidence" not in item.module.split("."), source.path
            assert not item.module.startswith("boardfit.examples"), source.path


def test_the_package_list_is_the_folders():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    found = {
        ".".join([package, *init.parent.relative_to(ROOT / folder).parts])
        for folder, package in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
        if not is_script(init.relative_to(ROOT))
    }
    assert len(set(listed)) == len(listed)
    assert set(listed) == found


def test_every_folder_with_modules_is_a_package():
    for source in sources():
        assert (ROOT / source.path).with_name("__init__.py").is_file(), source.path


def test_the_folders_are_mapped():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["package_dir"].split("\n")
    mapping = dict(line.replace(" ", "").split("=") for line in lines if "=" in line)
    assert mapping == {package: folder for folder, package in FOLDERS.items()}


def test_the_root_module_is_nearly_empty():
    lines = (ROOT / "sdk" / "__init__.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_no_file_holds_two_things(source):
    assert len((ROOT / source.path).read_text(encoding="utf-8").splitlines()) <= 400


def run_fresh(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


def test_importing_boardfit_and_its_door_loads_nothing_heavy():
    done = run_fresh(
        "import sys, boardfit, boardfit.cli; boardfit.cli.make_parser(); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"numpy", "cv2", *HEAVY_FRAMEWORKS, *ENGINE_LIBRARIES}


def test_importing_the_runtime_loads_none_of_its_parts():
    done = run_fresh("import sys, boardfit.runtime; print(*(m for m in sys.modules if 'boardfit' in m))")
    loaded = {name for name in done.stdout.split() if name.startswith("boardfit")}
    assert loaded == {"boardfit", "boardfit._version", "boardfit.runtime"}


GUARD = """
import sys
from importlib.machinery import ModuleSpec

class Guard:
    own = ("boardfit.errors", "boardfit.specs", "boardfit.timing", "boardfit.files", "boardfit.names",
           "boardfit.bundle", "boardfit.runtime", "boardfit._version")

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        # An editable install finds its packages with a module of this name.
        if top in sys.stdlib_module_names or top in ("numpy", "cv2") or top.startswith("__editable__"):
            return None
        if name == "boardfit" or any(name == own or name.startswith(own + ".") for own in self.own):
            return None
        return ModuleSpec(name, self)  # looking for an engine's library is allowed, importing it is not

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise AssertionError(f"the runtime imported {module.__name__}")

import numpy, cv2
sys.meta_path.insert(0, Guard())
"""

WORK = """
import pathlib, pkgutil, sys, importlib
import numpy as np
import boardfit.runtime
for module in pkgutil.walk_packages(boardfit.runtime.__path__, "boardfit.runtime."):
    importlib.import_module(module.name)
from boardfit.runtime.engines.fake import write_fake_bundle
path = pathlib.Path(sys.argv[1]) / "fake.boardfit"
write_fake_bundle(path)
with boardfit.runtime.load(path) as model:
    frame = np.zeros((20, 30, 3), np.uint8)
    assert model(frame).size == 32
    assert model([frame, frame])[1].top(1)
assert all(record.passed for record in boardfit.runtime.self_test(path))
"""


def test_every_module_of_the_runtime_and_a_whole_run_import_nothing_else(tmp_path):
    done = run_fresh(GUARD + WORK, str(tmp_path))
    assert done.returncode == 0, done.stderr


LOADED = """
import sys, boardfit
from boardfit.runtime.engines.fake import write_fake_bundle
write_fake_bundle(sys.argv[1] + "/fake.boardfit")
boardfit.load(sys.argv[1] + "/fake.boardfit").close()
print(*(name for name in sys.modules if name.startswith("boardfit.")))
"""


def test_the_door_of_load_adds_little_where_nothing_is_tuned(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = run_fresh(LOADED, str(tmp_path))
    assert done.returncode == 0, done.stderr
    rest = {name for name in done.stdout.split() if not is_under(name, (*KERNEL, "boardfit.runtime"))}
    assert rest == {
        "boardfit.loading",
        "boardfit.benchmarks",
        "boardfit.benchmarks.tuning",
    }


@pytest.mark.parametrize("name", ["PIL", "boardfit.converters", "boardfit.boards"])
def test_the_guard_sees_a_stranger(name):
    done = run_fresh(f"{GUARD}\nimport {name}")
    assert done.returncode != 0
    assert f"the runtime imported {name}" in done.stderr

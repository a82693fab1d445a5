"""The runtime needs the standard library, numpy, OpenCV and boardfit's kernel, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

GUARD = """
import sys
from importlib.machinery import ModuleSpec

class Guard:
    own = ("boardfit.errors", "boardfit.specs", "boardfit.timing", "boardfit.bundle", "boardfit.runtime",
           "boardfit._version")

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
with boardfit.load(path) as model:
    frame = np.zeros((20, 30, 3), np.uint8)
    assert model(frame).size == 32
    assert model([frame, frame])[1].top(1)
assert all(record.passed for record in boardfit.runtime.self_test(path))
"""


def run_fresh(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


def test_every_module_and_a_whole_run_import_nothing_else(tmp_path):
    done = run_fresh(GUARD + WORK, str(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["PIL", "boardfit.converters", "boardfit.boards"])
def test_the_guard_sees_a_stranger(name):
    done = run_fresh(f"{GUARD}\nimport {name}")
    assert done.returncode != 0
    assert f"the runtime imported {name}" in done.stderr


def test_importing_the_package_loads_none_of_its_parts():
    done = run_fresh("import sys, boardfit.runtime; print(*(m for m in sys.modules if 'boardfit' in m))")
    loaded = {name for name in done.stdout.split() if name.startswith("boardfit")}
    assert loaded == {"boardfit", "boardfit._version", "boardfit.runtime"}


def test_lazy_names_are_those_that_are_promised():
    import boardfit.runtime as runtime

    for name in runtime.__all__:
        assert callable(getattr(runtime, name))
    with pytest.raises(AttributeError, match="has no attribute 'lunar'"):
        _ = runtime.lunar

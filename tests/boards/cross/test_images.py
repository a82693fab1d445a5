"""Our own Dockerfiles, built on bases made here: an image answers on emulated Arm as this machine does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from stand_ins import kit
from stand_ins.images import Store
from stand_ins.roots import lacking, write_cpuinfo
from stand_ins.same import differences

from boardfit.cli import main

pytestmark = pytest.mark.long

SITE = "/opt/boardfit/site"
MODEL = "/opt/boardfit/model.boardfit"


@dataclass(frozen=True)
class Kind:
    """A kind of board: its profile and image, and the processors that it is tried on."""

    board: str
    platform: str
    cpu: str
    others: tuple[str, ...]
    packages: tuple[str, ...] = ()


KINDS = {
    "arm64": Kind("generic-aarch64", "linux/arm64", "cortex-a72", ("cortex-a53", "cortex-a76", "max")),
    "armhf": Kind(
        "generic-armv7l", "linux/arm/v7", "cortex-a7", ("cortex-a15",), ("python3-numpy", "python3-opencv")
    ),
}
ENGINES = {"arm64": ("litert", "onnxruntime", "ncnn"), "armhf": ("tflite", "ncnn")}
# tflite-runtime needs a numpy that this machine has not: its answers are compared with its successor's.
HERE = {"tflite": "litert"}

# Of the range of a frame's outputs. Where the net sees the same pixels: float32 sums in another order (fp32
# artifacts are not left to ncnn's fp16 kernels); int8 is equal on LiteRT, 0.03 apart on ncnn, on ONNX Runtime
# equal beside an x86 processor with AVX2 and 0.010 apart beside one with VNNI, and tflite-runtime is compared
# with another library. Where it sees pixels that were rounded the other way (MOVED), fp32 was 4e-4 apart,
# int8 0.034.
FLOAT, EQUAL, APART = 1e-5, 1e-6, 6e-2
INT8 = {"litert": EQUAL, "onnxruntime": APART, "ncnn": APART, "tflite": APART}
MOVED = {"fp32": 5e-3, "int8": 8e-2}


@pytest.fixture(scope="module")
def store():
    if reason := lacking("programs", "images"):
        pytest.skip(reason)
    opened = Store()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def bundle():
    return kit.lite0_bundle()


@pytest.fixture(scope="module")
def image(store, bundle, tmp_path_factory):
    """A function that builds the image of an engine, as its user does, and returns its tag."""
    made: dict[tuple[str, str], str] = {}

    def build(arch: str, engine: str) -> str:
        if (arch, engine) not in made:
            kind = KINDS[arch]
            context = tmp_path_factory.mktemp("context") / f"{arch}-{engine}"
            words = ["image", str(bundle), "--board", kind.board, "--engine", engine, "-o", str(context)]
            assert main(words) == 0
            builder = store.base("amd64", ["python3-pip"])
            arguments = {"BASE": store.base(arch, kind.packages), "BUILD_BASE": builder}
            # buildah knows BUILDPLATFORM from version 1.30 on.
            arguments["BUILD_PLATFORM"] = "linux/amd64"
            tag = f"localhost/boardfit-test:{arch}-{engine}"
            made[arch, engine] = store.build(context, tag, platform=kind.platform, arguments=arguments)
        return made[arch, engine]

    return build


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    """A function that returns what a processor of a model shows as /proc/cpuinfo, in a file of that name."""
    folder = tmp_path_factory.mktemp("proc")
    return lambda model: write_cpuinfo(folder / model, model)


@pytest.fixture
def run(store, image, processor):
    """A function that runs a program in an engine's image, and returns what it prints."""

    def inside(arch: str, engine: str, *words: str, cpu: str = "", **rest) -> str:
        cpuinfo = processor(cpu or KINDS[arch].cpu)
        done = store.run(image(arch, engine), words, cpuinfo=cpuinfo, **rest)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    return inside


each_image = pytest.mark.parametrize(
    ("arch", "engine"),
    [
        pytest.param(arch, engine, id=f"{arch}-{engine}")
        for arch, engines in ENGINES.items()
        for engine in engines
    ],
)


@each_image
def test_the_image_is_for_the_board_and_its_health_check_passes(store, image, run, arch, engine):
    told = json.loads(store.buildah("inspect", "--type", "image", image(arch, engine)))
    assert told["OCIv1"]["architecture"] == KINDS[arch].platform.split("/")[1]
    assert told["OCIv1"]["config"]["User"] not in ("", "0", "root")
    said = run(arch, engine, "boardfit", "verify", MODEL)
    assert engine in said


# Cameras and engines that get lost are about time, of which an emulator says nothing.
CONTRACT = ("runtime/engines/test_contract.py",)
ARITHMETIC = (
    *(f"runtime/test_{name}.py" for name in ("choose", "entropy", "images", "inputs", "preprocess")),
    *(f"runtime/test_{name}.py" for name in ("resize", "results", "selftest", "session")),
    *("runtime/decode", "runtime/policy/test_policies.py"),
    *(f"sdk/bundle/test_{name}.py" for name in ("write_and_read", "manifest")),
)


@each_image
def test_the_runtimes_own_tests_pass_in_it(run, arch, engine):
    """Of the engines' contract in each image, of the rest in one."""
    names = [*CONTRACT, *(ARITHMETIC if engine == ENGINES[arch][0] else ())]
    packages = kit.as_here("pytest", "pytest-timeout", "hypothesis")
    mounts = {
        "/srv/pytest": kit.libraries(arch, packages, name="pytest", needed=True),
        "/srv/src/tests": kit.ROOT / "tests",
        "/srv/config": kit.ROOT,
    }
    words = ["python3", "-m", "pytest", "-c", "/srv/config/setup.cfg", "--rootdir", "/srv/src", "-vv"]
    words += ["-p", "no:cacheprovider", "-m", "not long", "-k", "not isolat"]
    words += [f"/srv/src/tests/{name}" for name in names]
    said = run(arch, engine, *words, mounts=mounts, env={"PYTHONPATH": f"{SITE}:/srv/pytest"})
    passed = [line for line in said.splitlines() if "PASSED" in line]
    assert sum(f"[{engine}-" in line for line in passed) >= 10, said[-3000:]
    assert len(passed) >= (250 if len(names) > 1 else 10), said[-3000:]


class Compared:
    """Compares an image's answers with this machine's."""

    def __init__(self, run, answered_here, script_words) -> None:
        self._run, self._here, self._words = run, answered_here, script_words

    def __call__(
        self, work: Path, arch: str, engine: str, *looks: str, precision: str = "fp32", cpu: str = ""
    ) -> None:
        options = ["--precision", precision, *(word for look in looks for word in ("--look", look))]
        self._run(
            arch,
            engine,
            *self._words(["--engine", engine, *options]),
            cpu=cpu,
            mounts={"/srv/work": work},
        )
        here = self._here(
            work / "bundle.boardfit", work / "frames", "--engine", HERE.get(engine, engine), *options
        )
        with np.load(work / "out" / "there.npz") as there:
            tolerance = INT8[engine] if precision == "int8" else FLOAT
            said = differences(
                here,
                dict(there),
                tolerance=tolerance,
                moved=MOVED[precision],
                # Another library: one of 20 photographs got another best class.
                close_calls=engine in HERE and precision == "int8",
            )
            assert said == []
        self.chosen = set(here["chosen"].tolist())


@pytest.fixture
def compare(run, answered_here, script_words) -> Compared:
    return Compared(run, answered_here, script_words)


@each_image
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_20_photographs_are_answered_as_here(
    compare, bundle, photographs, board_folder, arch, engine, precision
):
    work = board_folder(bundle, photographs)
    compare(work, arch, engine, "112:20", "160:3", "224:3", precision=precision)
    assert len(compare.chosen) > 1, "one size for all proves nothing"


each_other = pytest.mark.parametrize(
    ("arch", "engine", "cpu"),
    [
        pytest.param(arch, engine, cpu, id=f"{arch}-{engine}-{cpu}")
        for arch, engines in ENGINES.items()
        for engine in engines
        for cpu in KINDS[arch].others
    ],
)


@each_other
def test_two_photographs_on_other_processors(
    compare, bundle, photographs, board_folder, tmp_path, arch, engine, cpu
):
    two = tmp_path / "two"
    two.mkdir()
    for path in sorted(photographs.iterdir())[:2]:
        (two / path.name).write_bytes(path.read_bytes())
    compare(board_folder(bundle, two), arch, engine, "112:2", cpu=cpu)


@each_other
def test_a_tiny_net_on_other_processors(compare, three_engines, frames, board_folder, arch, engine, cpu):
    compare(board_folder(three_engines, frames), arch, engine, "16:4", "31:2", cpu=cpu)

"""boardfit doctor, with libraries that are missing, broken or deadly: stand-ins for child processes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from boardfit.boards.detect import detect
from boardfit.boards.probes import Probes
from boardfit.boards.profile import find_profile
from boardfit.boards.records import Snapshot
from boardfit.cli import checkup, main
from boardfit.cli.camera_check import camera, sensors
from boardfit.cli.checkup import ABSENT, MISSING, NOTE, OK, WRONG

GONE = "raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')"
DEADLY = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)"
LACKING = "raise ImportError('{library}: cannot open shared object file: No such file or directory')"

IN_THE_SELF_TEST = "import sys\nif 'self_test' in ''.join(sys.orig_argv):\n"
"""Of a sitecustomize, which Python imports at its start."""

NEGATED = """\
    from boardfit.runtime.engines.fake import FakeEngine
    run = FakeEngine.run
    FakeEngine.run = lambda self, feeds: [-array for array in run(self, feeds)]
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A function that puts a module of a name before the real one, in child processes."""
    folder = tmp_path / "stand_ins"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def put(name: str, code: str) -> None:
        (folder / f"{name}.py").write_text(code.format(name=name, library="libGL.so.1"), encoding="utf-8")

    return put


def doctor(capsys, *words: str) -> tuple[int, dict[str, dict]]:
    status = main(["doctor", "--json", *words])
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is (status == 0)
    return status, {one["name"]: one for one in found["findings"]}


def test_a_healthy_machine(bundle, capsys):
    assert main(["doctor", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "ready"
    assert "ok      opencv: " in out
    assert "ok      answers fake: all 3 as on the machine of the build" in out


def test_a_missing_wheel_is_named_with_its_command(stand_in, capsys):
    stand_in("ncnn", GONE)
    status, found = doctor(capsys)
    assert status == 0  # the others serve
    assert found["ncnn"]["state"] == ABSENT
    assert found["ncnn"]["command"] == "pip install 'boardfit[ncnn]'"


def test_a_missing_system_library_is_named_with_its_package(stand_in, capsys):
    stand_in("cv2", LACKING)
    status, found = doctor(capsys)
    assert status == 1
    assert found["opencv"]["state"] == MISSING
    assert "libGL.so.1" in found["opencv"]["text"]
    assert found["opencv"]["command"] == "sudo apt install libgl1"
    assert found["engines"]["state"] == NOTE


def test_a_library_that_no_table_knows_is_looked_for(stand_in, capsys):
    stand_in("ncnn", LACKING.replace("{library}", "libodd.so.7"))
    assert doctor(capsys)[1]["ncnn"]["command"] == "apt-file search libodd.so.7"


def test_a_library_for_another_processor_kills_its_own_process_only(stand_in, capsys):
    stand_in("ncnn", DEADLY)
    status, found = doctor(capsys)
    assert status == 1
    assert found["ncnn"]["state"] == WRONG
    assert "SIGILL" in found["ncnn"]["text"]


@pytest.mark.parametrize("module", ["numpy", "cv2"])
def test_what_is_missing_is_not_needed_to_tell_it(stand_in, module):
    stand_in(module, GONE)
    words = [sys.executable, "-m", "boardfit", "doctor"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "pip install" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last == ("not ready: opencv" if module == "cv2" else "not ready: numpy, opencv")
    assert ("opencv: needs numpy, which is not installed" in done.stdout) == (module == "numpy")


def test_a_python_that_the_system_keeps_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    main(["doctor"])
    assert "python3 -m venv --system-site-packages" in capsys.readouterr().out


def test_no_engine_at_all(stand_in, capsys):
    for name in ("onnxruntime", "ai_edge_litert", "tflite_runtime", "ncnn"):
        stand_in(name, GONE)
    status, found = doctor(capsys)
    assert (status, found["engines"]["state"]) == (1, MISSING)
    assert found["engines"]["command"].startswith("pip install 'boardfit[")


def test_a_bundle_that_no_usable_engine_runs(bundle, monkeypatch, capsys):
    monkeypatch.setattr("boardfit.runtime.engines.available_engines", lambda format: [])
    status, found = doctor(capsys, str(bundle))
    assert (status, found["engines"]["state"]) == (1, MISSING)
    assert found["engines"]["text"] == "none that is usable runs fake"


def test_an_engine_that_answers_wrongly(bundle, stand_in, capsys):
    stand_in("sitecustomize", IN_THE_SELF_TEST + NEGATED)
    status, found = doctor(capsys, str(bundle))
    assert (status, found["answers fake"]["state"]) == (1, WRONG)
    assert "at 32" in found["answers fake"]["text"]


def test_an_engine_that_dies_of_the_bundle(bundle, stand_in, capsys):
    stand_in("sitecustomize", IN_THE_SELF_TEST + "    import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    status, found = doctor(capsys, str(bundle))
    assert (status, found["answers fake"]["state"]) == (1, WRONG)
    assert "SIGILL" in found["answers fake"]["text"]


def test_a_damaged_bundle_is_one_finding_among_others(tmp_path, capsys):
    (tmp_path / "half.boardfit").write_bytes(b"PK\x03\x04")
    status, found = doctor(capsys, str(tmp_path / "half.boardfit"))
    assert (status, found["bundle"]["state"]) == (1, WRONG)
    assert found["opencv"]["state"] == OK


@pytest.fixture(scope="module")
def here():
    return detect()


def on(here, name: str, **changes):
    """This machine, as if it were another board."""
    profile = find_profile(name)
    return replace(here, **{"profile": profile, "model": profile.title, **changes})


def test_a_pi_of_32_bits_takes_numpy_from_debian(here, stand_in, capsys):
    stand_in("numpy", GONE)
    small = on(here, "raspberry-pi-4b", bits=32, machine="aarch64")
    assert checkup.base_libraries(small)[0].command == "sudo apt install python3-numpy"
    assert {one.name for one in checkup.engines(small)} >= {"ncnn", "tflite"}


def test_a_phone_takes_numpy_from_termux(here, stand_in):
    stand_in("numpy", GONE)
    assert checkup.base_libraries(on(here, "android-gs101"))[0].command == "pkg install python-numpy"


def test_a_jetsons_gpu_is_asked_of_onnx_runtime(here):
    found = {one.name: one for one in checkup.engines(on(here, "jetson-orin-nano"))}
    assert found["onnxruntime"].state == OK
    assert found["onnxruntime:cuda"].state == ABSENT
    assert "CUDAExecutionProvider" in found["onnxruntime:cuda"].text


def test_tflite_has_no_wheel_for_a_new_python(here, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 0))
    found = {one.name: one for one in checkup.engines(on(here, "generic-armv7l"))}
    assert found["tflite"].text == "has no wheel for Python 3.12 or newer"


def test_every_engine_of_every_profile_is_one_of_ours():
    from boardfit.boards.profile import profiles
    from boardfit.runtime.engines import find_engine

    for profile in profiles():
        for choice in profile.engines:
            find_engine(choice.name)
            assert choice.name.partition(":")[0] in checkup.EXTRAS


@pytest.mark.parametrize(
    ("board", "nodes", "state", "text"),
    [
        ("generic-x86-64", ["video0", "video1"], OK, "/video0"),
        ("generic-x86-64", [], NOTE, "no /dev/video*"),
        ("generic-x86-64", ["null"], NOTE, "no /dev/video*"),
        ("android-arm64", [], NOTE, "RTSP"),
    ],
)
def test_cameras(here, tmp_path, board, nodes, state, text):
    for node in nodes:
        (tmp_path / node).touch()
    first = camera(on(here, board), devices=tmp_path)[0]
    assert first.state == state
    assert text in first.text


def test_a_camera_without_access(here, tmp_path, monkeypatch):
    (tmp_path / "video0").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = camera(on(here, "generic-aarch64"), devices=tmp_path)[0]
    assert (found.state, found.text) == (NOTE, "no access to video0")
    assert found.command.startswith("sudo usermod -aG video")


def test_the_camera_of_a_pi(here, tmp_path, stand_in):
    pi = on(here, "raspberry-pi-5")
    assert camera(pi, devices=tmp_path)[1].command == "sudo apt install python3-picamera2"
    stand_in("picamera2", "class Picamera2:\n    global_camera_info = staticmethod(lambda: [1, 2])")
    assert camera(pi, devices=tmp_path)[1].text == "2 at the ribbon connector"
    stand_in("picamera2", "class Picamera2:\n    global_camera_info = staticmethod(lambda: [])")
    assert camera(pi, devices=tmp_path)[1].state == NOTE


@pytest.mark.parametrize(("word", "state"), [("YES (1.20)", OK), ("NO", NOTE)])
def test_the_camera_of_a_jetson(here, tmp_path, stand_in, word, state):
    stand_in("cv2", f"def getBuildInformation():\n    return 'Video I/O:\\n    GStreamer:   {word}'")
    assert camera(on(here, "jetson-orin-nano"), devices=tmp_path)[1].state == state


@pytest.mark.parametrize(
    ("board", "now", "names"),
    [
        ("raspberry-pi-5", Snapshot(0.0), ["temperature", "throttling", "power"]),
        (
            "raspberry-pi-5",
            Snapshot(0.0, temperatures_c={"a": 40.0}, throttle_bits=0, power_w={"b": 1.0}),
            ["sensors"],
        ),
        ("raspberry-pi-4b", Snapshot(0.0, temperatures_c={"a": 40.0}, throttle_bits=0), ["sensors"]),
        ("generic-x86-64", Snapshot(0.0), ["temperature"]),
    ],
)
def test_silent_sensors_are_named(here, board, now, names):
    assert [one.name for one in sensors(on(here, board), now)] == names


def test_sensors_of_this_machine(here):
    assert sensors(here, Probes(here.profile).read(0.0))
    assert Path("/proc").exists()

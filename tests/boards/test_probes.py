"""Probes on recorded trees: each reads what its board tells, and is silent where the board is."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from boardfit.boards.probes import Probes
from boardfit.boards.probes.ahead import asked_ahead
from boardfit.boards.probes.power import parse_pmic
from boardfit.boards.profile import find_profile, profiles
from boardfit.boards.records import MemoryUse, Snapshot


def probes(tree, **more) -> Probes:
    return Probes(find_profile(tree.root.name), root=tree.root, ask=tree.ask, **more)


def test_every_board_is_read_and_written_down(tree):
    snapshot = probes(tree).read(12.5)
    assert snapshot.time_s == 12.5
    assert Snapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))) == snapshot
    assert snapshot.memory.rss_bytes == 81920 * 1024
    assert snapshot.load_1min == 0.42


@pytest.mark.parametrize(
    ("name", "zones"),
    [
        ("raspberry-pi-5", {"cpu-thermal": 58.4}),
        ("jetson-nano", {"AO-therm": 41.5, "CPU-therm": 34.0, "GPU-therm": 31.0, "PLL-therm": 31.5}),
        ("jetson-orin-nano", {"cpu-thermal": 97, "gpu-thermal": 95.5, "soc0-thermal": 94, "tj-thermal": 97}),
        ("android-sm8550", {"cpu-0-0-0": 38.0, "cpu-1-0": 41.2, "battery": 31.0}),
        ("generic-aarch64", {"soc-thermal": 45.0, "soc-thermal-thermal_zone1": 46.5}),
        ("generic-armv7l", {}),
        ("android-arm64", {}),
    ],
)
def test_temperatures(plant, name, zones):
    found = probes(plant(name))
    assert found.read(0.0).temperatures_c == pytest.approx(zones)
    assert found.temperature_c() == max(zones.values(), default=None)


def test_a_pc_without_zones_has_the_sensors_of_its_processor(plant):
    tree = plant("generic-armv7l")
    for path, text in {"name": "coretemp", "temp1_input": "51000", "temp1_label": "Package id 0"}.items():
        tree.write(f"sys/class/hwmon/hwmon2/{path}", text)
    tree.write("sys/class/hwmon/hwmon3/name", "nvme")
    tree.write("sys/class/hwmon/hwmon3/temp1_input", "70000")
    assert probes(tree).read(0.0).temperatures_c == {"coretemp Package id 0": 51.0}


def test_a_zone_that_appears_later_is_not_there_and_one_that_goes_is_left_out(plant):
    tree = plant("jetson-agx-orin")
    found = probes(tree)
    (tree.root / "sys/class/thermal/thermal_zone1/temp").unlink()
    assert set(found.read(0.0).temperatures_c) == {"cpu-thermal", "tj-thermal"}


@pytest.mark.parametrize(
    ("name", "throttled", "bits"),
    [
        ("raspberry-pi-3b-plus", True, 0x80008),
        ("raspberry-pi-4b", False, 0x50000),
        ("raspberry-pi-5", False, 0),
        ("jetson-nano", False, None),
        ("jetson-orin-nano", True, None),
        ("jetson-agx-orin", False, None),
        ("android-gs101", True, None),
        ("android-sm8550", False, None),
        ("android-arm64", None, None),
        ("generic-aarch64", True, None),
        ("generic-armv7l", None, None),
        ("generic-x86-64", False, None),
    ],
)
def test_throttling(plant, name, throttled, bits):
    found = probes(plant(name))
    snapshot = found.read(0.0)
    assert (snapshot.throttled, snapshot.throttle_bits) == (throttled, bits)
    assert found.throttled() is bool(throttled)


@pytest.mark.parametrize(
    ("word", "throttled"),
    [
        ("throttled=0x1", True),
        ("throttled=0x2", True),
        ("throttled=0x4", True),
        ("throttled=0x8", True),
        ("throttled=0xf0000", False),
        ("throttled=0x0", False),
    ],
)
def test_each_bit_of_now_counts_and_none_of_the_past(plant, word, throttled):
    tree = plant("raspberry-pi-4b")
    tree.said["vcgencmd get_throttled"] = word
    assert probes(tree).read(0.0).throttled is throttled


@pytest.mark.parametrize("word", [None, "", "VCHI initialization failed", "error=1"])
def test_a_pi_whose_firmware_is_silent_has_its_cooling_devices(plant, word):
    tree = plant("raspberry-pi-4b")
    tree.said["vcgencmd get_throttled"] = word
    tree.write("sys/class/thermal/cooling_device0/cur_state", "2")
    assert probes(tree).read(0.0).throttled is True


@pytest.mark.parametrize(
    "path",
    [
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
        "sys/class/hwmon/hwmon3/oc3_event_cnt",
    ],
)
def test_a_count_that_rises_is_throttling_until_the_next_read(plant, path):
    tree = plant("generic-x86-64")
    tree.write(path, "7")
    found = probes(tree)
    assert not found.throttled()
    tree.write(path, "8")
    assert found.throttled()
    assert not found.throttled()


def test_two_who_ask_do_not_take_each_others_rise(plant):
    tree = plant("generic-x86-64")
    mine, yours = probes(tree), probes(tree)
    tree.write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "9")
    assert mine.throttled()
    assert yours.throttled()


def test_a_slow_probe_that_is_asked_ahead_lets_nobody_wait():
    answers, may_go = iter([1, 2, 3]), threading.Semaphore(1)

    def slow():
        assert may_go.acquire(timeout=20)
        return next(answers)

    latest = asked_ahead(slow)
    # The second answer is held back: the first one stands, and nobody asks a third time meanwhile.
    assert [latest(), latest()] == [1, 1]
    may_go.release()
    deadline = time.monotonic() + 20
    while latest() == 1:
        assert time.monotonic() < deadline
    assert latest() == 2
    may_go.release()  # or its thread would be waited for


@pytest.mark.parametrize(
    ("name", "hz", "max_hz", "governor"),
    [
        ("raspberry-pi-4b", {"cpu0": 1.5e9}, {"cpu0": 1.8e9}, {"cpu0": "ondemand"}),
        (
            "android-sm8550",
            {"cpu0": 1.2e9, "cpu3": 1.6e9, "cpu7": 1.9e9},
            {"cpu0": 2.016e9, "cpu3": 2.8032e9, "cpu7": 3.1872e9},
            {"cpu0": "walt", "cpu3": "walt", "cpu7": "walt"},
        ),
        ("android-arm64", {"cpu0": 2e9}, {"cpu0": 2e9}, {"cpu0": "schedutil"}),
    ],
)
def test_clocks(plant, name, hz, max_hz, governor):
    snapshot = probes(plant(name)).read(0.0)
    assert (snapshot.clocks_hz, snapshot.max_clocks_hz, snapshot.governors) == (hz, max_hz, governor)


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("jetson-nano", {"POM_5V_IN": 2.875, "POM_5V_GPU": 0.082, "POM_5V_CPU": 0.495}),
        ("jetson-xavier-nx", {"VDD_IN": 5.76288, "VDD_CPU_GPU_CV": 0.47616, "VDD_SOC": 1.26976}),
        (
            "jetson-agx-orin",
            {"VDD_GPU_SOC": 4.9, "VDD_CPU_CV": 1.96, "VIN_SYS_5V0": 4.5, "VDDQ_VDD2_1V8AO": 0.6},
        ),
        ("android-sm8550", {"battery": 3.33326}),
        ("raspberry-pi-4b", {}),
        ("generic-x86-64", {}),
    ],
)
def test_power(plant, name, watts):
    assert probes(plant(name)).read(0.0).power_w == pytest.approx(watts)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", ""])
def test_a_battery_that_is_not_emptied_tells_no_power(plant, status):
    tree = plant("android-gs101")
    tree.write("sys/class/power_supply/battery/status", status)
    assert probes(tree).read(0.0).power_w == {}


def test_the_sign_of_a_batterys_current_does_not_matter(plant):
    tree = plant("android-gs101")
    tree.write("sys/class/power_supply/battery/current_now", "812000")
    assert probes(tree).read(0.0).power_w == pytest.approx({"battery": 3.33326})


def test_power_of_a_pi_5_is_current_times_voltage_of_each_rail(plant):
    watts = probes(plant("raspberry-pi-5")).read(0.0).power_w
    assert watts["VDD_CORE"] == pytest.approx(6.22421 * 0.861733)
    assert watts["DDR_VDDQ"] == pytest.approx(0.0666672 * 0.6014646)
    assert not {"EXT5V", "BATT"} & set(watts)  # voltages without a current
    assert len(watts) == 12


@pytest.mark.parametrize(
    "text", ["", "VDD_A current(1)=xA", "VDD_A current(1)=1.2.3A\nVDD_V volt(1)=1V", "VDD_A"]
)
def test_nonsense_of_a_pi_5_is_no_power(text):
    assert parse_pmic(text) == {}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("jetson-nano", "MAXN"),
        ("jetson-xavier-nx", "MODE_15W_6CORE + jetson_clocks"),
        ("jetson-orin-nano", "MAXN_SUPER"),
        ("jetson-agx-orin", "MAXN"),
        ("raspberry-pi-5", None),
        ("generic-x86-64", None),
    ],
)
def test_power_mode(plant, name, mode):
    assert probes(plant(name)).read(0.0).power_mode == mode


def test_a_mode_that_its_file_does_not_name_is_told_by_its_number(plant):
    tree = plant("jetson-nano")
    tree.write("var/lib/nvpmodel/status", "pmode:0007")
    assert probes(tree).read(0.0).power_mode == "mode 7"


def test_the_tool_for_modes_is_asked_once_and_only_where_the_files_are_silent(plant):
    silent, telling = plant("jetson-agx-orin"), plant("jetson-nano")
    for tree in (silent, telling):
        found = probes(tree)
        for _ in range(3):
            found.read(0.0)
    assert silent.asked.count("nvpmodel -q") == 1
    assert "nvpmodel -q" not in telling.asked


def test_a_board_asks_no_tool_that_it_has_not(plant):
    for name in ("generic-x86-64", "android-sm8550", "jetson-nano"):
        tree = plant(name)
        probes(tree).read(0.0)
        assert tree.asked == [], name


def test_memory(plant):
    found = probes(plant("generic-armv7l")).read(0.0).memory
    assert found == MemoryUse(
        rss_bytes=81920 * 1024,
        pss_bytes=71680 * 1024,
        peak_bytes=98304 * 1024,
        available_bytes=295800 * 1024,
        total_bytes=493000 * 1024,
    )


def test_the_busy_share_is_of_others(plant):
    tree = plant("raspberry-pi-4b")
    own_s = iter([10.0, 10.5, 11.5])
    found = probes(tree, own_cpu_s=lambda: next(own_s))
    assert found.read(0.0).busy_share is None
    # 4 cores for 1 s: 400 ticks of 10 ms, of which 130 were busy; 50 of these were ours.
    tree.write("proc/stat", "cpu  1120 0 510 97270 1000 0 100 0 0 0\n")
    assert found.read(1.0).busy_share == pytest.approx(0.2)
    tree.write("proc/stat", "cpu  1130 0 510 97370 1290 0 100 0 50 0\n")
    assert found.read(2.0).busy_share == 0.0  # more of ours than there was: a tick's rounding


@pytest.mark.parametrize("text", ["", "cpu", "cpu a b c d", "cpu0 1 2 3 4", "intr 1"])
def test_no_busy_share_of_a_stat_that_cannot_be_read(plant, text):
    tree = plant("raspberry-pi-4b")
    tree.write("proc/stat", text)
    found = probes(tree)
    found.read(0.0)
    assert found.read(1.0).busy_share is None


def test_no_busy_share_of_no_time(plant):
    found = probes(plant("raspberry-pi-4b"))
    found.read(0.0)
    assert found.read(0.0).busy_share is None


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_a_board_that_tells_nothing_is_silent(tmp_path, profile):
    found = Probes(profile, root=tmp_path, ask=lambda words: None)
    found.read(0.0)
    assert found.read(1.0) == Snapshot(time_s=1.0)
    assert (found.temperature_c(), found.throttled()) == (None, False)


GARBAGE = ["", "nan", "inf", "-999999", "\xff\xfe", "12 34", "x" * 5000, "9" * 5000, "\xb2", "0x" + "f" * 99]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda text: repr(text[:8]))
def test_a_board_that_talks_nonsense_is_silent(tree, garbage):
    for file in [path for path in tree.root.rglob("*") if path.is_file() and path.name != "type"]:
        file.write_text(garbage, encoding="latin-1")
    found = Probes(find_profile(tree.root.name), root=tree.root, ask=lambda words: garbage)
    found.read(0.0)
    snapshot = found.read(1.0)
    assert snapshot.temperatures_c == {}
    assert snapshot.clocks_hz == snapshot.max_clocks_hz == {}
    assert snapshot.power_w == {}
    assert not snapshot.throttled
    assert snapshot.busy_share is None
    assert snapshot.memory == MemoryUse()


def test_this_machine():
    found = Probes(find_profile("generic-x86-64"))
    found.read(0.0)
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    snapshot = found.read(1.0)
    assert snapshot.memory.rss_bytes > 1e6
    assert snapshot.memory.peak_bytes >= snapshot.memory.rss_bytes
    assert 0.0 <= snapshot.busy_share <= 1.0
    assert (snapshot.load_1min is not None) == Path("/proc/loadavg").exists()

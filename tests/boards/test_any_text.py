"""Whatever a system says of itself, reading it raises nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from boardfit.boards.cpuinfo import parse_cpuinfo
from boardfit.boards.detect import detect, parse_getprop
from boardfit.boards.probes import Probes
from boardfit.boards.probes.power import parse_pmic
from boardfit.boards.profile import profiles

WORDS = [
    "CPU part\t: ",
    "CPU implementer\t: ",
    "processor\t: ",
    "flags: ",
    "MemTotal: ",
    " kB\n",
    "cpu ",
    "throttled=0x",
]
WORDS += [
    "VDD_A current(1)=",
    "VDD_V volt(2)=",
    "[ro.soc.model]: [",
    "pmode:",
    "Cpus_allowed_list:\t",
    "VmRSS:",
    "0-3",
    "\0",
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(WORDS), st.text(max_size=12), st.integers().map(str)), max_size=30
).map("".join)

FILES = (
    *(
        "proc/cpuinfo",
        "proc/meminfo",
        "proc/stat",
        "proc/loadavg",
        "proc/self/status",
        "proc/self/smaps_rollup",
    ),
    *("proc/device-tree/compatible", "proc/device-tree/model", "proc/sys/kernel/arch", "etc/os-release"),
    *("sys/class/thermal/thermal_zone0/type", "sys/class/thermal/thermal_zone0/temp"),
    *("sys/class/thermal/cooling_device0/type", "sys/class/thermal/cooling_device0/cur_state"),
    *(
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq",
        "etc/nvpmodel.conf",
        "var/lib/nvpmodel/status",
    ),
    *("sys/class/hwmon/hwmon0/name", "sys/class/hwmon/hwmon0/oc1_event_cnt"),
    *(
        "sys/class/power_supply/b/type",
        "sys/class/power_supply/b/status",
        "sys/class/power_supply/b/current_now",
    ),
)


@given(TEXTS)
def test_texts_of_tools(text):
    parse_cpuinfo(text)
    parse_getprop(text)
    assert all(0.0 <= watts < 1e4 for watts in parse_pmic(text).values())


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=len(FILES), max_size=len(FILES)), TEXTS, st.sampled_from(profiles()))
def test_files(texts, said, profile):
    with tempfile.TemporaryDirectory() as folder:
        for path, text in zip(FILES, texts, strict=True):
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode("utf-8", "surrogatepass"))
        board = detect(Path(folder), ask=lambda words: said, machine="aarch64")
        assert board.cores >= 1
        probes = Probes(profile, root=Path(folder), ask=lambda words: said)
        for time_s in (0.0, 1.0):
            snapshot = probes.read(time_s)
        assert snapshot.busy_share is None or 0.0 <= snapshot.busy_share <= 1.0
        assert all(-60.0 < c < 200.0 for c in snapshot.temperatures_c.values())

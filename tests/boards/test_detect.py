"""Every profile is recognised by its own recorded tree and by no other; emulation is seen where it can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import boardfit
from boardfit.boards.cpuinfo import parse_cpuinfo
from boardfit.boards.detect import detect, parse_getprop
from boardfit.boards.probes import Probes
from boardfit.boards.profile import profiles
from boardfit.errors import BoardError

TREES = Path(__file__).parent / "trees"


def seen(tree, **changes):
    return detect(tree.root, ask=tree.ask, machine=changes.get("machine", tree.machine))


def test_every_profile_has_a_tree_and_every_tree_a_profile():
    assert {path.stem for path in TREES.glob("*.txt")} == {profile.name for profile in profiles()}


def test_every_tree_names_its_sources():
    for path in TREES.glob("*.txt"):
        head = path.read_text(encoding="utf-8").split("\n=== ")[0]
        assert "# Sources:\n# * " in head, path.name


def test_a_board_is_recognised_by_its_own_tree_and_by_no_other(tree):
    assert seen(tree).profile.name == tree.root.name


def test_no_recorded_board_is_taken_for_an_emulated_one(tree):
    board = seen(tree)
    assert (board.emulated, board.emulation) == (False, "")


def test_the_tree_has_the_cores_and_instructions_that_the_profile_promises(tree):
    board = seen(tree)
    profile = board.profile
    assert set(profile.instructions) <= set(board.instructions)
    if profile.cores is not None:
        assert board.cores == profile.cores
        names = [cluster.cpu for cluster in profile.clusters for _ in range(cluster.cores)]
        assert all(f"{names.count(name)} x {name}" in board.cpu for name in names)


def test_the_tree_has_no_more_memory_than_the_board_is_sold_with(tree):
    board = seen(tree)
    if board.profile.memory is not None:
        sold = [size for size in board.profile.memory.bytes if size >= board.memory_bytes]
        assert sold and board.memory_bytes > 0.7 * sold[0]


@pytest.mark.parametrize(
    ("name", "model", "cpu", "cores", "os_name"),
    [
        (
            "raspberry-pi-5",
            "Raspberry Pi 5 Model B Rev 1.0",
            "4 x Cortex-A76",
            4,
            "Debian GNU/Linux 12 (bookworm)",
        ),
        (
            "android-gs101",
            "Google Pixel 6",
            "4 x Cortex-A55 + 2 x Cortex-A76 + 2 x Cortex-X1",
            8,
            "Android 14",
        ),
        (
            "jetson-xavier-nx",
            "NVIDIA Jetson Xavier NX Developer Kit",
            "6 x NVIDIA Carmel",
            6,
            "Ubuntu 20.04.6 LTS",
        ),
        (
            "generic-aarch64",
            "Radxa ROCK 5 Model B",
            "4 x Cortex-A55 + 4 x Cortex-A76",
            4,
            "Armbian 24.5 bookworm",
        ),
        (
            "generic-x86-64",
            "20L5CTO1WW",
            "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz",
            4,
            "Debian GNU/Linux 12 (bookworm)",
        ),
    ],
)
def test_what_a_board_says_of_itself(plant, name, model, cpu, cores, os_name):
    board = seen(plant(name))
    assert (board.model, board.cpu, board.cores, board.os_name) == (model, cpu, cores, os_name)


def test_a_board_is_json(tree):
    found = json.loads(json.dumps(seen(tree).to_dict()))
    assert (found["board"], found["emulated"]) == (tree.root.name, False)


def test_a_pi_with_a_system_of_32_bits_is_the_same_pi(plant):
    assert seen(plant("raspberry-pi-4b"), machine="armv7l").profile.name == "raspberry-pi-4b"


def test_a_pi_without_a_device_tree_is_known_by_the_model_line(plant):
    tree = plant("raspberry-pi-4b")
    (tree.root / "proc/device-tree/compatible").unlink()
    (tree.root / "proc/device-tree/model").unlink()
    assert seen(tree).profile.name == "raspberry-pi-4b"


def test_a_board_of_another_revision_is_known_by_its_model(plant):
    tree = plant("jetson-orin-nano")
    tree.write("proc/device-tree/compatible", "nvidia,p9999\\0nvidia,tegra234\\0")
    assert seen(tree).profile.name == "jetson-orin-nano"


def test_a_raspberry_pi_500_is_no_5(plant):
    tree = plant("raspberry-pi-5")
    tree.write("proc/device-tree/compatible", "raspberrypi,500\\0brcm,bcm2712\\0")
    tree.write("proc/device-tree/model", "Raspberry Pi 500 Rev 1.0\\0")
    tree.write("proc/cpuinfo", (tree.root / "proc/cpuinfo").read_text().replace("5 Model B", "500"))
    assert seen(tree).profile.name == "generic-aarch64"


def test_a_raspberry_pi_3b_is_no_3b_plus(plant):
    tree = plant("raspberry-pi-3b-plus")
    tree.write("proc/device-tree/compatible", "raspberrypi,3-model-b\\0brcm,bcm2837\\0")
    tree.write("proc/device-tree/model", "Raspberry Pi 3 Model B Rev 1.2\\0")
    tree.write(
        "proc/cpuinfo", (tree.root / "proc/cpuinfo").read_text().replace("B Plus Rev 1.3", "B Rev 1.2")
    )
    board = seen(tree)
    assert board.profile.name == "generic-aarch64"
    # Its firmware is asked all the same.
    assert Probes(board.profile, root=tree.root, ask=tree.ask).read(0.0).throttle_bits == 0x80008


def test_a_system_that_tells_nothing_is_known_by_its_machine(tmp_path):
    board = detect(tmp_path, ask=lambda words: None, machine="aarch64")
    assert board.profile.name == "generic-aarch64"
    assert (board.model, board.cpu, board.memory_bytes, board.os_name) == ("", "unknown processor", None, "")
    assert board.cores >= 1


def test_a_system_that_talks_nonsense_is_known_by_its_machine(tmp_path):
    for path in (
        "proc/cpuinfo",
        "proc/meminfo",
        "proc/self/status",
        "proc/device-tree/compatible",
        "etc/os-release",
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\xff\xfe: \0\0:::\nCPU part : zebra\nprocessor : x\n" * 50)
    board = detect(tmp_path, ask=lambda words: "[[[", machine="armv7l")
    assert board.profile.name == "generic-armv7l"


def test_a_machine_without_any_profile_is_refused(tmp_path):
    with pytest.raises(BoardError, match="no board profile fits a machine 'riscv64'"):
        detect(tmp_path, ask=lambda words: None, machine="riscv64")


@pytest.mark.parametrize(
    ("base", "machine", "path", "content", "reason"),
    [
        (
            "generic-aarch64",
            "aarch64",
            "proc/device-tree/compatible",
            "linux,dummy-virt\\0",
            r"linux,dummy-virt",
        ),
        ("raspberry-pi-4b", "aarch64", "proc/sys/kernel/arch", "x86_64", "the kernel is one for x86_64"),
        ("generic-x86-64", "aarch64", "proc/sys/kernel/arch", "", "/proc/cpuinfo tells of Intel"),
        (
            "raspberry-pi-4b",
            "aarch64",
            "proc/meminfo",
            "MemTotal: 9 kB\nDirectMap4k: 7 kB\n",
            "/proc/meminfo is that of an x86 kernel",
        ),
        (
            "raspberry-pi-5",
            "aarch64",
            "proc/cpuinfo",
            "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd08\n",
            "tells of 1 x Cortex-A72, a Raspberry Pi 5 has Cortex-A76",
        ),
        (
            "generic-x86-64",
            "x86_64",
            "proc/cpuinfo",
            "processor : 0\nvendor_id : GenuineIntel\nmodel name : QEMU TCG CPU version 2.5+\n",
            "calls itself QEMU TCG CPU",
        ),
    ],
    ids=["virt machine", "kernel", "cpuinfo", "meminfo", "another core", "tcg on x86"],
)
def test_emulation_is_seen(plant, base, machine, path, content, reason):
    tree = plant(base)
    tree.write(path, content)
    board = seen(tree, machine=machine)
    assert board.emulated
    assert reason in board.emulation


def test_a_hypervisor_is_no_emulation(plant):
    tree = plant("generic-x86-64")
    text = (tree.root / "proc/cpuinfo").read_text().replace("fma", "fma hypervisor")
    tree.write(
        "proc/cpuinfo", text.replace("Intel(R) Core(TM) i5-8250U", "Intel Xeon Processor (Skylake, IBRS)")
    )
    assert not seen(tree).emulated


def test_a_program_of_32_bits_on_a_64_bit_kernel_is_no_emulation(plant):
    assert not seen(plant("raspberry-pi-5"), machine="armv8l").emulated


def test_cores_are_those_that_the_process_may_use(plant):
    tree = plant("raspberry-pi-4b")
    tree.write("proc/self/status", "Cpus_allowed_list:\t2-3\n")
    assert seen(tree).cores == 2


def test_an_instruction_set_is_one_that_every_core_has():
    text = "processor: 0\nFeatures: fp asimd asimddp\n\nprocessor: 1\nFeatures: fp asimd\n"
    assert parse_cpuinfo(text).instructions == ("neon",)


def test_a_core_that_nobody_knows_is_named_by_its_numbers():
    text = "processor: 0\nCPU implementer: 0x99\nCPU part: 0x123\n"
    assert parse_cpuinfo(text).name == "1 x implementer 0x99 part 0x123"


def test_properties_of_android():
    assert parse_getprop("[a.b]: [c]\n[d]: []\nnonsense\n[e]: [f [g]]\n") == {
        "a.b": "c",
        "d": "",
        "e": "f [g]",
    }


def test_this_machine_is_detected():
    board = boardfit.detect_board()
    assert board.cores >= 1
    assert board.bits in (32, 64)
    assert board.kernel

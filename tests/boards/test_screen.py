"""What ``boardfit boards detect`` shows on each recorded board: one screen, with what the board tells."""

from __future__ import annotations

import pytest

from boardfit.boards.detect import detect
from boardfit.boards.probes import Probes
from boardfit.cli.board_text import board_text


def screen(tree) -> str:
    board = detect(tree.root, ask=tree.ask, machine=tree.machine)
    return board_text(board, Probes(board.profile, root=tree.root, ask=tree.ask).read(0.0))


def test_it_is_one_screen(tree):
    lines = screen(tree).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 110
    assert lines[0].endswith(f"({tree.root.name})")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("raspberry-pi-3b-plus", ["YES: the clock is held down (0x80008)", "cpu-thermal 62.3 C"]),
        ("raspberry-pi-4b", ["throttled no (0x50000)", "cpu0 1.5 of 1.8 GHz (ondemand)"]),
        ("raspberry-pi-5", ["VDD_CORE 5.36 W", "neon fp16 dotprod", "Raspberry Pi 5 Model B Rev 1.0"]),
        ("jetson-xavier-nx", ["MODE_15W_6CORE + jetson_clocks", "VDD_IN 5.76 W", "6 x NVIDIA Carmel"]),
        ("android-sm8550", ["samsung SM-S911B", "battery 3.33 W", "i8mm", "Android 14"]),
        ("android-arm64", ["this system does not tell"]),
        ("generic-x86-64", ["20L5CTO1WW", "x86_pkg_temp 56.0 C", "emulated not seen"]),
    ],
)
def test_it_shows_what_the_board_tells(plant, name, shown):
    text = " ".join(screen(plant(name)).split())  # long lines are folded
    for words in shown:
        assert words in text


def test_an_emulated_board_is_said_to_be(plant):
    tree = plant("raspberry-pi-4b")
    tree.write("proc/sys/kernel/arch", "x86_64")
    assert "emulated       yes: the kernel is one for x86_64" in screen(tree)

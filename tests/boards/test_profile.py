"""Board profiles: every one shipped is whole; what is missing or absurd is refused by file and field."""

from __future__ import annotations

from importlib.resources import files

import pytest

from boardfit.boards.profile import find_profile, parse_profile, profiles
from boardfit.errors import BoardError

GOOD = """
schema = 1
name = "moon-board"
title = "Moon Board"
instructions = ["neon"]
[sources]
paper = "https://example.org/moon"
instructions = "its /proc/cpuinfo"
[recognition]
machine = "aarch64"
compatible = ["moon,board"]
[[clusters]]
cpu = "Cortex-A53"
cores = 4
first_core = 0
max_hz = 1_000_000_000
sources = ["paper"]
[memory]
bytes = [1_073_741_824]
sources = ["paper"]
[[engines]]
name = "ncnn"
precision = "fp32"
reason = "it is there"
[threads]
count = 4
reason = "four equal cores"
sources = ["paper"]
[camera]
stack = "v4l2"
words = ["0"]
[sensors]
throttling = "cooling"
power = "none"
[build]
docker = "linux/arm64"
flags = ["-mcpu=cortex-a53"]
emulate = "cortex-a53"
"""


def test_a_whole_profile_is_read():
    profile = parse_profile(GOOD, name="moon-board.toml")
    assert (profile.cores, profile.clusters[0].max_hz, profile.threads.count) == (4, 1e9, 4)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("schema = 1", "schema = 2", "schema is 2"),
        ('title = "Moon Board"', "", "title is missing"),
        ('title = "Moon Board"', "title = 7", "title is 7: expected text"),
        ('title = "Moon Board"', 'title = " "', "title is empty"),
        ('"https://example.org/moon"', '""', "sources.paper is empty"),
        # Every machine's name begins with nothing.
        ('["moon,board"]', '["moon,board"]\nmodel = [""]', "recognition.model[0] is empty"),
        ('name = "ncnn"', 'name = ""', "engines[0].name is ''"),
        ('reason = "it is there"', 'reason = ""', "engines[0].reason is empty"),
        (
            "[build]",
            '[[systems]]\nname = "OS"\npython = ""\nplatform = "android_30_arm64_v8a"\nsources = []\n[build]',
            "systems[0].sources is empty",
        ),
        ('name = "moon-board"', 'name = "Moon Board"', "name is 'Moon Board'"),
        ('name = "moon-board"', 'name = "sun-board"', "name is 'sun-board'"),
        ('["neon"]', '["mmx"]', "instructions is 'mmx'"),
        ('["neon"]', '"neon"', "instructions is 'neon': expected a list"),
        ("cores = 4", "cores = 0", "clusters[0].cores is 0"),
        ("cores = 4", "cores = true", "clusters[0].cores is True: expected a whole number"),
        ("cores = 4", "", "clusters[0].cores is missing"),
        ("first_core = 0", "first_core = 4", "clusters.first_core"),
        ("1_000_000_000", "1000", "clusters[0].max_hz is 1000.0"),
        ("1_000_000_000", "nan", "clusters[0].max_hz is nan"),
        ("1_073_741_824", "-1", "memory.bytes is -1"),
        ("[1_073_741_824]", "[]", "memory.bytes is []"),
        ("count = 4", "count = 5", "threads asks for cores"),
        ('stack = "v4l2"', 'stack = "film"', "camera.stack is 'film'"),
        ('power = "none"', 'power = "steam"', "sensors.power is 'steam'"),
        ('power = "none"', 'power = "none"\nvolume = 3', "sensors.volume is no field"),
        ('"linux/arm64"', '"arm64"', "build.docker is 'arm64'"),
        ("[build]", "[built]", "built is no field"),
        ('machine = "aarch64"', 'machine = "z80"', "recognition.machine is 'z80'"),
        (
            '1_000_000_000\nsources = ["paper"]',
            '1_000_000_000\nsources = ["film"]',
            "clusters[0].sources names 'film'",
        ),
        ('1_000_000_000\nsources = ["paper"]', "1_000_000_000\nsources = []", "clusters[0].sources"),
        ('instructions = "its', 'other = "its', "sources.instructions is missing"),
        ("schema = 1", "schema =", "not TOML"),
    ],
    ids=lambda text: " ".join(text.split()),
)
def test_a_bad_field_is_named_with_its_file(old, new, field):
    assert old in GOOD
    with pytest.raises(BoardError) as caught:
        parse_profile(GOOD.replace(old, new, 1), name="moon-board.toml")
    assert str(caught.value).startswith(f"board profile moon-board.toml: {field}")


OPTIONAL = {"implementer", "part", "cores", "count", "packages", "ignored_zones", "nvpmodel"}
OPTIONAL |= {"soft_limit_c", "emulate_note", "compatible", "model", "sources"}
FREE_TEXT = {"title", "cpu", "reason", "emulate", "emulate_note", "name"}


def texts() -> list[tuple[str, str]]:
    folder = files("boardfit.boards") / "profiles"
    return [(entry.name, entry.read_text(encoding="utf-8")) for entry in folder.iterdir()]


def fields_of(text: str) -> list[tuple[int, str]]:
    """Return line numbers and names of the fields, those of free tables left out."""
    found, table = [], ""
    for number, line in enumerate(text.splitlines()):
        table = line.strip("[]") if line.startswith("[") else table
        name, equals, _ = line.partition(" = ")
        if equals and table not in ("sources", "recognition.properties"):
            found.append((number, name))
    return found


@pytest.mark.parametrize(("name", "text"), texts(), ids=[name for name, _ in texts()])
def test_no_field_of_a_shipped_profile_can_be_lost_in_silence(name, text):
    for number, field in fields_of(text):
        lines = text.splitlines()
        del lines[number]
        if field in OPTIONAL:
            continue
        with pytest.raises(BoardError, match=rf"^board profile {name}: .*\b{field}\b"):
            parse_profile("\n".join(lines), name=name)


@pytest.mark.parametrize("absurd", ["-1", "true", "[[1]]", '"lunar"', "1e300"])
@pytest.mark.parametrize(("name", "text"), texts(), ids=[name for name, _ in texts()])
def test_no_field_of_a_shipped_profile_can_be_absurd(name, text, absurd):
    for number, field in fields_of(text):
        lines = text.splitlines()
        lines[number] = f"{field} = {absurd}"
        if (absurd == '"lunar"' and field in FREE_TEXT) or (absurd == "true" and field == "nvpmodel"):
            continue
        with pytest.raises(BoardError, match=rf"^board profile {name}: .*\b{field}\b"):
            parse_profile("\n".join(lines), name=name)


def test_every_shipped_profile_is_found_by_its_name():
    for profile in profiles():
        assert find_profile(profile.name) is profile


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("raspberry-pi-4", "raspberry-pi-4b"),
        ("Raspberry Pi 4", "raspberry-pi-4b"),
        ("rpi-4b", "raspberry-pi-4b"),
        ("orin nano", "jetson-orin-nano"),
        ("Pixel 6", "android-gs101"),
        ("jetson_nano", "jetson-nano"),
        ("x86_64", "generic-x86-64"),
    ],
)
def test_an_unknown_board_is_told_the_nearest_names(word, nearest):
    with pytest.raises(BoardError, match=f"did you mean {nearest}"):
        find_profile(word)


def test_a_word_like_no_board_is_told_where_the_names_are():
    with pytest.raises(BoardError, match=r"there is no board 'qqq': boardfit boards lists them all"):
        find_profile("qqq")

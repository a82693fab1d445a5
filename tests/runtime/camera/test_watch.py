from __future__ import annotations

import math
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from boardfit.errors import CameraError, RecipeError
from boardfit.runtime import camera
from boardfit.runtime.camera.capture import Capture
from boardfit.runtime.camera.devices.pace import Pace
from boardfit.runtime.camera.records import FAULTS, LIVE, WatchSettings
from boardfit.runtime.camera.watch import Watch

NOISE = [np.random.RandomState(seed).randint(0, 256, (48, 64, 3)).astype(np.uint8) for seed in range(50)]


def watch_of(**settings) -> Watch:
    return Watch(WatchSettings(**settings), source="cam", now=0.0, dice=random.Random(0))


def live_watch(**settings) -> Watch:
    watch = watch_of(**settings)
    watch.opened(0.0)
    assert watch.saw(NOISE[0], 0.1)
    return watch


def kinds(watch: Watch) -> list[str]:
    return [event.kind for event in watch.events]


def test_faults_are_told_apart():
    watch = live_watch()
    watch.tick(1.0)
    assert watch.state == "stalled"
    assert watch.saw(NOISE[1], 1.1)
    assert not watch.saw(None, 1.2)
    assert watch.state == "garbage"
    assert watch.saw(NOISE[2], 1.3)
    assert not watch.saw(NOISE[3][:20], 1.4)
    assert watch.state == "wrong-size"
    assert watch.saw(NOISE[4], 1.5)
    for tenth in range(12):
        watch.saw(NOISE[4], 1.6 + tenth / 10)
    assert watch.state == "frozen"
    assert watch.saw(NOISE[5], 3.0)
    watch.failed(3.1, "gone")
    assert watch.state == "unplugged"
    watch.opened(3.2)
    assert watch.saw(NOISE[6], 3.3)
    faults = ["stalled", "garbage", "wrong-size", "frozen", "unplugged"]
    assert kinds(watch) == [LIVE, *(kind for fault in faults for kind in (fault, LIVE))]
    assert watch.counters == {LIVE: 6, **dict.fromkeys(faults, 1)}


@pytest.mark.parametrize(
    "image",
    [
        None,
        "text",
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(16, np.uint8),
        np.full((48, 64, 3), 7, np.uint8),
    ],
    ids=["none", "text", "empty", "float", "two-channels", "flat-array", "one-colour"],
)
def test_garbage(image):
    watch = live_watch()
    assert not watch.saw(image, 0.2)
    assert watch.state == "garbage"


def test_a_camera_that_shows_one_colour_from_the_start_is_no_garbage():
    watch = watch_of()
    watch.opened(0.0)
    assert watch.saw(np.full((48, 64, 3), 7, np.uint8), 0.1)
    assert watch.saw(np.full((48, 64, 3), 8, np.uint8), 0.2)


def test_a_grey_camera_is_a_camera():
    watch = watch_of()
    watch.opened(0.0)
    assert watch.saw(NOISE[0][..., 0], 0.1)


def test_one_changed_pixel_is_a_change():
    watch = live_watch()
    image = NOISE[0]
    for step in range(30):
        image = image.copy()
        image[47, 63] ^= 1
        assert watch.saw(image, 0.2 + step / 10)
    assert watch.state == LIVE


def test_a_frozen_camera_stays_frozen_until_the_picture_changes():
    watch = live_watch()
    times = [0.1 + step / 10 for step in range(40)]
    handed_on = [watch.saw(NOISE[0], time) for time in times]
    assert handed_on.index(False) == 7  # from 0.7 s after the first one
    assert not any(handed_on[7:])
    assert watch.should_reopen(times[-1])
    watch.closed()
    watch.opened(5.0)
    assert not watch.saw(NOISE[0], 5.1)
    assert watch.saw(NOISE[1], 5.2)


def run_slowly(watch: Watch, gap_s: float, frames: int = 40) -> float:
    """Have a camera give frames, tick between them, and return when the last one came."""
    now = 0.0
    watch.opened(now)
    for frame in range(frames):
        for _ in range(round(gap_s * 10)):
            now += 0.1
            watch.tick(now)
        watch.saw(NOISE[frame % 50], now)
    return now


def test_a_slow_camera_is_stalled_until_its_pace_is_known_and_no_more():
    watch = watch_of()
    last = run_slowly(watch, 1.0)
    assert kinds(watch) == [LIVE, *["stalled", LIVE] * 2]
    watch.tick(last + 2.4)
    assert watch.state == LIVE
    watch.tick(last + 2.6)
    assert watch.state == "stalled"


def test_two_same_frames_of_a_slow_camera_are_no_frozen_one():
    watch = watch_of()
    last = run_slowly(watch, 1.0)
    handed_on = [watch.saw(NOISE[39], last + second) for second in (1.0, 2.0, 3.0)]
    assert handed_on == [True, True, False]


@pytest.mark.parametrize("gap_s", [0.1, 0.2, 0.3])
def test_an_outage_does_not_make_a_camera_slow(gap_s):
    watch = watch_of()
    last = run_slowly(watch, gap_s)
    for back in (last + 5.0, last + 15.0, last + 15.1):
        watch.saw(NOISE[int(back) % 50], back)
    watch.tick(last + 15.1 + 0.9)
    assert watch.state == "stalled"


def test_a_read_waits_no_longer_than_the_watch_allows(monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("boardfit.runtime.camera.devices.pace.time", clock)
    pace, watch = Pace(None), watch_of()
    watch.opened(0.0)
    for index, gap_s in enumerate([0.2] * 7 + [3.0, 0.2, 3.0] + [0.8] * 7):  # it stutters, then it is slow
        clock.now += gap_s
        pace.came()
        watch.saw(NOISE[index], clock.now)
        if index > 1:
            assert pace.wait_s() == max(1.0, watch.silence_s())
    assert pace.wait_s() == pytest.approx(2.0)


def test_a_camera_that_is_declared_slow_is_no_stalled_one():
    watch = Watch(WatchSettings().for_rate(0.2), source="cam", now=0.0)
    last = run_slowly(watch, 5.0)
    assert kinds(watch) == [LIVE]
    watch.tick(last + 12.6)
    assert watch.state == "stalled"
    assert WatchSettings().for_rate(15.0) == WatchSettings().for_rate(None) == WatchSettings()


@pytest.mark.parametrize("name", ["stall_s", "frozen_s"])
def test_what_is_not_watched_is_no_fault(name):
    watch = live_watch(**{name: None})
    if name == "frozen_s":
        assert all(watch.saw(NOISE[0], 0.1 + step) for step in range(5))
    else:
        watch.tick(100.0)
    assert watch.state == LIVE


def test_an_asked_size_is_the_only_one():
    watch = watch_of(size_wh=(640, 480))
    watch.opened(0.0)
    assert not watch.saw(NOISE[0], 0.1)
    assert watch.events[-1].detail == "a frame of 64x48 pixels where 640x480 are due"


def test_another_size_is_taken_after_opening_again():
    watch = live_watch()
    assert not watch.saw(NOISE[1][:32], 0.2)
    assert not watch.should_reopen(0.9)
    assert watch.should_reopen(1.1)
    watch.closed()
    watch.opened(1.2)
    assert watch.saw(NOISE[2][:32], 1.3)


def test_pauses_double_up_to_the_longest_and_are_shaken():
    watch = watch_of(retry_s=(0.1, 0.5))
    pauses = []
    for attempt in range(6):
        watch.failed(float(attempt), "gone")
        pauses.append(watch.pause_s())
    for pause, middle in zip(pauses, (0.1, 0.2, 0.4, 0.5, 0.5, 0.5), strict=True):
        assert 0.75 * middle <= pause <= 1.25 * middle
    assert len(set(pauses[3:])) == 3
    assert kinds(watch) == ["unplugged"]
    watch.opened(6.0)
    watch.saw(NOISE[0], 6.1)
    watch.failed(6.2, "gone")
    assert watch.pause_s() > 0.25, "a single frame is no recovery"
    watch.opened(6.3)
    watch.saw(NOISE[0], 6.4)
    watch.saw(NOISE[1], 6.5)
    watch.failed(6.6, "gone")
    assert watch.pause_s() <= 0.125


def test_a_login_that_is_refused_is_tried_ever_less():
    watch = watch_of(retry_s=(0.1, 0.5))
    for attempt in range(50):
        watch.failed(float(attempt), "gone")
    pauses = []
    for attempt in range(12):
        watch.failed(50.0 + attempt, "401", refused=True)
        pauses.append(watch.pause_s())
    assert pauses[0] <= 0.125, "one such answer may come while a server starts"
    assert all(0.75 * 30.0 <= pause <= 1.25 * 30.0 for pause in pauses[9:])
    watch.failed(70.0, "gone")
    assert watch.pause_s() <= 0.625


def test_another_reason_for_the_same_state_is_told_once_a_minute():
    watch = watch_of()
    for second in range(200):
        watch.failed(float(second), "nobody listens" if second < 3 else f"401, {second}")
    assert [event.detail for event in watch.events] == ["nobody listens", "401, 60", "401, 120", "401, 180"]
    assert watch.counters == {"unplugged": 1}
    watch.opened(200.0)
    for second in range(200, 400):
        watch.saw(NOISE[second % 50], float(second))
    assert kinds(watch)[4:] == [LIVE]


def test_reading_nothing_after_a_stall_is_still_a_stall():
    watch = live_watch()
    watch.tick(1.0)
    watch.failed(1.1, "no frame")
    assert watch.state == "stalled"
    watch.failed(1.2, "cannot be opened")
    assert watch.state == "unplugged"


@pytest.mark.parametrize(
    "settings",
    [
        {"stall_s": 0.0},
        {"frozen_s": -1.0},
        {"retry_s": (1.0, 0.5)},
        {"retry_s": (0.0, 1.0)},
        {"size_wh": (0, 4)},
        {"retry_s": (1.0, math.inf)},
        *({name: math.inf} for name in ("stall_s", "frozen_s", "first_frame_s", "patience_s", "stuck_s")),
        *({"open_s": value} for value in (math.inf, math.nan, 1e300)),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(RecipeError):
        WatchSettings(**settings)


@pytest.mark.parametrize("fps", [0.0, -1.0, 1e-7, 1e-11, 1e-300, math.inf, math.nan], ids=str)
@pytest.mark.parametrize("source", ["http://127.0.0.1:9/x", "synthetic:64x48@10"])
def test_rates_that_make_no_sense(source, fps):
    with pytest.raises(RecipeError, match=r"expected frames per second, at least 1/86400 \(one a day\)"):
        camera.open(source, fps=fps)
    with pytest.raises(RecipeError, match="one a day"):
        WatchSettings().for_rate(fps)


def test_one_frame_a_day_is_a_rate():
    with pytest.raises(CameraError, match="nobody listens on port 9"):
        camera.open("http://127.0.0.1:9/x", fps=1.0 / 86400.0)


def test_a_slip_of_our_own_is_told_once_and_tried_ever_less(caplog):
    slips = [ZeroDivisionError("oh"), ZeroDivisionError("oh"), ZeroDivisionError("oh"), ValueError("no")]

    def deliver(image, now) -> None:
        if slips:
            raise slips.pop(0)

    device = SimpleNamespace(read=lambda: NOISE[len(slips)], close=lambda: None)
    watch = watch_of(retry_s=(0.1, 0.5))
    capture = Capture(lambda: device, watch, lock=threading.Lock(), clock=lambda: 0.0, deliver=deliver)
    pauses, causes = [], []
    while slips:
        pauses.append(capture.step())  # opens
        pauses.append(capture.step())
        assert capture.error is not None
        causes.append(type(capture.error.__cause__))
    assert causes == [ZeroDivisionError] * 3 + [ValueError]
    assert pauses[1] <= 0.125 and min(pauses[5], pauses[7]) > 0.25
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError, ValueError]
    assert (capture.step(), capture.step(), capture.error) == (0.0, 0.0, None)


class World:
    """Simulated time, in which one fault after the other befalls a camera of 15 frames a second."""

    INTERVAL_S = 1.0 / 15.0
    READ_TIMEOUT_S = 3.0

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.dice = random.Random(seed)
        self.fault = ""
        self.ends_at = 0.0
        self.begins_at = 1.0
        self.count = 0
        self.opened = self.closed = 0
        self.watch = Watch(WatchSettings(), source="cam", now=0.0, dice=self.dice)
        self.delivered_at = -1.0
        self.capture = Capture(
            self.open, self.watch, lock=threading.Lock(), clock=lambda: self.now, deliver=self.deliver
        )

    def deliver(self, image, now) -> None:
        self.delivered_at = now

    def pass_time(self, seconds: float) -> None:
        """Let time go by, as the supervising thread sees it."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now = min(until, self.now + 0.1)
            if self.now >= self.ends_at:
                self.fault = ""
            self.watch.tick(self.now)

    def open(self) -> World:
        self.pass_time(self.dice.uniform(0.02, 0.7))
        if self.fault == "stalled":  # the server does not answer
            self.pass_time(min(1.0, self.ends_at - self.now))
        if self.fault in ("unplugged", "stalled"):
            raise CameraError("no such camera")
        self.opened += 1
        return self

    def read(self) -> object:
        waited = 0.0
        while self.fault == "stalled":
            self.pass_time(0.1)
            waited += 0.1
            if waited >= self.READ_TIMEOUT_S:
                raise CameraError("no frame")
        self.pass_time(self.INTERVAL_S)
        if self.fault == "unplugged":
            raise CameraError("gone")
        if self.fault == "garbage":
            return None
        if self.fault == "wrong-size":
            return NOISE[self.count % 50][:32]
        if self.fault != "frozen":
            self.count += 1
        return NOISE[self.count % 50]

    def close(self) -> None:
        self.closed += 1

    def run_fault(self, fault: str) -> tuple[float, float]:
        """Return after what time a fault was noticed, and how long after its end a frame came."""
        while self.watch.state != LIVE:
            self.step()
        self.pass_time(self.dice.uniform(0.0, self.INTERVAL_S))
        self.watch.events.clear()
        self.fault, began = fault, self.now
        self.ends_at = began + self.dice.uniform(1.2, 6.0)
        while self.fault:
            self.step()
        back = self.ends_at
        while self.delivered_at <= back:
            self.step()
        noticed = next(event.time_s for event in self.watch.events if event.kind == fault)
        return noticed - began, self.delivered_at - back

    def step(self) -> None:
        self.pass_time(self.capture.step() or 0.0)


@pytest.mark.parametrize(
    "cycles", [2_000, pytest.param(10_000, marks=pytest.mark.long)], ids=["short", "as-promised"]
)
def test_every_fault_is_noticed_within_a_second_and_mended_within_two(cycles):
    world = World(seed=cycles)
    worst = dict.fromkeys(FAULTS, (0.0, 0.0))
    for cycle in range(cycles):
        fault = FAULTS[cycle % len(FAULTS)]
        noticed_s, back_s = world.run_fault(fault)
        worst[fault] = max(worst[fault][0], noticed_s), max(worst[fault][1], back_s)
    assert all(noticed_s <= 1.0 and back_s <= 2.0 for noticed_s, back_s in worst.values()), worst
    assert world.watch.counters["frozen"] >= cycles // len(FAULTS)
    assert world.opened - world.closed <= 1

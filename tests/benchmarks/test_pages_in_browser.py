"""The pages in a real Chromium, at a phone's and a desk's width: nothing asked of the net, nothing wrong.

BOARDFIT_SCREENSHOTS=DIR keeps a picture of each, on light and dark ground, to be looked at.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from boardfit.benchmarks.bench_page import bench_html
from boardfit.benchmarks.compression_page import (
    Change,
    CompressionPage,
    Integers,
    Panel,
    Score,
    Training,
    compression_html,
)
from boardfit.benchmarks.index_page import Entry, index_html
from boardfit.benchmarks.published import read_published

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESK = (390, 844), (1280, 900)


@dataclass
class Seen:
    """What a page did: console lines and exceptions, and addresses that it asked for."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Browser:
    """A headless Chromium that is spoken to over a pipe (DevTools protocol): no port, no library."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--hide-scrollbars", "--no-first-run", f"--user-data-dir={profile}"]
        flags += ["--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash", CHROMIUM, *flags],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._rest = b""
        self._count = 0
        self._session: str | None = None
        self.seen = Seen()
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict:
        """Send a command and return its result; what the page tells meanwhile is kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (reply := self._receive()).get("id") != self._count:
            self._note(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def _receive(self) -> dict:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        params = event.get("params", {})
        if event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.seen.complaints.append(json.dumps(params))
        if event["method"] == "Network.requestWillBeSent":
            self.seen.requests.append(params["request"]["url"])

    def open(self, page: Path, size: tuple[int, int], *, dark: bool = False) -> Seen:
        """Load a page at a width and height; return what it did."""
        width, height = size
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone},
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.seen = Seen()
        self.call("Page.navigate", url=page.as_uri())
        while not self.run(f"document.readyState == 'complete' && location.href == {page.as_uri()!r}"):
            pass
        return self.seen

    def run(self, script: str) -> object:
        """Return the value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write the whole page as a PNG file."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        """End Chromium."""
        os.close(self._write)  # it ends when the pipe does
        self._process.wait(timeout=30)
        os.close(self._read)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt install chromium")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def compression() -> CompressionPage:
    epochs = tuple(range(1, 31))
    falling = tuple(2.0 / epoch for epoch in epochs)
    training = Training(
        name="training-1-elastic",
        title="Training of elastic: 30 epochs, 360 s",
        epochs=epochs,
        phases=("largest",) * 10 + ("together",) * 20,
        panels=(
            Panel("loss", falling, "blue"),
            Panel("answers as the teacher, %", tuple(100.0 - v for v in falling), "green", from_zero=False),
            Panel("thousand images/s", tuple(12.0 - v for v in falling), "purple"),
        ),
    )
    engines = ("litert", "onnxruntime", "ncnn")
    return CompressionPage(
        title="Compression of efficientnet-lite0",
        headline="prune, distill and elastic: at 224 pixels 0.69 of the parameters are left",
        facts=(("Bundle", "lite0.boardfit"), ("Stages", "prune, distill, elastic")),
        changes=(
            Change("parameters", "4,651,880", "3,200,123", 0.69),
            Change("tflite fp32, all files", "18.6 MB", "38.4 MB", 2.06),
        ),
        times=tuple(
            Change(f"{name} at 224, fp32, 1 thread", "14.40 ms", "10.37 ms", 0.72) for name in engines
        ),
        timed_on="Testbench 3000 (x86_64, 2 cores)",
        right=(Score(224, 500, 90.0, 89.4, lost=12, gained=9),),
        agreement=(Score(224, 128, 100.0, 96.1),),
        integers=(Integers("tflite-int8-224", "drop", "+1.4 points", "+0.2 points", "0.2", "0.05", True),),
        trainings=(training,),
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory, report_of, measurement_of, rich_report_of) -> dict[str, Path]:
    rich = rich_report_of()
    nano = rich_report_of(seed=1, scale=2.1, board="jetson-orin-nano", board_title="Jetson Orin Nano")
    emulated = rich_report_of(seed=2, emulated=True, board_title="Raspberry Pi 3B+")
    bad = report_of(measurement_of(faults=("the machine was busy: 41 % of it",)), board_title="bad board")
    every = [rich, nano, emulated, bad]
    entries = [Entry(f"{i} run", f"{i}/report.html", each) for i, each in enumerate(every)]
    published = read_published()
    texts = {
        "one": bench_html([rich], published),
        "several": bench_html(every, published),
        "emulated": bench_html([emulated], published),
        "bad": bench_html([bad], published),
        "compression": compression_html(compression()),
        "index": index_html(entries, ["x/report.json is cut short"], title="Benchmarks"),
    }
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, text in texts.items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(text, encoding="utf-8")
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", ["one", "several", "emulated", "bad", "compression", "index"])
def test_a_page_asks_for_nothing_complains_of_nothing_and_fits(browser, pages, name, size, dark):
    seen = browser.open(pages[name], size, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert seen.complaints == []
    assert seen.requests == [pages[name].as_uri()]
    assert browser.run("document.documentElement.scrollWidth") == size[0]
    letters = browser.run("getComputedStyle(document.querySelector('h1')).color")
    assert (letters == "rgb(0, 0, 0)") != dark
    if folder := os.environ.get("BOARDFIT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.screenshot(Path(folder) / f"{name}-{size[0]}-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize(("size", "shown"), [(PHONE, "narrow"), (DESK, "wide")], ids=["phone", "desk"])
def test_of_each_figure_the_drawing_for_the_width_is_shown(browser, pages, size, shown):
    browser.open(pages["one"], size)
    visible = "[...document.querySelectorAll('svg')].filter(each => each.getBoundingClientRect().width > 0)"
    assert browser.run(f"{visible}.length") > 3
    assert browser.run(f"{visible}.every(each => each.classList.contains('{shown}'))") is True


@pytest.mark.parametrize("name", ["several", "compression"])
def test_no_word_of_a_figure_is_cut_off(browser, pages, name):
    for size in (PHONE, DESK):
        browser.open(pages[name], size)
        browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        outside = browser.run(
            "[...document.querySelectorAll('svg text')].filter(each => { const own = "
            "each.getBoundingClientRect(), all = each.closest('svg').getBoundingClientRect(); "
            "return own.width && (own.left < all.left - 1 || own.right > all.right + 1); })"
            ".map(each => each.textContent).join('; ')"
        )
        assert outside == ""


def test_a_click_sorts_the_index_and_another_turns_it_round(browser, pages):
    browser.open(pages["index"], DESK)
    column = "[...document.querySelectorAll('tbody tr')].map(row => row.children[2].textContent).join()"
    assert browser.run(column) == "3.57,7.51,-,-"
    click = "[...document.querySelectorAll('th button')].find(each => each.textContent == 'p50 ms').click()"
    browser.run(click)
    assert browser.run(column) == "3.57,7.51,-,-"
    browser.run(click)
    assert browser.run(column) == "7.51,3.57,-,-"


def test_links_of_the_index_lead_to_the_reports(browser, pages):
    browser.open(pages["index"], DESK)
    assert (
        browser.run("document.querySelector('td a').href")
        == (pages["index"].parent / "0/report.html").as_uri()
    )

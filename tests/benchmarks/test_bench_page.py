from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from boardfit.benchmarks.bench_figures import pareto_front
from boardfit.benchmarks.bench_markdown import bench_markdown
from boardfit.benchmarks.bench_page import EMULATED, bench_html, overview_figures
from boardfit.benchmarks.index_page import Entry, index_html
from boardfit.benchmarks.published import Published, beside, read_published
from boardfit.benchmarks.records import Accuracy
from boardfit.benchmarks.summary import best, fault_kinds, fault_lines, summary
from boardfit.boards.profile import profiles
from boardfit.boards.records import Snapshot
from boardfit.errors import ReportError

VOID = {"meta", "br"}


class Text(HTMLParser):
    """Checks that every element is closed in its turn, and keeps the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def text_of(html: str) -> str:
    parser = Text()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return "\n".join(parser.words)


def with_case(measurement, **changes):
    return replace(measurement, case=replace(measurement.case, **changes))


def test_everything_stands_on_the_page(rich_report_of):
    report = rich_report_of()
    text = text_of(bench_html([report]))
    for part in (
        *("efficientnet-lite0 on Raspberry Pi 5", "Best: litert int8 112/160/224 two-look, 4 threads"),
        *("p50", "p90", "p99", "memory, peak; average 90 MiB", "118 MiB", "time to first inference"),
        *("89.0 %", "top-1 on 500 images, 1.0 points below fp32"),
        *("Latency", "Accuracy for time", "Stages, ms", "preprocess", "Sizes that answered"),
        *("hottest zone, °C", "clock, GHz", "Runs", "Cortex-A76", "glibc 2.36", "performance", "3f" * 32),
        *("boardfit bench lite0.boardfit --out pi5", "0x0, 0xe0008", "2026-11-25T12:00:00Z"),
    ):
        assert part in text, part


def test_an_invalid_runs_numbers_have_their_reason_beside_them(report_of, measurement_of):
    report = report_of(measurement_of(run_faults=("throttled: 0xe0008",), faults=("runs disagree",)))
    html = bench_html([report])
    for row in re.findall(r"<tr.*?</tr>", html, flags=re.DOTALL):
        if "throttled" in row:
            assert "no: throttled" in row
    assert html.count("no: throttled") == 2  # in both tables
    assert html.count("throttled: 0xe0008") == 2  # on top, and at the run
    for title in re.findall(r"<h4>(.*?)</h4>", html):
        if "frames of" in title or "Heat" in title:
            assert "not valid: throttled; runs disagree" in title
    assert overview_figures([report]) == ()
    assert "to be called the best" in html


def times_on(page: str) -> list[str]:
    """What looks like a time, a clock, a temperature or memory."""
    return re.findall(r"\d ms|ms\b|GHz|°C|MiB|frames/s", page)


def test_the_times_of_an_emulated_processor_are_nowhere(rich_report_of):
    report = rich_report_of(emulated=True)
    for page in (text_of(bench_html([report], read_published())), bench_markdown([report], read_published())):
        assert times_on(page) == []
        assert EMULATED in page
        assert "89.4" in page
    entry = Entry("a", "a/report.html", report)
    row = re.search(r"<tbody>.*</tbody>", index_html([entry], title="x"), flags=re.DOTALL)
    assert times_on(text_of(row[0])) == []
    assert best(report) is None and overview_figures([report]) == ()


def test_an_emulated_board_among_real_ones_shows_no_time(rich_report_of):
    real, emulated = rich_report_of(), rich_report_of(emulated=True, board_title="Pi 3B+")
    html = bench_html([real, emulated])
    section = html.partition("<h2>Pi 3B+</h2>")[2].partition("</section>")[0]
    assert EMULATED in section and times_on(text_of(section)) == []
    assert all("Pi 3B+" not in each.words for each in overview_figures([real, emulated]))


def test_several_boards_have_a_colour_each_and_their_names(rich_report_of):
    reports = [rich_report_of(), rich_report_of(seed=1, scale=2.0, board_title="Jetson Orin Nano")]
    text = text_of(bench_html(reports))
    assert "efficientnet-lite0 on 2 boards" in text
    assert "Jetson Orin Nano: litert int8 224, 4 threads" in text
    assert "not the same bundle" not in text
    other = replace(reports[1], bundle_id="00" * 32)
    assert "not the same bundle" in text_of(bench_html([reports[0], other]))


def test_one_board_twice_is_told_apart_by_the_time(report_of, measurement_of):
    later = report_of(measurement_of(seed=2), started_utc="2026-11-26T08:00:00Z")
    text = text_of(bench_html([report_of(), later]))
    assert "efficientnet-lite0 on Raspberry Pi 5\n" in text
    for when in ("2026-11-25T12:00:00Z", "2026-11-26T08:00:00Z"):
        assert f"Raspberry Pi 5, {when}: litert int8 224, 4 threads" in text


@pytest.mark.parametrize("place", ["title", "name", "note", "fault", "package", "engine"])
def test_no_text_becomes_markup(report_of, measurement_of, place):
    evil = "<script>x</script>|`*_"
    measurement = measurement_of()
    if place == "fault":
        measurement = replace(measurement, faults=(evil,))
    if place == "engine":
        measurement = with_case(measurement, engine=evil)
    report = report_of(measurement)
    environment = report.environment
    if place == "title":
        environment = replace(environment, board_title=evil)
    if place == "package":
        environment = replace(environment, packages={evil: evil})
    report = replace(report, environment=environment)
    if place == "name":
        report = replace(report, bundle_name=evil)
    if place == "note":
        report = replace(report, notes=(evil,))
    assert "<script" not in bench_html([report])
    assert evil in text_of(bench_html([report]))
    assert "<script" not in bench_html([report, report_of()])
    assert "<script" not in bench_markdown([report])
    assert "<script" not in index_html([Entry(evil, "x", report)], [evil], title=evil).replace(
        "<script>\n", ""
    )


def test_a_board_that_tells_nothing_has_a_page_too(report_of, measurement_of):
    silent = Snapshot(time_s=0.0)
    measurement = measurement_of()
    runs = tuple(replace(run, before=silent, after=silent, trace=(), stages_s={}) for run in measurement.runs)
    text = text_of(bench_html([report_of(replace(measurement, runs=runs), memory_bytes=None, governor=None)]))
    assert "tells neither temperature nor clock" in text
    assert "not told by this system" in text


def test_one_frame_makes_a_page(report_of, measurement_of):
    measurement = measurement_of(runs=1)
    run = replace(
        measurement.runs[0],
        latencies_s=(0.01,),
        stages_s={"inference": (0.01,)},
        answered_sizes=(224,),
        duration_s=0.01,
    )
    assert "10.0 ms" in text_of(bench_html([report_of(replace(measurement, runs=(run,)))]))


def test_the_best_is_the_fastest_that_is_valid_and_accurate_enough(report_of, measurement_of):
    def of(ms, drop, **more):
        accuracy = None if drop is None else Accuracy(500, 0.9 - drop / 100.0, 0.9)
        return measurement_of(p50_s=ms / 1e3, accuracy=accuracy, **more)

    good, lossy, slow = of(8.0, 1.0), of(4.0, 1.2), of(9.0, 0.0)
    throttled = of(5.0, 0.0, run_faults=("throttled",))
    unjudged = of(3.0, None)
    assert best(report_of(slow, lossy, throttled, unjudged, good)) is good
    assert best(report_of(lossy, throttled)) is None
    assert best(report_of(throttled, unjudged)) is unjudged


def test_the_summary_pools_frames_and_takes_the_median_of_loads(measurement_of):
    measurement = measurement_of(runs=3)
    runs = [
        replace(run, latencies_s=values, load_s=load, first_s=0.1)
        for run, values, load in zip(
            measurement.runs, [(1.0,), (2.0, 2.0), (9.0, 9.0)], (1.0, 5.0, 2.0), strict=True
        )
    ]
    found = summary(replace(measurement, runs=tuple(runs)))
    assert (found.p50_s, found.load_s, found.to_first_s) == (2.0, 2.0, pytest.approx(2.1))
    assert found.peak_bytes == 118 << 20


def test_faults_are_told_by_kind(measurement_of):
    measurement = measurement_of(runs=4, faults=("repeats: 3 %: expected 2",))
    runs = [replace(run, faults=(f"busy: {i} %: stop them",)) for i, run in enumerate(measurement.runs[:3])]
    measurement = replace(measurement, runs=(*runs, measurement.runs[3]))
    assert fault_kinds(measurement) == "busy in 3 of 4 runs; repeats"
    assert fault_lines(measurement) == (
        "busy: 0 %: stop them (and in 2 more of 4 runs)",
        "repeats: 3 %: expected 2",
    )
    assert fault_kinds(measurement_of()) == "" and fault_lines(measurement_of()) == ()


def test_the_front_holds_what_no_other_beats_in_both():
    points = [(1.0, 0.5), (2.0, 0.9), (2.0, 0.8), (3.0, 0.9), (4.0, 0.95)]
    assert pareto_front(points) == [(1.0, 0.5), (2.0, 0.9), (4.0, 0.95)]


# What others published.


def test_every_published_number_has_source_date_and_conditions():
    known = read_published()
    assert len(known) > 30
    assert all(each.url.startswith("https://") and each.conditions for each in known)
    pi5 = [each for each in known if each.board == "raspberry-pi-5" and each.model == "efficientnet_b0"]
    assert {each.threads: each.value_ms for each in pi5} == {1: 24.2, 4: 12.33}


def test_every_published_number_is_of_a_board_that_is_known():
    assert {each.board for each in read_published()} <= {profile.name for profile in profiles()}


OTHERS = Published(
    board="raspberry-pi-5",
    model="EfficientNet_Lite0",
    engine="litert",
    precision="int8",
    size=224,
    threads=4,
    value_ms=6.5,
    source="somebody",
    url="https://example.org/table",
    published=read_published()[0].published,
    conditions="network alone",
)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"threads": 2},
        {"engine": "ncnn"},
        {"precision": "fp32"},
        {"sizes": (112,)},
        {"sizes": (112, 224), "policy": "two-look"},
        {"scenario": "offline", "batch": 8},
    ],
    ids=str,
)
def test_a_published_number_stands_only_beside_its_like(report_of, measurement_of, change):
    case = replace(measurement_of().case, **change)
    assert bool(beside(case, report_of(), [OTHERS])) == (change == {})


def test_a_published_number_is_told_as_such(report_of):
    html = bench_html([report_of()], [OTHERS])
    assert "Published by others for this board" in html
    assert "Not measured by boardfit" in html
    (latency,) = overview_figures([report_of()], [OTHERS])
    assert any(getattr(shape, "words", "") == "published by somebody: 6.5" for shape in latency.wide.shapes)
    assert "not measured by us: 6.5 ms" in bench_markdown([report_of()], [OTHERS])
    elsewhere = report_of(board="jetson-nano")
    assert "Published" not in bench_html([elsewhere], [OTHERS])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "source"),
        ("[[source]]\nboard = 'x'\n[[source.number]]\nvalue_ms = 1.0\n", "expected"),
        ("not toml", "published numbers"),
    ],
    ids=["nothing", "half", "no toml"],
)
def test_a_damaged_file_of_published_numbers_is_refused(tmp_path, text, told):
    path = tmp_path / "published.toml"
    path.write_text(text)
    with pytest.raises(ReportError, match=told):
        read_published(path)


# Markdown and the index.


def test_markdown_is_a_table_with_reasons(report_of, measurement_of):
    text = bench_markdown(
        [report_of(measurement_of(faults=("drift | 7 %",)))], pictures=[("Latency", "a.png")]
    )
    assert r"no: drift \| 7 %" in text
    assert "![Latency](a.png)" in text
    widths = {line.count(" | ") for line in text.replace(r"\|", "").splitlines() if line.startswith("| ")}
    assert len(widths) == 1


def test_the_index_tells_why_a_report_shows_no_number(report_of, measurement_of):
    bad = report_of(measurement_of(faults=("busy",)))
    text = text_of(index_html([Entry("a", "a", bad), Entry("b", "b", report_of())], ["c is cut"], title="x"))
    assert "none is valid: busy" in text
    assert "8.00" in text and "c is cut" in text and "2 reports" in text

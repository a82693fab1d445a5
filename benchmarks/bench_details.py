"""One configuration on the page: its distribution, stages, sizes, heat and clock, and every run."""

from __future__ import annotations

from html import escape
from statistics import fmean

from boardfit.benchmarks.bench_figures import distribution, heat_and_clock
from boardfit.benchmarks.figure import Figure, svg
from boardfit.benchmarks.page import COLOURS, size_mix, table
from boardfit.benchmarks.records import STAGES, Measurement, Run
from boardfit.benchmarks.summary import bytes_text, fault_kinds, frames_by_size, ms_text, name_of
from boardfit.timing import percentile

DETAILS_STYLE = """
details { border: 1px solid var(--line); border-radius: .5rem; margin: .7rem 0; padding: .2rem .9rem; }
details[open] { padding-bottom: .9rem; }
summary { cursor: pointer; padding: .45rem 0; font-weight: 600; overflow-wrap: anywhere; }
.bad { color: #c1121f; font-weight: 400; } ul.bad { margin: .3rem 0; padding-left: 1.2rem; }
@media (prefers-color-scheme: dark) { .bad { color: #ff6b6b; } }
details h4 { font-size: .95rem; margin: 1.1rem 0 .3rem; }
.overview td, .overview th { padding: .3rem .5rem; } .overview th { white-space: normal; }
.overview td.left { white-space: normal; min-width: 4.5rem; }
.overview td:first-child.left { min-width: 8.5rem; } .overview td:nth-child(2).left { min-width: 7rem; }
.runs td:first-child.left { min-width: 0; }
.mix.stages span { overflow: hidden; min-width: 0; font-size: .85rem; white-space: nowrap; }
"""


def details(each: Measurement, *, opened: bool) -> str:
    """Return the part of the page that belongs to one configuration of a real board.

    Args:
        each: The measurement; its faults stand in its title.
        opened: Whether it is unfolded from the start.
    """
    told = "" if each.valid else f' <span class="bad">not valid: {escape(fault_kinds(each))}</span>'
    title = f"<summary>{escape(name_of(each.case))}{told}</summary>"
    heat = heat_of(each)
    parts = (
        _facts(each),
        _faults(each),
        _titled(distribution_of(each)),
        _stages(each),
        _sizes(each),
        _titled(heat) if heat else '<p class="note">This board tells neither temperature nor clock.</p>',
        _runs(each),
    )
    inside = "\n".join(filter(None, parts))
    return f"<details{' open' if opened else ''}>{title}\n{inside}\n</details>"


def _titled(shown: Figure) -> str:
    return f"<h4>{escape(shown.title)}</h4>\n{svg(shown)}"


def distribution_of(each: Measurement) -> Figure:
    """Return the histogram of a measurement's latencies; its faults are part of the title."""
    values = [value for run in each.runs for value in run.latencies_s]
    noun = "batches" if each.case.scenario == "offline" else "frames"
    title = f"{len(values)} {noun} of {len(each.runs)} runs{_told(each)}"
    return distribution(values, name="distribution", title=title, noun=noun)


def heat_of(each: Measurement) -> Figure | None:
    """Return heat and clock over a measurement's runs; None where the board tells neither."""
    return heat_and_clock(each.runs, name="heat", title=f"Heat and clock{_told(each)}")


def _told(each: Measurement) -> str:
    return "" if each.valid else f" (not valid: {fault_kinds(each)})"


def _faults(each: Measurement) -> str:
    """Return every fault in full, with its run."""
    lines = [f"run {i}: {fault}" for i, run in enumerate(each.runs, start=1) for fault in run.faults]
    items = "".join(f"<li>{escape(line)}</li>" for line in (*lines, *each.faults))
    return f'<ul class="bad">{items}</ul>' if items else ""


def _facts(each: Measurement) -> str:
    case = each.case
    width, height = case.frame_size_wh
    words = [f"{case.engine} {case.engine_version}".strip(), f"{width}x{height} frames"]
    watts: dict[str, list[float]] = {}
    for shot in (shot for run in each.runs for shot in (*run.trace, run.after)):
        for rail, value in shot.power_w.items():
            watts.setdefault(rail, []).append(value)
    words += [f"{rail} {fmean(values):.2f} W on average" for rail, values in watts.items()]
    return f'<p class="note">{escape("; ".join(words))}</p>'


def _stages(each: Measurement) -> str:
    names = {name for run in each.runs for name in run.stages_s}
    ordered = [name for name in (*STAGES, *sorted(names - set(STAGES))) if name in names]
    pooled = {name: [s for run in each.runs for s in run.stages_s.get(name, ())] for name in ordered}
    pooled = {name: values for name, values in pooled.items() if values and max(values) > 0.0}
    if not pooled:
        return ""
    rows = [[name, *(ms_text(percentile(v, p)) for p in (50.0, 90.0, 99.0))] for name, v in pooled.items()]
    means = {name: sum(values) / len(values) for name, values in pooled.items()}
    total = sum(means.values())
    bars = "".join(_stage(i, name, value / total) for i, (name, value) in enumerate(means.items()))
    return (
        f'<h4>Stages, ms</h4>\n<div class="mix stages">{bars}</div>\n'
        f"{table(('stage', 'p50', 'p90', 'p99'), rows)}"
    )


def _stage(index: int, name: str, share: float) -> str:
    colour, words = COLOURS[index % len(COLOURS)], escape(name)
    shown = words if share > 0.2 else ""
    looks = f"flex:{share:.4f};background:{colour}"
    return f'<span style="{looks}" title="{words} {100.0 * share:.0f} %">{shown}</span>'


def _sizes(each: Measurement) -> str:
    counts = frames_by_size(each.runs)
    if not counts:
        return ""
    bar, words = size_mix(counts)
    if len(counts) == 1:
        return f"<h4>Sizes that answered</h4>\n<p>{escape(words)}</p>"
    told = f"<p>{escape(words)}; {_by_size(each)}</p>"
    return f"<h4>Sizes that answered</h4>\n{bar}\n{told}"


def _by_size(each: Measurement) -> str:
    """Return the median latency of the frames that each size answered."""
    taken: dict[int, list[float]] = {}
    for run in each.runs:
        if len(run.answered_sizes) == len(run.latencies_s):
            for size, seconds in zip(run.answered_sizes, run.latencies_s, strict=True):
                taken.setdefault(size, []).append(seconds)
    return "p50 " + ", ".join(
        f"{size}: {ms_text(percentile(taken[size], 50.0))} ms" for size in sorted(taken)
    )


def _runs(each: Measurement) -> str:
    camera = each.case.scenario == "camera"
    header = ["run", "valid", "p50 ms", "p90 ms", "p99 ms", "load ms", "first ms", "frames", "frames/s"]
    header += ["dropped", "age p99 ms"] if camera else []
    header += ["°C", "throttle bits", "others' load %", "memory peak"]
    rows = [[str(i + 1), *_run_cells(run, camera=camera)] for i, run in enumerate(each.runs)]
    return f'<h4>Runs</h4>\n<div class="overview runs">{table(header, rows, left=(0, 1))}</div>'


def _run_cells(run: Run, *, camera: bool) -> list[str]:
    values = list(run.latencies_s)
    verdict = f"no: {'; '.join(fault.partition(':')[0] for fault in run.faults)}" if run.faults else "yes"
    times = [*(percentile(values, p) for p in (50.0, 90.0, 99.0)), run.load_s, run.first_s]
    cells = [verdict, *map(ms_text, times), str(run.frames), f"{run.frames_per_s or 0.0:.1f}"]
    if camera:
        cells += [str(run.dropped), ms_text(percentile(list(run.ages_s), 99.0)) if run.ages_s else "-"]
    ends = (run.before, run.after)
    heat = [shot.hottest_c for shot in ends]
    bits = [shot.throttle_bits for shot in ends]
    busy = [s.busy_share for s in (*run.trace, run.after) if s.busy_share is not None]
    return [
        *cells,
        " to ".join("-" if value is None else f"{value:.0f}" for value in heat)
        if heat != [None, None]
        else "-",
        " to ".join("-" if value is None else f"0x{value:x}" for value in bits)
        if bits != [None, None]
        else "-",
        f"{100.0 * max(busy):.0f}" if busy else "-",
        bytes_text(run.after.memory.peak_bytes),
    ]

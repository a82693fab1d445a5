"""Two reports against each other: per metric a ratio, its interval, a verdict; unlike ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from statistics import geometric_mean
from typing import Any

from boardfit.benchmarks.ratios import Interval, points_of, ratio_of
from boardfit.benchmarks.records import SCENARIOS, Case, Measurement, Report, Run
from boardfit.benchmarks.summary import fault_kinds, name_of
from boardfit.errors import ReportError
from boardfit.timing import percentile

LEAST_RUNS = 5
"""Fewer say too little of how much runs differ: no verdict."""

CONFIDENCE = 0.99
"""Of all intervals of a comparison together: equal reports are told apart in at most one of a hundred."""

NOTICEABLE = 0.01
"""A smaller change is none: where code and data come to lie moves times by as much (Mytkowicz et al.,
"Producing wrong data without doing anything obviously wrong", ASPLOS 2009)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run.

    Attributes:
        name: For people.
        unit: ``s``, ``bytes`` or ``frames/s``.
        words: What less and more are called.
        less_is_better: Whether the first of these words is the good one.
        decides: Whether a change of it is a reason to stop a build. Tails and cold starts are not: they hang
            on the state of caches that two benches do not share.
        of: Its value, positive; None where the run has none.
        scenarios: Where it is looked at.
    """

    name: str
    unit: str
    words: tuple[str, str]
    less_is_better: bool
    decides: bool
    of: Callable[[Run], float | None]
    scenarios: tuple[str, ...] = SCENARIOS


def _latency(percent: float) -> Callable[[Run], float | None]:
    return lambda run: percentile(run.latencies_s, percent)


def _age(run: Run) -> float | None:
    return percentile(run.ages_s, 99.0) if run.ages_s else None


_TIME = ("faster", "slower")
METRICS = (
    Metric("p50", "s", _TIME, True, True, _latency(50.0)),
    Metric("p90", "s", _TIME, True, True, _latency(90.0)),
    Metric("p99", "s", _TIME, True, False, _latency(99.0)),
    Metric("age p99", "s", ("younger", "older"), True, False, _age, ("camera",)),
    Metric(
        "frames/s",
        "frames/s",
        ("slower", "faster"),
        False,
        True,
        lambda run: run.frames_per_s,
        ("camera", "offline"),
    ),
    Metric("load", "s", _TIME, True, False, lambda run: run.load_s),
    Metric("first", "s", _TIME, True, False, lambda run: run.first_s),
    Metric("memory peak", "bytes", ("less", "more"), True, True, lambda run: run.after.memory.peak_bytes),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that two reports do not share."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one configuration.

    Attributes:
        case: Name of the configuration, for people.
        metric: Name of the metric.
        unit: Of both values; ``%`` for accuracy.
        before: Geometric mean over the runs of the first report; None where it may not be shown.
        after: Likewise of the second.
        change: Ratio of the second to the first with its interval; for accuracy points. None without verdict.
        outcome: ``better``, ``worse``, ``same`` or ``none``.
        verdict: For people: ``faster``, ``no difference``, ``no verdict: ...``.
        decides: Whether it is a reason to stop a build.
    """

    case: str
    metric: str
    unit: str
    before: float | None
    after: float | None
    change: Interval | None
    outcome: str
    verdict: str
    decides: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out of two reports.

    Attributes:
        lines: By configuration, then metric.
        differences: What the two do not share, and was allowed to differ.
        notes: What a reader must know.
    """

    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """``worse`` if a deciding line is, else ``none`` if one has no verdict, else ``better``, ``same``."""
        found = {line.outcome for line in self.lines if line.decides}
        return next(each for each in ("worse", "none", "better", "same") if each in found)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {"outcome": self.outcome, **asdict(self)}


def compare(
    before: Report, after: Report, *, across_boards: bool = False, noticeable: float = NOTICEABLE
) -> Comparison:
    """Compare two reports, configuration by configuration.

    A verdict needs LEAST_RUNS valid runs a side, an interval (``ratios.ratio_of``) without 1, and a ratio at
    least ``noticeable`` away from it. The intervals hold together at CONFIDENCE: each takes its share of what
    may go wrong (Dunn, JASA 56, 1961), so a long report has wider ones.

    Args:
        before: The base.
        after: What is judged.
        across_boards: Compare although machine, bundle, engine or threads differ, and tell what does. Times
            of an emulated processor are never compared.
        noticeable: Share by which a ratio must differ from 1.

    Raises:
        ReportError: The two are one report, or unlike, or have no configuration in common.
    """
    if before == after:
        raise ReportError("both are the same report: expected two measurements; run boardfit bench again")
    for report in (before, after):
        if report.environment.emulated:
            raise ReportError(
                f"{report.environment.board_title} was emulated: its times are no board's; measure on the "
                "board itself"
            )
    pairs, alone = _pairs(before, after)
    found = [*_machine_differences(before, after)]
    found += [each for one, two in pairs for each in _case_differences(one.case, two.case)]
    differences = tuple(dict.fromkeys(found))
    if differences and not across_boards:
        told = "; ".join(f"{each.name}: {each.before} against {each.after}" for each in differences)
        raise ReportError(f"unlike reports ({told}): measure both alike, or compare --across-boards")
    if not pairs:
        raise ReportError(f"no configuration is in both reports: {'; '.join(alone)}")
    drafts = [draft for one, two in pairs for draft in _drafts(one, two)]
    judged = sum(not draft.why for draft in drafts)
    confidence = 1.0 - (1.0 - CONFIDENCE) / max(1, judged)
    lines = tuple(_line(draft, confidence, noticeable) for draft in drafts)
    return Comparison(lines, differences, (*alone, *_software(before, after)))


@dataclass(frozen=True, slots=True)
class _Draft:
    """A metric of a pair before it is known how many there are: the intervals share what may go wrong.

    Attributes:
        case: Name of the configuration.
        metric: None for accuracy.
        before: One value per run; for accuracy the share of right answers.
        after: Likewise.
        images: For accuracy, how many on each side.
        why: Why there can be no verdict; empty where there can.
    """

    case: str
    metric: Metric | None
    before: tuple[float, ...]
    after: tuple[float, ...]
    images: tuple[int, int] = (0, 0)
    why: str = ""


def _drafts(one: Measurement, two: Measurement) -> list[_Draft]:
    """Return a draft per metric that both have."""
    name = name_of(one.case) if one.case == two.case else f"{name_of(one.case)} -> {name_of(two.case)}"
    sides = (("A", one), ("B", two))
    faults = [f"{side}: {fault_kinds(each)}" for side, each in sides if not each.valid]
    fewest = min(len(one.runs), len(two.runs))
    why = f"{fewest} of at least {LEAST_RUNS} runs" if fewest < LEAST_RUNS else ""
    if faults:
        why = f"{_NOT_VALID} ({'; '.join(faults)})"
    drafts = []
    for metric in METRICS[:1] if faults else METRICS:
        if one.case.scenario not in metric.scenarios:
            continue
        values = [[metric.of(run) for run in each.runs] for each in (one, two)]
        mine, other = (tuple(value for value in side if value is not None and value > 0.0) for side in values)
        if (len(mine), len(other)) == (len(one.runs), len(two.runs)):
            drafts.append(_Draft(name, metric, mine, other, why=why))
    if one.accuracy is not None and two.accuracy is not None:
        images = (one.accuracy.images, two.accuracy.images)
        drafts.append(_Draft(name, None, (one.accuracy.top1,), (two.accuracy.top1,), images))
    return drafts


_NOT_VALID = "not valid"


def _line(draft: _Draft, confidence: float, noticeable: float) -> Line:
    if draft.metric is None:
        return _accuracy_line(draft, confidence)
    metric = draft.metric
    means: tuple[float | None, float | None] = (geometric_mean(draft.before), geometric_mean(draft.after))
    if draft.why:
        if draft.why.startswith(_NOT_VALID):
            means = (None, None)
        known = (draft.case, metric.name, metric.unit, *means)
        return Line(*known, None, "none", f"no verdict: {draft.why}", metric.decides)
    change = ratio_of(draft.before, draft.after, confidence=confidence)
    known = (draft.case, metric.name, metric.unit, *means)
    if change.low <= 1.0 <= change.high or abs(change.middle - 1.0) < noticeable:
        return Line(*known, change, "same", _SAME, metric.decides)
    more = change.middle > 1.0
    outcome = "worse" if more == metric.less_is_better else "better"
    return Line(*known, change, outcome, metric.words[more], metric.decides)


_SAME = "no difference"


def _accuracy_line(draft: _Draft, confidence: float) -> Line:
    (one,), (two,) = draft.before, draft.after
    change = points_of((one, draft.images[0]), (two, draft.images[1]), confidence=confidence)
    outcome = "better" if change.low > 0.0 else "worse" if change.high < 0.0 else "same"
    verdict = _SAME if outcome == "same" else outcome
    return Line(draft.case, "top-1", "%", 100.0 * one, 100.0 * two, change, outcome, verdict, decides=True)


def _pairs(before: Report, after: Report) -> tuple[list[tuple[Measurement, Measurement]], list[str]]:
    """Return what belongs together, and a sentence for each configuration that stands alone.

    Equal configurations first; of what is left over on both sides, those that differ in the least.
    """
    left, right = list(before.measurements), list(after.measurements)
    pairs = []
    for most in range(len(fields(Case)) + 1):
        for one in tuple(left):
            alike = (each for each in right if each.case.scenario == one.case.scenario)
            two = next((each for each in alike if len(_case_differences(one.case, each.case)) == most), None)
            if two is not None:
                pairs.append((one, two))
                left.remove(one)
                right.remove(two)
    alone = [f"{name_of(each.case)}: only in the first report" for each in left]
    alone += [f"{name_of(each.case)}: only in the second report" for each in right]
    return pairs, alone


def _case_differences(one: Case, two: Case) -> list[Difference]:
    """Return the fields in which two cases differ."""
    found = []
    for name in (item.name for item in fields(Case)):
        mine, other = getattr(one, name), getattr(two, name)
        if mine != other:
            found.append(Difference(name.replace("_wh", "").replace("_", " "), _text(mine), _text(other)))
    return found


def _machine_differences(before: Report, after: Report) -> list[Difference]:
    """Return what differs of machine and bundle."""
    one, two = before.environment, after.environment
    rows: list[tuple[str, object, object]] = [
        ("board", one.board, two.board),
        ("processor", one.cpu, two.cpu),
        ("cores", one.cores, two.cores),
        ("memory", _gibibytes(one.memory_bytes), _gibibytes(two.memory_bytes)),
        ("governor", one.governor, two.governor),
        ("power mode", one.power_mode, two.power_mode),
        ("bundle", _bundle(before), _bundle(after)),
    ]
    return [Difference(name, _text(mine), _text(other)) for name, mine, other in rows if mine != other]


def _software(before: Report, after: Report) -> list[str]:
    """Return a sentence on what else differs: it may be the very thing that is to be judged."""
    one, two = before.environment, after.environment
    rows = [
        (name, getattr(one, name), getattr(two, name)) for name in ("os_name", "kernel", "libc", "python")
    ]
    names = sorted({*one.packages, *two.packages})
    rows += [(name, one.packages.get(name), two.packages.get(name)) for name in names]
    changed = [f"{name} {_text(mine)} -> {_text(other)}" for name, mine, other in rows if mine != other]
    return [f"also changed: {', '.join(changed)}"] if changed else []


def _bundle(report: Report) -> str:
    return f"{report.bundle_name} {report.bundle_id[:16]}"


def _gibibytes(size_bytes: int | None) -> str | None:
    """Return memory to a quarter of a GiB: kernels keep a little of it, each another little."""
    return None if size_bytes is None else f"{round(size_bytes / 2**28) / 4:g} GiB"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(str, value)) or "all"
    return "none" if value is None or value == "" else str(value)

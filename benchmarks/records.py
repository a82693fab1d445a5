"""What a benchmark is of, and what it found: everything that a report keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from boardfit.boards.records import Snapshot
from boardfit.errors import ReportError

REPORT_SCHEMA = 20261125
"""The day on which the form of a report last changed."""

SCENARIOS = ("single-stream", "camera", "offline")
STAGES = ("entropy", "preprocess", "inference", "postprocess")

_Record = TypeVar("_Record")

# No time, clock or size of a board is as large; nor is what is no number.
_MOST = 1e18


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured; two cases that differ in anything here are not the same thing.

    Attributes:
        scenario: ``single-stream``, ``camera`` or ``offline``.
        engine: Name of the engine.
        engine_version: Of its library; empty where it has none.
        precision: Of the artifacts.
        threads: Of the engine.
        affinity: Cores that the process may use; empty for all.
        sizes: Input sides in pixels that may answer, ascending.
        policy: How a size is chosen: ``fixed``, ``entropy`` or ``two-look``.
        frame_size_wh: Width and height in pixels of the frames.
        fps: Frames per second of the camera scenario; else None.
        batch: Frames per call of the offline scenario; else 1.
    """

    scenario: str
    engine: str
    engine_version: str
    precision: str
    threads: int
    affinity: tuple[int, ...]
    sizes: tuple[int, ...]
    policy: str
    frame_size_wh: tuple[int, int]
    fps: float | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise ReportError(f"scenario is {self.scenario!r}: expected one of {', '.join(SCENARIOS)}")
        if self.threads < 1 or self.batch < 1:
            raise ReportError(f"{self.threads} threads, batch {self.batch}: expected 1 or more of each")

    @property
    def name(self) -> str:
        """A short name for people, such as ``litert int8 224, 2 threads``."""
        sizes = "/".join(map(str, self.sizes))
        plural = "" if self.threads == 1 else "s"
        policy = "" if self.policy == "fixed" else f" {self.policy}"
        return f"{self.engine} {self.precision} {sizes}{policy}, {self.threads} thread{plural}"


@dataclass(frozen=True, slots=True)
class Run:
    """One repetition of a case, in a session of its own.

    Attributes:
        load_s: From the call of ``load`` to a session that is ready: the cold start.
        first_s: The first frame.
        warmup_s: Frames after it that count nowhere.
        latencies_s: Per frame, from frame to result, in the order of the frames. Offline: per batch.
        stages_s: The same, by stage (``STAGES``); each as long as ``latencies_s``.
        answered_sizes: Input side in pixels that answered each frame, in the same order.
        duration_s: From the first frame that counts to the end of the last.
        ages_s: Camera: from the moment that a frame was due to its result; else empty.
        dropped: Camera: frames that came while another was being answered.
        before: The probes before the first frame.
        after: The probes after the last frame.
        trace: The probes at 1 Hz in between.
        faults: Why this run is not valid; empty where it is.
    """

    load_s: float
    first_s: float
    warmup_s: tuple[float, ...]
    latencies_s: tuple[float, ...]
    stages_s: Mapping[str, tuple[float, ...]]
    answered_sizes: tuple[int, ...]
    duration_s: float
    before: Snapshot
    after: Snapshot
    trace: tuple[Snapshot, ...] = ()
    ages_s: tuple[float, ...] = ()
    dropped: int = 0
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.latencies_s:
            raise ReportError("a run without a frame that counts: expected at least one")

    @property
    def frames(self) -> int:
        """Frames that were answered."""
        return len(self.answered_sizes)

    @property
    def frames_per_s(self) -> float | None:
        """Frames a second; None where the clock did not move."""
        return self.frames / self.duration_s if self.duration_s > 0.0 else None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Run:
        """Read the record back from JSON values."""
        found = _tuples(data, "faults")
        for name in ("warmup_s", "latencies_s", "answered_sizes", "ages_s"):
            found[name] = _numbers(found[name], name)
        found["stages_s"] = {name: _numbers(values, name) for name, values in found["stages_s"].items()}
        if set(found["stages_s"]) != set(STAGES):
            raise ReportError(f"a run with the stages {list(found['stages_s'])}: expected {list(STAGES)}")
        if any(len(values) != len(found["latencies_s"]) for values in found["stages_s"].values()):
            raise ReportError("a stage has another number of samples than there are latencies")
        found["before"] = Snapshot.from_dict(found["before"])
        found["after"] = Snapshot.from_dict(found["after"])
        found["trace"] = tuple(Snapshot.from_dict(item) for item in found["trace"])
        return _record(cls, found)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers on a labelled folder.

    Attributes:
        images: How many.
        top1: Share of right answers, 0 to 1.
        top1_fp32: The same of the fp32 artifact at the largest size on the same engine; None where there is
            none.
    """

    images: int
    top1: float
    top1_fp32: float | None

    def __post_init__(self) -> None:
        shares = (self.top1, 0.0 if self.top1_fp32 is None else self.top1_fp32)
        if self.images < 1 or not all(0.0 <= share <= 1.0 for share in shares):
            raise ReportError(
                f"{self.images} images, shares of right answers {shares}: expected 0 to 1 of some"
            )

    @property
    def drop_points(self) -> float | None:
        """Percentage points that were lost against fp32; None where that is not known."""
        return None if self.top1_fp32 is None else 100.0 * (self.top1_fp32 - self.top1)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A case with its runs.

    Attributes:
        case: What was measured.
        runs: Its repetitions.
        accuracy: On a labelled folder; None where none was given.
        faults: What is wrong with the runs together, such as that they disagree; empty where nothing is.
    """

    case: Case
    runs: tuple[Run, ...]
    accuracy: Accuracy | None = None
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.runs:
            raise ReportError(f"{self.case.name}: no run, expected at least one")

    @property
    def all_faults(self) -> tuple[str, ...]:
        """Faults of the measurement and of its runs, each once."""
        return tuple(dict.fromkeys((*self.faults, *(fault for run in self.runs for fault in run.faults))))

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong with any run."""
        return not self.all_faults

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Read the record back from JSON values."""
        found = _tuples(data, "faults")
        found["case"] = _record(Case, _tuples(found["case"], "affinity", "sizes", "frame_size_wh"))
        found["runs"] = tuple(Run.from_dict(run) for run in found["runs"])
        if found["accuracy"] is not None:
            found["accuracy"] = _record(Accuracy, found["accuracy"])
        return _record(cls, found)


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine and the software that a report comes from.

    Attributes:
        board: Name of the board's profile.
        board_title: The same for people.
        emulated: Whether the processor is emulated: its times are never shown as a board's performance.
        cpu: Model of the processor.
        cores: Cores that the process may use.
        memory_bytes: Of the machine; None where it does not tell.
        os_name: Of the distribution.
        kernel: Release of the kernel.
        libc: Name and version of the C library.
        python: Version.
        packages: Versions by package name: boardfit, numpy, opencv and the engines.
        governor: Frequency governor; None where the system does not tell.
        power_mode: The board's power mode; None where it has none.
        command: Words of the command line.
        started_utc: ISO 8601.
    """

    board: str
    board_title: str
    emulated: bool
    cpu: str
    cores: int
    memory_bytes: int | None
    os_name: str
    kernel: str
    libc: str
    python: str
    packages: Mapping[str, str]
    governor: str | None
    power_mode: str | None
    command: tuple[str, ...]
    started_utc: str


@dataclass(frozen=True, slots=True)
class Report:
    """One command's work on one board: environment, bundle, measurements.

    Attributes:
        environment: Where it ran.
        bundle_name: For people.
        bundle_id: Content id of the bundle.
        measurements: One per case.
        notes: What a reader must know, such as that the times are of an emulated processor.
    """

    environment: Environment
    bundle_name: str
    bundle_id: str
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if not self.measurements:
            raise ReportError("a report without a measurement: expected at least one")

    @property
    def valid(self) -> bool:
        """Whether every measurement is."""
        return all(measurement.valid for measurement in self.measurements)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, and what follows from it beside them."""
        measurements = [
            {**_plain(item), "valid": item.valid, "name": item.case.name} for item in self.measurements
        ]
        rest = {
            item.name: _plain(getattr(self, item.name))
            for item in fields(self)
            if item.name != "measurements"
        }
        return {"schema": REPORT_SCHEMA, **rest, "measurements": measurements, "valid": self.valid}

    @classmethod
    def from_dict(cls, data: object) -> Report:
        """Read a report back from JSON values.

        Raises:
            ReportError: It is no report, or one of another schema.
        """
        if not isinstance(data, Mapping):
            raise ReportError("not a report: expected the report.json of boardfit bench")
        if data.get("schema") != REPORT_SCHEMA:
            raise ReportError(
                f"a report of schema {data.get('schema')!r}, but this boardfit reads {REPORT_SCHEMA}: "
                "measure again, or read it with the version that wrote it"
            )
        try:
            found = _tuples(data, "notes")
            found = {name: value for name, value in found.items() if name not in ("schema", "valid")}
            rows = [
                {k: v for k, v in row.items() if k not in ("valid", "name")} for row in found["measurements"]
            ]
            found["measurements"] = tuple(map(Measurement.from_dict, rows))
            found["environment"] = _record(Environment, _tuples(found["environment"], "command"))
            report = _record(cls, found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReportError(
                f"a damaged report ({error}): expected the report.json of boardfit bench"
            ) from error
        wrong = _misfit(cls, report, "")
        if wrong:
            raise ReportError(
                f"a damaged report ({wrong} is no value for it): expected the report.json of boardfit bench"
            )
        return report


def _plain(value: Any) -> Any:
    """Return a record as JSON values, without the copy of every sample that ``dataclasses.asdict`` makes."""
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return [_plain(item) for item in value]
    return value


def _tuples(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the values with the lists of these names as tuples; what is no list is refused later."""
    return {
        key: tuple(value) if key in names and isinstance(value, list) else value
        for key, value in data.items()
    }


def _numbers(values: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(values, (list, tuple)) or not {type(value) for value in values} <= {int, float}:
        raise ReportError(f"{name} holds something other than numbers")
    return tuple(values)


def _record(cls: type[_Record], found: Mapping[str, Any]) -> _Record:
    names = {item.name for item in fields(cls)}  # type: ignore[arg-type]
    if set(found) != names:
        raise ReportError(f"{cls.__name__.lower()} has the fields {sorted(found)}: expected {sorted(names)}")
    return cls(**found)


def _misfit(kind: Any, value: Any, where: str) -> str:
    """Return the path of a value within a record that is not of its field's type, and it; empty if none is.

    Args:
        kind: The annotation: a record, a plain type, or a tuple, mapping or union of these.
        value: To check.
        where: Its path.
    """
    parts: list[tuple[Any, Any, str]] = []
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, kind):
        parts = [(each, getattr(value, name), f"{where}.{name}") for name, each in _hints(kind).items()]
    elif origin is UnionType:
        return "" if any(not _misfit(each, value, where) for each in inner) else _shown(where, value)
    elif origin is tuple and isinstance(value, tuple):
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) != len(value):
            return _shown(where, value)
        if set(kinds) <= {int, float}:  # samples, by the hundred thousand
            fits = set(map(type, value)) <= ({int, float} if float in kinds else {int})
            return "" if fits and all(-_MOST < item < _MOST for item in value) else _shown(where, value)
        parts = [(*pair, f"{where}[{index}]") for index, pair in enumerate(zip(kinds, value, strict=True))]
    elif origin is Mapping and isinstance(value, Mapping):
        parts = [(inner[1], item, f"{where}.{name}") for name, item in value.items()]
    elif kind is float:
        return "" if type(value) in (int, float) and -_MOST < value < _MOST else _shown(where, value)
    elif type(value) is not kind:
        return _shown(where, value)
    return next((wrong for part in parts if (wrong := _misfit(*part))), "")


def _shown(where: str, value: Any) -> str:
    text = repr(value)
    return f"{where.removeprefix('.')}: {text if len(text) <= 40 else f'{text[:40]}...'}"


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)

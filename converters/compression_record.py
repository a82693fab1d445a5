"""What compressing a model changed, before beside after, as it stands in a bundle's measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from boardfit.errors import ReportError

SCHEMA = 2
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class NetFacts:
    """How large a net is.

    Attributes:
        parameters: Numbers that it holds; of a net per size, that of the largest one.
        macs: Multiplications of one image, by input side in pixels.
    """

    parameters: int
    macs: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """Answers at one size, on the same images.

    Attributes:
        size: Input side in pixels.
        images: How many.
        before: Share of them that the source answers well, in per cent.
        after: The same of the compressed model.
        lost: How many of them only the source answers well; None where that was not counted.
        gained: How many only the compressed model does.
    """

    size: int
    images: int
    before: float
    after: float
    lost: int | None = None
    gained: int | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """The files of one format, of all sizes together.

    Attributes:
        format: ``tflite`` and so on.
        precision: Of both sides.
        before_bytes: Of the source, exported.
        after_bytes: Of the compressed model.
    """

    format: str
    precision: str
    before_bytes: int
    after_bytes: int


@dataclass(frozen=True, slots=True)
class TimeChange:
    """One inference on one engine, the engine alone; both sides were run in turn.

    Attributes:
        engine: That ran both.
        format: ``tflite`` and so on.
        precision: Of both sides.
        size: Input side in pixels.
        threads: Of the engine.
        before_s: Median of the source in seconds.
        after_s: Median of the compressed model.
        ratio: After over before: the median of the rounds' ratios.
    """

    engine: str
    format: str
    precision: str
    size: int
    threads: int
    before_s: float
    after_s: float
    ratio: float


@dataclass(frozen=True, slots=True)
class IntegerChange:
    """What training in simulated int8 did to one artifact.

    Attributes:
        artifact: As it was asked for: ``tflite-int8-224``.
        size: Input side in pixels.
        measure: What the gate judges: ``drop`` in points of top-1, or ``flips`` in per cent of answers.
        before: The best without training.
        after: With it; None where it was not judged, as it was worse.
        error_before: Output error on calibration images; None where an engine refused the artifact.
        error_after: Likewise.
        used: Whether the bundle has the trained net's integers.
    """

    artifact: str
    size: int
    measure: str
    before: float | None
    after: float | None
    error_before: float | None
    error_after: float | None
    used: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """A training, epoch by epoch.

    Attributes:
        stage: Which stage trained.
        epochs: Their numbers, ascending; of a long training not all.
        phases: Name of the phase of each.
        series: By name one number for each: ``seconds``, ``images_per_s``, ``loss`` and what else the stage
            told; None where an epoch did not tell it.
    """

    stage: str
    epochs: tuple[int, ...]
    phases: tuple[str, ...]
    series: Mapping[str, tuple[float | None, ...]]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.epochs, self.phases, *self.series.values())}
        if len(lengths) != 1 or lengths == {0}:
            raise ReportError(
                f"the curve of {self.stage} has columns of {sorted(lengths)} epochs: expected one length"
            )


@dataclass(frozen=True, slots=True)
class CompressionRecord:
    """All that is kept of a compression.

    Attributes:
        stages: Names, in their order.
        before: The source.
        after: The compressed model.
        agreement: By size, ascending: answers that are the source's at its largest size.
        right: By size: right answers, top-1; empty where no labels were given.
        files: By format.
        times: By engine and size.
        integers: Artifacts whose net was trained in simulated int8, used or not.
        curves: One for each training, in their order.
    """

    stages: tuple[str, ...]
    before: NetFacts
    after: NetFacts
    agreement: tuple[ScoreChange, ...]
    right: tuple[ScoreChange, ...] = ()
    files: tuple[FileChange, ...] = ()
    times: tuple[TimeChange, ...] = ()
    integers: tuple[IntegerChange, ...] = ()
    curves: tuple[Curve, ...] = ()

    def __post_init__(self) -> None:
        if not self.before.macs or self.before.macs.keys() != self.after.macs.keys():
            raise ReportError(
                f"multiplications at {sorted(self.before.macs)} before and {sorted(self.after.macs)} after: "
                "expected the same sizes, one at least"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        found = asdict(self)
        for side in ("before", "after"):
            found[side]["macs"] = {str(size): count for size, count in found[side]["macs"].items()}
        return {"schema": SCHEMA, **found}

    @classmethod
    def from_dict(cls, data: object) -> CompressionRecord:
        """Read a record.

        Raises:
            ReportError: It is of another schema, or damaged.
        """
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping) or schema != SCHEMA:
            raise ReportError(
                f"the record of the compression has the schema {schema!r}: expected {SCHEMA}; build the "
                "bundle again"
            )
        try:
            return cls(
                stages=tuple(map(str, data["stages"])),
                before=_facts(data["before"]),
                after=_facts(data["after"]),
                agreement=_rows(ScoreChange, data["agreement"]),
                right=_rows(ScoreChange, data["right"]),
                files=_rows(FileChange, data["files"]),
                times=_rows(TimeChange, data["times"]),
                integers=_rows(IntegerChange, data["integers"]),
                curves=tuple(map(_curve, data["curves"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ReportError(
                f"the record of the compression is damaged ({error}): build the bundle again"
            ) from error


def _facts(data: Mapping[str, Any]) -> NetFacts:
    return NetFacts(int(data["parameters"]), {int(size): int(count) for size, count in data["macs"].items()})


_FROM_JSON: Mapping[str, Callable[[Any], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "float | None": lambda value: None if value is None else float(value),
    "int | None": lambda value: None if value is None else int(value),
}


def _rows(kind: type[_Record], rows: Any) -> tuple[_Record, ...]:
    """Read records whose fields are plain numbers and texts, each as it is annotated."""
    readers = {item.name: _FROM_JSON[str(item.type)] for item in fields(kind)}  # type: ignore[arg-type]
    return tuple(kind(**{name: read(row[name]) for name, read in readers.items()}) for row in rows)


def _curve(data: Mapping[str, Any]) -> Curve:
    series = {
        str(name): tuple(None if value is None else float(value) for value in values)
        for name, values in data["series"].items()
    }
    return Curve(str(data["stage"]), tuple(map(int, data["epochs"])), tuple(map(str, data["phases"])), series)

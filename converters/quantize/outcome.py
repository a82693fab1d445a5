"""What became of one artifact that was asked for as int8, and how that is kept between runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boardfit.converters.quantize.blame import Blame
from boardfit.converters.quantize.gate import Verdict
from boardfit.converters.quantize.naming import Share
from boardfit.converters.quantize.rescue import ON_TOP, QAT, Step
from boardfit.converters.targets import Exported
from boardfit.errors import BundleError
from boardfit.specs import MIXED, Artifact

SCHEMA = 3


@dataclass(frozen=True, slots=True)
class Taught:
    """What became of the net that was trained in simulated int8, in one artifact.

    Attributes:
        before: The best step without training, from which it began.
        qat: The step that trained.
        last: The step whose net was taken in the end.
        used: Whether that is the trained one, and its integers were delivered.
    """

    before: Step
    qat: Step
    last: Step
    used: bool


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One quantized artifact, or why there is none.

    Attributes:
        format: ``tflite``, ``onnx`` or ``ncnn``.
        size: Input side in pixels.
        asked: The precision that was asked for.
        exported: What goes into the bundle; None where nothing is inside the gate, or where fp16 serves and
            is in the bundle anyway.
        verdict: The gate's on what is delivered, or on the best that was refused.
        share: How much of the quantized artifact is in int8.
        steps: All that was tried.
        blame: The noise of each layer of the quantized artifact.
        source: The source's top-1 answers to the validation images.
        fp32: The float twin's.
        found: The delivered artifact's.
        golden: Its answer to the bundle's golden frame, see ``golden``; empty for fp16.
        notes: Of the training in simulated int8; empty where there was none.
    """

    format: str
    size: int
    asked: str
    exported: Exported | None
    verdict: Verdict
    share: Share
    steps: tuple[Step, ...]
    blame: tuple[Blame, ...]
    source: tuple[int, ...]
    fp32: tuple[int, ...]
    found: tuple[int, ...]
    golden: str = ""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What was asked for, as artifacts are named."""
        return f"{self.format}-{self.asked}-{self.size}"

    @property
    def delivered(self) -> str:
        """The precision that is in the bundle; empty where nothing is."""
        return self.exported.artifact.precision if self.exported else ""

    @property
    def kept_integers(self) -> bool:
        """Whether integers were delivered: not fp16, and not nothing."""
        return self.delivered in (self.asked, MIXED, "int16x8")

    @property
    def taught(self) -> Taught | None:
        """What training in simulated int8 did; None where there was none."""
        steps = [step for step in self.steps if step.name not in ON_TOP]
        place = next((i for i, step in enumerate(steps) if step.name == QAT), None)
        if place is None:
            return None
        qat = steps[place]
        before = next(step for step in reversed(steps[:place]) if step.kept)
        # Surgery after a training begins with the source's net again.
        last = next(step for step in reversed(steps) if step.kept)
        return Taught(before, qat, last, used=last is qat and self.kept_integers)

    @property
    def method(self) -> str:
        """Which ranges the artifact has."""
        kept = [step for step in self.steps if step.kept]
        return ", ".join(f"{step.name} ({step.detail})" if step.detail else step.name for step in kept)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the files as JSON values."""
        return {
            "format": self.format,
            "size": self.size,
            "asked": self.asked,
            "artifact": self.exported.artifact.name if self.exported else None,
            "delivered": self.delivered,
            "verdict": self.verdict.to_dict(),
            "share": asdict(self.share),
            "steps": [step.to_dict() for step in self.steps],
            "blame": [row.to_dict() for row in self.blame],
            "source": numbers_text(self.source),
            "fp32": numbers_text(self.fp32),
            "found": numbers_text(self.found),
            "golden": self.golden,
            "notes": list(self.notes),
        }


def training_notes(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Return what was told of training in simulated int8, each once, and where its net was not taken."""
    told = dict.fromkeys(note for outcome in outcomes for note in outcome.notes)
    return (*told, *(note for outcome in outcomes if (note := _unused_note(outcome))))


def _unused_note(outcome: Outcome) -> str:
    found = outcome.taught
    if found is None or found.used:
        return ""
    if found.last is found.qat:
        return f"qat: {outcome.name} stayed outside the gate after training too, and was not taken"
    return (
        f"qat: {outcome.name} is not of the trained net, which was outside the gate: its output error is "
        f"{found.qat.error:.3g}, that of {found.last.name} without training {found.last.error:.3g}"
    )


def numbers_text(values: tuple[int, ...]) -> str:
    """Return whole numbers as one text: as a list of JSON each would take a line."""
    return " ".join(map(str, values))


def read_numbers(text: object) -> tuple[int, ...]:
    """Read ``numbers_text`` back.

    Raises:
        BundleError: It is no such text.
    """
    if not isinstance(text, str) or not all(part.isdecimal() for part in text.split()):
        raise BundleError(f"{text!r:.60} is no list of answers: build the bundle again")
    return tuple(int(part) for part in text.split())


class Shelf:
    """Finished outcomes beside the bundle that is being built, so that an interruption loses none."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder; it is made with the first outcome."""
        self._folder = folder

    def get(self, key: str) -> Outcome | None:
        """Return the outcome that was put under a key, or None. A damaged one counts as none."""
        place = self._folder / key
        try:
            record = json.loads((place / "record.json").read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                return None
            return _read(record, place)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome: whole, or not at all."""
        place, draft = self._folder / key, self._folder / f"{key}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        record = {**outcome.to_dict(), "schema": SCHEMA, "exported": None}
        if outcome.exported:
            record["exported"] = outcome.exported.artifact.to_dict()
            for number, path in enumerate(outcome.exported.artifact.files):
                (draft / str(number)).write_bytes(outcome.exported.files[path])
        (draft / "record.json").write_text(json.dumps(record), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        draft.replace(place)

    def clear(self) -> None:
        """Remove the folder: the bundle is written."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _read(record: Mapping[str, Any], place: Path) -> Outcome:
    exported = None
    if record["exported"] is not None:
        artifact = Artifact.from_dict(record["exported"])
        files = {path: (place / str(number)).read_bytes() for number, path in enumerate(artifact.files)}
        exported = Exported(artifact=artifact, files=files)
    return Outcome(
        format=record["format"],
        size=record["size"],
        asked=record["asked"],
        exported=exported,
        verdict=_verdict(record["verdict"]),
        share=Share(**record["share"]),
        steps=tuple(_step(step) for step in record["steps"]),
        blame=tuple(Blame(**row) for row in record["blame"]),
        source=read_numbers(record["source"]),
        fp32=read_numbers(record["fp32"]),
        found=read_numbers(record["found"]),
        golden=record["golden"],
        notes=tuple(record["notes"]),
    )


def _step(record: Mapping[str, Any]) -> Step:
    verdict = record["verdict"]
    return Step(
        **{
            **record,
            "error": np.inf if record["error"] is None else record["error"],
            "verdict": None if verdict is None else _verdict(verdict),
        }
    )


def _verdict(record: Mapping[str, Any]) -> Verdict:
    divergence = record["divergence"]
    return Verdict(**{**record, "divergence": np.inf if divergence is None else divergence})

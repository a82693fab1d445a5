"""The gate of int8 again, on another machine: its answers, image by image, against those of the build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from boardfit.bundle import Bundle
    from boardfit.converters.quantize.gate import Verdict
    from boardfit.specs import Artifact


@dataclass(frozen=True, slots=True)
class Regated:
    """One artifact on one engine of this machine.

    Attributes:
        artifact: Its name.
        size: Input side in pixels.
        engine: That ran it.
        images: How many of the build's validation images were found here.
        changed: Answers that differ from those of the same artifact on the machine of the build.
        verdict: The gate's.
    """

    artifact: str
    size: int
    engine: str
    images: int
    changed: int
    verdict: Verdict


def regate(bundle: Bundle, folder: str, *, engine: str | None = None) -> list[Regated]:
    """Run every quantized artifact on the validation images of the build.

    Args:
        bundle: Open.
        folder: Where the images lie, under whatever names: they are known by content.
        engine: The one to run; by default all that are installed.

    Raises:
        RecipeError: The bundle has no quantized artifact, or no engine for one is installed.
        InputError: Too few of the images are in the folder.
        BundleError: The recorded answers are damaged.
    """
    from boardfit.errors import BundleError, RecipeError
    from boardfit.runtime.engines import available_engines

    section = (bundle.measurements or {}).get("quantized")
    if not isinstance(section, Mapping):
        raise RecipeError(f"{bundle.path} has no quantized artifact: there is no gate to repeat")
    artifacts = {artifact.name: artifact for artifact in bundle.manifest.artifacts}
    try:
        places, frames = _frames(str(section["validation"]["sha256"]).split(), folder)
        rows = [row for row in section["artifacts"] if row["artifact"] in artifacts]
        found = []
        for row in rows:
            artifact = artifacts[row["artifact"]]
            engines = [name for name in available_engines(artifact.format) if engine in (None, name)]
            for name in engines:
                tops = _tops(bundle, artifact, engine=name, frames=frames)
                found.append(_regated(section, row, name, tops=tops, places=places))
    except (KeyError, TypeError, IndexError) as error:
        raise BundleError(f"the recorded answers of {bundle.path} are damaged: build it again") from error
    if not found:
        raise RecipeError(
            f"no engine for the quantized artifacts of {bundle.path} is installed, or asked for"
        )
    return found


def regate_table(rows: Sequence[Regated]) -> str:
    """Return one line per artifact and engine."""
    from boardfit.cli.text import table

    cells = [
        [
            row.artifact,
            row.engine,
            str(row.size),
            str(row.images),
            str(row.changed),
            row.verdict.text,
            f"{row.verdict.limit:g}",
            "ok" if row.verdict.passed else "OUTSIDE",
        ]
        for row in rows
    ]
    header = ["artifact", "engine", "size", "images", "unlike the build", "measure", "allowed", "gate"]
    return table(header, cells, left=(0, 1, 5))


def _frames(wanted: Sequence[str], folder: str) -> tuple[list[int], list[np.ndarray]]:
    """Return which of the build's images were found, by their place in its list, and the images."""
    from boardfit.converters.quantize.photos import content_sha256
    from boardfit.converters.recipe import FEWEST_TO_VALIDATE
    from boardfit.errors import InputError
    from boardfit.runtime.images import list_images, read_image

    known: dict[str, Path] = {content_sha256(path)[:16]: path for path in list_images([folder])}
    places = [place for place, sha256 in enumerate(wanted) if sha256 in known]
    if len(places) < FEWEST_TO_VALIDATE:
        raise InputError(
            f"{len(places)} of the {len(wanted)} images that the build judged on are in {folder}: expected "
            f"at least {FEWEST_TO_VALIDATE}, unchanged, under whatever names"
        )
    return places, [read_image(known[wanted[place]]) for place in places]


def _tops(bundle: Bundle, artifact: Artifact, *, engine: str, frames: Sequence[np.ndarray]) -> np.ndarray:
    """Return the (N,) top-1 answers of an artifact of one size."""
    from boardfit.converters.verify import top1
    from boardfit.runtime.choose import default_threads
    from boardfit.runtime.engines import find_engine
    from boardfit.runtime.preprocess import Preprocessor

    spec = artifact.inputs[0]
    preprocessor = Preprocessor(bundle.manifest.image, spec.layout)
    running = find_engine(engine)(artifact, bundle.artifact_files(artifact), default_threads())
    try:
        outputs = [running.run({spec.name: preprocessor.fit(f, artifact.sizes[0])[0]})[0] for f in frames]
    finally:
        running.close()
    return top1(np.concatenate(outputs), artifact.outputs[0].activation).astype(np.int64)


def _regated(
    section: Mapping[str, Any], row: Mapping[str, Any], engine: str, *, tops: np.ndarray, places: list[int]
) -> Regated:
    from boardfit.converters.quantize.gate import Answers, Limits, judge
    from boardfit.converters.quantize.outcome import read_numbers

    def recorded(text: object) -> np.ndarray:
        return np.array(read_numbers(text), np.int64)[places]

    labels = section["validation"]["labels"]
    answers = Answers(
        fp32=recorded(row["fp32"]),
        source=recorded(row["source"]),
        labels=None if labels is None else recorded(labels),
    )
    largest = row["size"] == max(each["size"] for each in section["artifacts"])
    limits = Limits(max_drop=section["max_drop"], max_flips=section["max_flips"])
    return Regated(
        artifact=row["artifact"],
        size=row["size"],
        engine=engine,
        images=len(places),
        changed=int((tops != recorded(row["found"])).sum()),
        verdict=judge(tops, answers, divergence=None, limits=limits, largest=largest),
    )

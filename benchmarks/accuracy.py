"""Right answers on labelled images, and what was lost against fp32."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from boardfit.benchmarks.cases import opener
from boardfit.benchmarks.measure import TELL_EVERY_S, Session
from boardfit.benchmarks.records import Accuracy, Case
from boardfit.bundle import Manifest
from boardfit.errors import InputError, RecipeError
from boardfit.runtime.choose import choose_engine
from boardfit.runtime.images import read_image

Labelled = Sequence[tuple[Path, int]]
"""Image files with the index of their class."""


class Judge:
    """Remembers what it has judged: threads and scenarios change no answer."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        manifest: Manifest,
        labelled: Labelled,
        *,
        inputs: Mapping[str, np.ndarray] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take the images.

        Args:
            path: Of the bundle.
            manifest: Its manifest.
            labelled: The images.
            inputs: What the net takes besides each image, by name.
            progress: Told what is judged.

        Raises:
            RecipeError: The bundle is no classifier, there is no image, or a label is none of its classes.
        """
        if manifest.task != "classify":
            raise RecipeError(
                f"labels are for classifiers, and the bundle's task is {manifest.task}: leave them out"
            )
        if not labelled:
            raise RecipeError("no labelled image: the table names none")
        highest = max(label for _, label in labelled)
        if manifest.labels and highest >= len(manifest.labels):
            raise RecipeError(
                f"a label is {highest}, but the model answers {len(manifest.labels)} classes, 0 to "
                f"{len(manifest.labels) - 1}: check the table"
            )
        self._path = path
        self._manifest = manifest
        self._labelled = labelled
        self._inputs = inputs
        self._progress = progress
        self._known: dict[tuple[str, str, tuple[int, ...], str], float] = {}

    def accuracy(self, case: Case) -> Accuracy:
        """Return how often a case is right, beside the fp32 artifact at the largest size on its engine.

        Raises:
            InputError: An image cannot be read.
            BoardfitError: What the session raises.
        """
        reference = self._reference(case)
        return Accuracy(
            images=len(self._labelled),
            top1=self._top1(case),
            top1_fp32=None if reference is None else self._top1(reference),
        )

    def _reference(self, case: Case) -> Case | None:
        try:
            choice = choose_engine(self._manifest.artifacts, engine=case.engine, precision="fp32")
        except RecipeError:
            return None
        return replace(case, precision="fp32", sizes=(choice.sizes[-1],), policy="fixed")

    def _top1(self, case: Case) -> float:
        key = (case.engine, case.precision, case.sizes, case.policy)
        if key not in self._known:
            self._progress(f"{case.name}: answers to {len(self._labelled)} labelled images")
            # Pictures of a folder do not follow each other in time, whatever the scenario.
            with opener(self._path, replace(case, scenario="single-stream"), self._inputs)() as session:
                right = sum(self._right(session))
            self._known[key] = right / len(self._labelled)
        return self._known[key]

    def _right(self, session: Session) -> Iterator[bool]:
        told_s = time.monotonic()
        for number, (path, label) in enumerate(self._labelled):
            if time.monotonic() - told_s > TELL_EVERY_S:
                told_s = time.monotonic()
                self._progress(f"{number} of {len(self._labelled)} labelled images")
            yield _best(session(read_image(path))) == label


def _best(result: object) -> int:
    top = result.top(1)  # type: ignore[attr-defined]
    if not top:
        raise InputError("an answer without a class: labels are for classifiers")
    return int(top[0].index)

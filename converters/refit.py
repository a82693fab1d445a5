"""Fit, or fit again, the policy of a bundle that exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from boardfit.bundle import Bundle, open_bundle, write_tree
from boardfit.converters.policy_answers import Answers
from boardfit.converters.policy_evidence import Photo, Progress, gather
from boardfit.converters.policy_fit import Fit, Goal, fit
from boardfit.errors import RecipeError
from boardfit.runtime.choose import Setup
from boardfit.runtime.inputs import input_specs
from boardfit.runtime.times import DEFAULT, BoardTimes, measure_board


def refit(
    source: str | Path,
    out: str | Path,
    *,
    goal: Goal,
    photos: Sequence[Photo] | None = None,
    board: BoardTimes | None = None,
    setup: Setup = DEFAULT,
    progress: Progress = lambda _: None,
) -> Fit:
    """Write a bundle again with the policy that serves a goal best.

    Args:
        source: The bundle; it may be the same as ``out``.
        out: Where the fitted bundle goes; written whole or not at all.
        goal: What is asked of the policy.
        photos: Images to run every size on; None takes the answers that the bundle recorded.
        board: Times of the machine that will run it; None measures this one.
        setup: How to run and time it; what it leaves open, ``load`` chooses.
        progress: Told what is being done.

    Raises:
        InputError: Too few images, or all of one class.
        RecipeError: The bundle has no recorded answers and no images are given, the times are of other
            sizes, or no policy holds the goal.
        BundleError: The bundle is damaged, or cannot be written.
    """
    with open_bundle(source) as bundle:
        recorded = bundle.measurements or {}
        further = input_specs(bundle.manifest.artifacts)[1:]
        if further:
            names = ", ".join(spec.name for spec in further)
            raise RecipeError(
                f"{bundle.manifest.name} takes {names} besides the frame, and a policy is fitted on "
                "images alone: choose a size with load(size=...)"
            )
        if bundle.manifest.task != "classify":
            raise RecipeError(
                f"{bundle.manifest.name} is built for the task {bundle.manifest.task}, and a policy is "
                "fitted on the answers of a classifier: choose a size with load(size=...)"
            )
        if board is not None and board.sizes != bundle.manifest.sizes:
            raise RecipeError(
                f"the times are of the sizes {list(board.sizes)}, but the bundle answers at "
                f"{list(bundle.manifest.sizes)}: they belong to another bundle; measure again with "
                "--save-times"
            )
        if photos is None:
            answers = _recorded(recorded, bundle)
        else:
            progress(f"running {len(bundle.manifest.sizes)} sizes on {len(photos)} images")
            answers = gather(bundle, photos, setup=setup, progress=progress)
        if board is None:
            progress("timing each size on this machine")
            board = measure_board(bundle, setup=setup)
        hysteresis = bundle.manifest.policy.hysteresis_bits
        result = fit(answers, board.times, goal=goal, machine=board.machine, hysteresis_bits=hysteresis)
        manifest = replace(bundle.manifest, policy=result.policy)
        contents = {entry.path: bundle.read(entry.path) for entry in manifest.files}
        measurements = {
            **recorded,
            "fit": {**result.to_dict(), "machine": board.machine, "answers": answers.to_dict()},
        }
        signatures = bundle.signatures_for(manifest)
        if bundle.signatures and not signatures:
            progress("the bundle's signatures were of the other policy, and are left out: sign it again")
    write_tree(out, manifest, contents=contents, measurements=measurements, signatures=signatures)
    return result


def _recorded(measurements: Mapping[str, Any], bundle: Bundle) -> Answers:
    found = measurements.get("fit")
    if not isinstance(found, Mapping) or "answers" not in found:
        raise RecipeError(
            f"{bundle.path} holds no recorded answers to fit on: give photographs with --images DIR"
        )
    return Answers.from_dict(found["answers"])

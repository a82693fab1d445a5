"""The page of a fit: plots of the evidence, and examples of what the policy does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boardfit.cli.quiet import quiet_engines

if TYPE_CHECKING:
    from boardfit.benchmarks.policy_page import Example
    from boardfit.converters.policy_evidence import Photo
    from boardfit.converters.policy_fit import Fit

EXAMPLES_PER_SIZE = 6


def write_policy_report(path: Path, bundle_path: str | Path, result: Fit, photos: Sequence[Photo]) -> None:
    """Write the page.

    Args:
        path: Where it goes.
        bundle_path: The fitted bundle, which is run on the examples.
        result: The fit.
        photos: The images of the fit; none, and the page has no examples.

    Raises:
        RecipeError: The page cannot be written.
    """
    from boardfit.benchmarks.policy_page import Point, PolicyPage, policy_html
    from boardfit.bundle import open_bundle
    from boardfit.cli.text import fit_text, policy_text
    from boardfit.errors import RecipeError
    from boardfit.files import write_whole

    answers, policy = result.answers, result.policy
    assert policy.fit is not None
    with open_bundle(bundle_path) as bundle:
        name, content_id = bundle.manifest.name, bundle.content_id
        examples = _examples(bundle_path, photos)
    first = tuple(answers.sizes.index(size) for size in policy.sizes)
    two_look = policy.kind == "two-look"
    page = PolicyPage(
        title=f"Size policy of {name}",
        headline=f"{policy_text(policy)}: {fit_text(policy.fit)}.",
        facts=(
            ("Bundle", f"{Path(bundle_path).name}, content id {content_id[:16]}"),
            ("Images", f"{answers.count}: one half to choose, the other half to score"),
            ("Timed on", policy.fit.machine),
            ("A change of size", f"{1e3 * result.times.change_s(result.policy.kind):.2f} ms"),
            ("An image entropy", f"{1e3 * result.times.entropy_s:.2f} ms"),
        ),
        score_name="right answers %" if policy.fit.labelled else "answers like the largest size %",
        table=tuple(Point(**asdict(line)) for line in result.table),
        curves=tuple(Point(**asdict(line)) for line in result.curves),
        entropy_bits=tuple(answers.bits.tolist()),
        thresholds_bits=policy.thresholds_bits,
        doubt_bits=tuple(answers.doubt_bits[first[:1]].tolist()) if two_look else (),
        second_look_bits=policy.second_look_bits if two_look else None,
        examples=tuple(examples),
    )
    try:
        write_whole(path, policy_html(page).encode())
    except OSError as error:
        raise RecipeError(f"cannot write {path}: {error.strerror}") from error


def _examples(bundle_path: str | Path, photos: Sequence[Photo]) -> list[Example]:
    """Run the fitted bundle over the images, and keep the first few at each answering size."""
    from boardfit.benchmarks.policy_page import Example
    from boardfit.cli.annotate import thumbnail_jpeg
    from boardfit.errors import InputError
    from boardfit.runtime.entropy import entropy_bits
    from boardfit.runtime.images import read_image
    from boardfit.runtime.session import load

    kept: dict[int, list[Example]] = {}
    order = np.random.default_rng(0).permutation(len(photos))
    with quiet_engines(), load(bundle_path) as session:
        for index in order[: 40 * EXAMPLES_PER_SIZE]:
            try:
                frame = read_image(photos[index].path)
            except InputError:  # named when the evidence was gathered
                continue
            result = session(frame)
            mine = kept.setdefault(result.size, [])
            if len(mine) < EXAMPLES_PER_SIZE:
                mine.append(
                    Example(
                        source=photos[index].path.name,
                        size=result.size,
                        entropy_bits=entropy_bits(frame),
                        label=result.top(1)[0].label,
                        doubt_bits=float(result.doubt_bits or 0.0),
                        jpeg=thumbnail_jpeg(frame, width=240),
                    )
                )
            if all(len(kept.get(size, ())) >= EXAMPLES_PER_SIZE for size in session.sizes):
                break
    return [example for size in sorted(kept) for example in kept[size]]

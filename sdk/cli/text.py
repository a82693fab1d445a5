"""Text for people: tables, sizes, sentences about specs."""

from __future__ import annotations

from collections.abc import Sequence

from boardfit.specs import MAX_ENTROPY_BITS, FitSummary, ImageSpec, PolicySpec


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Return aligned columns.

    Args:
        header: One word per column.
        rows: As many cells each.
        left: Indices of the columns that are aligned to the left; the others to the right.
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def megabytes(size_bytes: int) -> str:
    """Return a byte count in MB of 10^6 bytes."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 50_000 else f"{size_bytes / 1e3:.1f} kB"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 thread``, ``2 threads``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def image_text(image: ImageSpec) -> str:
    """Return how a frame becomes a tensor."""
    mean = ", ".join(f"{value:g}" for value in image.mean)
    std = ", ".join(f"{value:g}" for value in image.std)
    return (
        f"centre crop {image.crop:g} of the short side, {image.resize} resize, "
        f"{image.channels}, (pixel - [{mean}]) / [{std}]"
    )


def policy_text(policy: PolicySpec) -> str:
    """Return which size a frame gets."""
    if policy.kind == "fixed":
        return f"fixed: always {policy.sizes[-1]}"
    text = f"{policy.kind}: {', '.join(_steps(policy))}"
    if policy.kind == "two-look":
        where = f" at {policy.second_size}" if policy.second_size else ""
        merged = " and averages the answers" if policy.average else ""
        bounds = ", then ".join(f"{bits:g}" for bits in policy.look_bits)
        text += f"; looks again{where} above {bounds} bits of doubt{merged}"
    return text if policy.fitted else f"{text} (not fitted)"


def fit_text(found: FitSummary) -> str:
    """Return on what evidence a policy was chosen, and by how much it won."""
    measure = "right answers" if found.labelled else "agreement with the largest size"
    return (
        f"on {found.images} images that the choice did not see, {found.drop_points:.1f} points of {measure} "
        f"lost at {found.time_ratio:.2f} of the largest size's time; {found.gain_points:+.1f} points against "
        f"the best fixed size or mix of equal time (95 %: {found.gain_low:+.1f} to {found.gain_high:+.1f}); "
        f"timed on {found.machine}"
    )


def _steps(policy: PolicySpec) -> list[str]:
    """Return the size of each band of image entropy; a threshold above every image ends the list."""
    steps: list[str] = []
    alone = "first" if policy.kind == "two-look" else "always"
    for bits, size in zip(policy.thresholds_bits, policy.sizes[:-1], strict=True):
        if bits > MAX_ENTROPY_BITS:
            return [*steps, f"else {size}" if steps else f"{alone} {size}"]
        steps.append(f"below {bits:g} bits {size}")
    return [*steps, f"else {policy.sizes[-1]}" if steps else f"{alone} {policy.sizes[-1]}"]

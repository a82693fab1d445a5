"""Text for people: tables, sizes, sentences about specs."""

from __future__ import annotations

from collections.abc import Sequence

from boardfit.specs import ImageSpec, PolicySpec


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
    steps = [
        f"below {bits:g} bits {size}"
        for bits, size in zip(policy.thresholds_bits, policy.sizes[:-1], strict=True)
    ]
    last = f"else {policy.sizes[-1]}" if steps else f"always {policy.sizes[0]}"
    text = f"{policy.kind}: {', '.join([*steps, last])}"
    if policy.kind == "two-look":
        text += f"; looks again above {policy.second_look_bits:g} bits of doubt"
    return text if policy.fitted else f"{text} (not fitted)"

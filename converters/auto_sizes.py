"""Which input sizes a bundle should serve, where the caller leaves that open."""

from __future__ import annotations

from dataclasses import replace

from boardfit.converters.ingest import own_side
from boardfit.converters.ingest.untouched import untouched_side
from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe import Recipe
from boardfit.errors import UnsupportedSize

USUAL_SIDE = 224
"""Taken for a net that takes any size and says nothing of its training."""

SHARES = (1 / 2, 1 / 3)
"""Of the largest size's time, which is close to quadratic in the side."""

STEP, SMALL_STEP = 32, 8
"""Most nets halve the side five times: a multiple of 32 wastes nothing. Those for small images halve less."""


def propose_sizes(largest: int) -> tuple[int, ...]:
    """Return the largest side and those below it that take about a half and a third of its time.

    Multiples of 32 below a side of 128 or more, of 8 below a smaller one.

    Args:
        largest: Side in pixels.

    Returns:
        Sides in pixels, ascending: 128, 160, 224 for 224; 16, 24, 32 for 32.
    """
    step = STEP if largest >= 4 * STEP else SMALL_STEP
    near = (step * round(largest * share**0.5 / step) for share in SHARES)
    return tuple(sorted({largest, *(side for side in near if 2 * step <= side < largest)}))


def resolve_sizes(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe whose sizes are numbers, and a sentence that says which were proposed and why.

    Args:
        recipe: Unchanged, with no sentence, unless it asks for ``auto_sizes``.

    Raises:
        InputError, UnsupportedModel, ToolMissing: The source cannot be read; see ``ingest``.
    """
    if not recipe.export.auto_sizes:
        return recipe, ()
    kind = "torch" if recipe.source.torch else None
    if recipe.source.pass_through:
        own = untouched_side(recipe.source.model)
    else:
        own = own_side(recipe.source.torch or recipe.source.model, kind)
    sizes = propose_sizes(own or USUAL_SIDE)
    why = f"{own} is the source's own"
    if own is None:
        why = f"the source takes any size, and {USUAL_SIDE} is the usual one"
    shares = [(side, (side / sizes[-1]) ** 2) for side in reversed(sizes[:-1])]
    smaller = [f"{side} takes about {share:.2f} of its time" for side, share in shares]
    note = f"sizes {', '.join(map(str, sizes))} were proposed: {'; '.join([why, *smaller])}"
    return replace(recipe, export=replace(recipe.export, sizes=sizes, auto_sizes=False)), (note,)


def require_choice(model: TrainedModel) -> None:
    """Raise UnsupportedSize if a net takes one size only: then there is nothing to propose."""
    if model.fixed_size is not None:
        raise UnsupportedSize(
            f"--sizes auto has nothing to choose: {model.name} takes {model.fixed_size} pixels only, since "
            f"{model.fixed_by} binds the size. Build with --sizes {model.fixed_size}, or bring the source in "
            "a form that is free of size."
        )

"""Which channels matter least: a score for each unit of a net."""

from __future__ import annotations

import numpy as np

from boardfit.converters.compress.channels import CARRIES, SCALES
from boardfit.converters.compress.groups import Cost, Structure, Term


def weight_scores(structure: Structure, criterion: str, *, seed: int = 0) -> np.ndarray:
    """Return scores that need no images, 1 on average in every group.

    ``l1`` and ``l2`` are norms of all kernels' slices that a unit makes, carries or is read by (Li et al.
    2017, https://arxiv.org/abs/1608.08710, for all that is coupled: Fang et al. 2023,
    https://arxiv.org/abs/2301.12900); ``bn`` is the scale of its normalisation (Liu et al. 2017,
    https://arxiv.org/abs/1708.06519), its ``l2`` where it has none; ``random`` is chance.

    Args:
        structure: Of the net.
        criterion: ``l1``, ``l2``, ``bn`` or ``random``.
        seed: Of chance.

    Returns:
        (U,) float64.
    """
    if criterion == "random":
        return np.random.default_rng(seed).uniform(0.5, 1.5, structure.count)
    sums, times = np.zeros(structure.count), np.zeros(structure.count)
    for side in structure.sides:
        cut = side.cut
        weight = np.asarray(cut.layer.get_weights()[cut.weight], np.float64)
        if (criterion == "bn") != (cut.role == SCALES) or (cut.role == CARRIES and weight.ndim < 2):
            continue
        rows = np.moveaxis(weight, cut.axis, 0).reshape(len(side.units), -1)
        _add(sums, times, side.units, np.abs(rows).sum(1) if criterion in ("l1", "bn") else (rows**2).sum(1))
    found = np.divide(sums, times, out=np.zeros_like(sums), where=times > 0)
    found = found**0.5 if criterion == "l2" else found
    missing = times == 0
    if missing.any() and criterion == "bn":
        found[missing] = weight_scores(structure, "l2")[missing]
    for group in structure.groups:
        found[group.units] /= max(float(found[group.units].mean()), 1e-30)
    return found


def worth(structure: Structure, relative: np.ndarray, terms: tuple[Term, ...]) -> np.ndarray:
    """Return relative scores in terms of a cost: an average unit is worth what it costs.

    Args:
        structure: Of the net.
        relative: (U,) float64, 1 on average in every group.
        terms: ``structure.macs`` or ``structure.parameters``.
    """
    cost, found = Cost(structure, terms), relative.copy()
    for group in structure.groups:
        found[group.units] *= cost.saved(group.units[:1])
    return found


def _add(sums: np.ndarray, times: np.ndarray, units: np.ndarray, values: np.ndarray) -> None:
    """Add what each place of a side is worth to its unit, in shares of the side's mean."""
    mean = float(values.mean())
    if mean <= 0.0:
        return
    known = units >= 0
    np.add.at(sums, units[known], values[known] / mean)
    np.add.at(times, units[known], 1.0)

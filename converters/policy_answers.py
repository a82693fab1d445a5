"""What a policy is chosen on: the answers of every size to every image, and what a look costs.

Pure numpy. A bundle keeps the answers, so that a board can choose again by its own times, without images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from boardfit.errors import BundleError
from boardfit.runtime.decode.classify import averaged_scores
from boardfit.runtime.results import contest_bits

Chain = tuple[int, ...]
"""Looks at one image, as columns of the sizes, ascending: (0, 2) is the smallest size, then the third."""

MOST_LOOKS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What every size answered to every image.

    Attributes:
        sizes: S input sides in pixels, ascending.
        bits: (N,) image entropies.
        top1: (N,) class indices by chain of looks: a look alone, and the average over two and three looks.
        doubt_bits: (N,) doubts of those answers, see ``contest_bits``; 0 is certain.
        truth: (N,) class indices, or None: then the largest size's answers are taken for right.
    """

    sizes: tuple[int, ...]
    bits: np.ndarray
    top1: Mapping[Chain, np.ndarray]
    doubt_bits: Mapping[Chain, np.ndarray]
    truth: np.ndarray | None = None

    @property
    def target(self) -> np.ndarray:
        """Return the (N,) class indices that count as right."""
        return self.top1[(len(self.sizes) - 1,)] if self.truth is None else self.truth

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.bits)

    def take(self, rows: np.ndarray) -> Answers:
        """Return the evidence of some of the images."""
        return Answers(
            sizes=self.sizes,
            bits=self.bits[rows],
            top1={chain: values[rows] for chain, values in self.top1.items()},
            doubt_bits={chain: values[rows] for chain, values in self.doubt_bits.items()},
            truth=None if self.truth is None else self.truth[rows],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence as JSON values."""
        return {
            "sizes": list(self.sizes),
            "bits": np.round(self.bits, 4).tolist(),
            "looks": {
                "-".join(str(self.sizes[column]) for column in chain): {
                    "top1": self.top1[chain].tolist(),
                    "doubt_bits": np.round(self.doubt_bits[chain], 4).tolist(),
                }
                for chain in chains(len(self.sizes))
            },
            "truth": None if self.truth is None else self.truth.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Answers:
        """Read the evidence back.

        Raises:
            BundleError: A field is missing or has the wrong shape.
        """
        try:
            sizes = tuple(int(size) for size in data["sizes"])
            bits = np.asarray(data["bits"], np.float64)
            top1, doubt = {}, {}
            for chain in chains(len(sizes)):
                look = data["looks"]["-".join(str(sizes[column]) for column in chain)]
                top1[chain] = np.asarray(look["top1"], np.int64)
                doubt[chain] = np.asarray(look["doubt_bits"], np.float64)
                if top1[chain].shape != bits.shape or doubt[chain].shape != bits.shape:
                    raise ValueError(f"{top1[chain].shape} answers for {bits.shape} images")
            truth = None if data["truth"] is None else np.asarray(data["truth"], np.int64)
            if bits.ndim != 1 or (truth is not None and truth.shape != bits.shape):
                raise ValueError(f"{bits.shape} image entropies, and labels that do not fit them")
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"the bundle's recorded answers are damaged ({error}): fit again with --images"
            ) from error
        return cls(sizes=sizes, bits=bits, top1=top1, doubt_bits=doubt, truth=truth)


def answers_of(
    sizes: tuple[int, ...], *, bits: np.ndarray, scores: np.ndarray, truth: np.ndarray | None
) -> Answers:
    """Return the evidence that scores make.

    Args:
        sizes: S input sides in pixels, ascending.
        bits: (N,) image entropies.
        scores: (S, N, C) probabilities.
        truth: (N,) class indices, or None.
    """
    top1: dict[Chain, np.ndarray] = {}
    doubt: dict[Chain, np.ndarray] = {}
    for chain in chains(len(sizes)):
        merged = scores[chain[0]]
        for column in chain[1:]:
            merged = averaged_scores(merged, scores[column])
        top1[chain] = merged.argmax(axis=1)
        doubt[chain] = contest_bits(merged).astype(np.float64)
    return Answers(sizes=sizes, bits=bits, top1=top1, doubt_bits=doubt, truth=truth)


def chains(count: int) -> list[Chain]:
    """Return every chain of one to MOST_LOOKS looks over so many sizes, each look larger than the last."""
    return [chain for length in range(1, MOST_LOOKS + 1) for chain in combinations(range(count), length)]

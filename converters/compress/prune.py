"""Structured pruning: whole channels go, so that every layer is physically smaller and time falls."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from boardfit.converters.compress.allocate import Removal, alive_after, least, removals, until
from boardfit.converters.compress.criteria import weight_scores, worth
from boardfit.converters.compress.follow import follow
from boardfit.converters.compress.groups import Cost, Structure, Term, structure_of
from boardfit.converters.compress.images import ImageSet
from boardfit.converters.compress.nets import trainable_copy
from boardfit.converters.compress.prune_search import NEAR, Found, Measure, Search, moves_by_time
from boardfit.converters.compress.recalibrate import recalibrate
from boardfit.converters.compress.repair import repair
from boardfit.converters.compress.shrink import require_same, shrink
from boardfit.converters.compress.stage import StageResult
from boardfit.converters.compress.taylor import taylor_scores
from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.recipe_prune import PruneSection
from boardfit.errors import CompressError, UnsupportedModel

TOLD_EVERY_S = 10.0
"""So often the fit says how far it is."""

Recover = Callable[[TrainedModel, int, int], TrainedModel]
"""Trains a model after a step, counted from 1, of so many."""
Clock = Callable[[TrainedModel, TrainedModel], float]
"""Returns how many times as long the second model takes as the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Prune:
    """The stage: a net loses the channels that matter least.

    Attributes:
        options: How much goes, and by what it is chosen.
        side: Of images in pixels at which costs are counted: the largest of the bundle.
        images: Reads photographs at the side that it is given, for ``taylor`` and the repair; None where
            there are none. Labels are not looked at.
        clock: Compares times, where a time is the goal.
        recover: Trains between steps; what happens after the last one is another stage's.
        progress: Told, in a sentence, what is being done.
    """

    options: PruneSection
    side: int
    images: Callable[[int], ImageSet] | None = None
    clock: Clock | None = None
    recover: Recover | None = None
    progress: Callable[[str], None] = lambda _: None

    @property
    def name(self) -> str:
        """Name of the stage."""
        return "prune"

    def requires(self, model: TrainedModel) -> None:
        """Raise CompressError unless channels can go from the model, and as many as are asked for."""
        if model.untouched is not None:
            raise CompressError(f"{model.name} is packed as it is: there is no net of it to prune")
        if model.nets_by_size is not None:
            raise CompressError(f"{model.name} has a net of its own at each size: prune it before")
        self._require_means(model)
        structure = structure_of(follow(model.net, self.side), model.net)
        if not structure.groups:
            raise CompressError(f"no channel of {model.name} can go: {_reasons(structure.fixed)}")
        terms = self._terms(structure)
        order = self._removals(structure, np.ones(structure.count), self._floors(structure))
        if not order:
            raise CompressError(
                f"no layer of {model.name} is wide enough to lose {self.options.multiple} channels and keep "
                f"{self.options.keep:g} of its own: lower prune.multiple or prune.keep"
            )
        if not self.options.time:
            total = Cost(structure, terms).total
            self._require_possible(structure, order, self._limit(total, 1.0), total)

    def __call__(self, model: TrainedModel) -> StageResult:
        """Prune, step by step."""
        source = current = replace(model, net=trainable_copy(model.net))
        images = self._photographs()
        whole = structure_of(follow(source.net, self.side), source.net)
        total, floors = Cost(whole, self._terms(whole)).total, self._floors(whole)
        notes: list[str] = []
        steps = self.options.steps
        for step in range(1, steps + 1):
            name = "prune" if steps == 1 else f"prune, step {step} of {steps}"
            self.progress(f"{name}: choosing channels by {self._criterion}")
            current, found = self._step(
                source, current, images, share=step / steps, total=total, floors=floors, name=name
            )
            notes += [f"{name}: {note}" for note in found]
            if self.recover is not None and step < steps:
                recovered = self.recover(current, step, steps)
                current = replace(recovered, net=trainable_copy(recovered.net))
        current.net.trainable = False
        pruned = replace(current, reference=keras_reference(current.net))
        return StageResult(model=pruned, notes=(*self._summary(model, pruned, images), *notes))

    def ensures(self, before: TrainedModel, after: TrainedModel) -> None:
        """Raise CompressError unless the model is smaller, whole, and answers in the same shapes."""
        shapes = [[tuple(item.shape) for item in model.net.outputs] for model in (before, after)]
        if shapes[0] != shapes[1]:
            raise CompressError(f"the pruned net answers {shapes[1]}, not {shapes[0]}")
        if not all(np.isfinite(weight).all() for weight in after.net.get_weights()):
            raise CompressError("the pruned net has weights that are not finite")
        if not after.net.count_params() < before.net.count_params():
            raise CompressError("the pruned net holds as many numbers as before")

    @property
    def _criterion(self) -> str:
        if self.options.criterion != "auto":
            return self.options.criterion
        return "l2" if self.images is None else "taylor"

    def _require_means(self, model: TrainedModel) -> None:
        """Raise CompressError unless there is a goal, and all that it takes."""
        if not self.options.structured:
            raise CompressError("nothing to prune: give prune.macs, prune.parameters or prune.time")
        if self._criterion == "taylor" and self.images is None:
            raise CompressError(
                "prune.criterion is 'taylor', which needs photographs: give --distill FOLDER, or --images "
                "FOLDER with 50 or more"
            )
        if self.images is not None and len(model.net.inputs) > 1:
            raise CompressError(
                f"{model.name} takes more than an image, which photographs alone cannot show it: choose "
                'prune.criterion = "l2" and prune it without them'
            )
        if self.options.time and self.clock is None:
            raise CompressError("prune.time needs an engine that is asked")

    def _terms(self, structure: Structure) -> tuple[Term, ...]:
        return structure.parameters if self.options.parameters else structure.macs

    def _limit(self, total: float, share: float) -> float:
        """Return what may remain of a cost when a share of the steps is done: each takes the same part."""
        left: float = (1.0 - (self.options.parameters or self.options.macs)) ** share
        return total * left

    def _floors(self, source: Structure) -> list[int]:
        """Return how many units of each of the source's groups stay; a pruned net has the same groups."""
        return [math.ceil(self.options.keep * len(group.units)) for group in source.groups]

    def _removals(self, structure: Structure, scores: np.ndarray, floors: list[int]) -> list[Removal]:
        terms = self._terms(structure)
        return removals(structure, scores, terms, multiple=self.options.multiple, floors=floors)

    def _require_possible(
        self, structure: Structure, order: list[Removal], limit: float, total: float
    ) -> list[Removal]:
        """Return what goes until no more than a limit remains of the cost, or raise CompressError."""
        terms, options = self._terms(structure), self.options
        taken = until(structure, order, terms, limit)
        if taken is None:
            name = "parameters" if options.parameters else "macs"
            most = int(100.0 * (1.0 - least(structure, order, terms) / total)) / 100.0
            raise CompressError(
                f"prune.{name} is {getattr(options, name):g}: at most {most:g} can go while every layer "
                f"keeps {options.keep:g} of its channels in multiples of {options.multiple}; ask for less, "
                "or lower prune.keep or prune.multiple"
            )
        return taken

    def _photographs(self) -> ImageSet | None:
        """Return photographs, evenly chosen; None where none are looked at."""
        if self.images is None or not (self._criterion == "taylor" or self.options.repair):
            return None
        return self.images(self.side).spread(self.options.images)

    def _step(
        self,
        source: TrainedModel,
        current: TrainedModel,
        images: ImageSet | None,
        *,
        share: float,
        total: float,
        floors: list[int],
        name: str,
    ) -> tuple[TrainedModel, list[str]]:
        """Take a part away, until a share of all steps is done; return what is worth knowing besides."""
        options = self.options
        structure = structure_of(follow(current.net, self.side), current.net)
        scores = self._scores(structure, current, images)
        order = self._removals(structure, scores, floors)

        def without(taken: Sequence[Removal]) -> TrainedModel:
            net = shrink(current.net, structure, alive_after(structure, taken))
            return replace(current, net=net)

        notes: list[str] = []
        if options.time:
            begin = 1.0 if current is source else self._ratio(source, current)
            found = self._to_time(
                order, scores, lambda taken: self._ratio(source, without(taken)), begin=begin, share=share
            )
            taken: Sequence[Removal] = found.taken
            target = options.time**share
            near = share < 1.0 or found.is_near(target)
            notes.append(_time_note(found.ratio, target, options, near=near))
        else:
            taken = self._require_possible(structure, order, self._limit(total, share), total)
        smaller = without(taken)
        alive = alive_after(structure, taken)
        require_same(current.net, smaller.net, structure, alive, side=self.side)
        if options.repair and images is not None:
            told = _Told(f"{name}: fitting layers to what they gave before", self.progress)
            notes.append(_repaired(current, smaller, structure, alive=alive, images=images, told=told))
        return smaller, notes

    def _ratio(self, source: TrainedModel, model: TrainedModel) -> float:
        assert self.clock is not None
        return self.clock(source, model)

    def _to_time(
        self, order: list[Removal], scores: np.ndarray, measure: Measure, *, begin: float, share: float
    ) -> Found:
        """Return what goes until a time is met: first each group is timed alone, then all together."""
        moves = moves_by_time(order, scores, lambda taken: measure(taken) + 1.0 - begin)
        return Search(moves, measure, begin=begin).run(self.options.time**share)

    def _scores(self, structure: Structure, model: TrainedModel, images: ImageSet | None) -> np.ndarray:
        if self._criterion == "taylor":
            assert images is not None
            return taylor_scores(structure, model, images, seed=self.options.seed)
        relative = weight_scores(structure, self._criterion, seed=self.options.seed)
        return worth(structure, relative, self._terms(structure))

    def _summary(self, before: TrainedModel, after: TrainedModel, images: ImageSet | None) -> tuple[str, ...]:
        """Return what went, and what could not."""
        first, macs = _counted(before.net, self.side, lambda structure: structure.macs)
        _, left = _counted(after.net, self.side, lambda structure: structure.macs)
        was, now = (float(sum(term.amount for term in terms)) for terms in (macs, left))
        numbers = before.net.count_params(), after.net.count_params()
        seen = f" on {images.count} images" if images is not None and self._criterion == "taylor" else ""
        went = (
            f"prune: {100 * (1 - now / was):.1f} % of the multiplications ({was / 1e6:.1f} to "
            f"{now / 1e6:.1f} million at {self.side} pixels) and "
            f"{100 * (1 - numbers[1] / numbers[0]):.1f} % of the parameters ({numbers[0]} to {numbers[1]}) "
            f"went, chosen by {self._criterion}{seen}"
        )
        stays = {name: why for name, why in first.fixed.items() if "output of the net" not in why}
        if not stays:
            return (went,)
        return (went, f"prune: {len(stays)} layers keep their width: {_reasons(stays)}")


def _repaired(
    before: TrainedModel,
    after: TrainedModel,
    structure: Structure,
    *,
    alive: np.ndarray,
    images: ImageSet,
    told: Callable[[int, int], None],
) -> str:
    """Fit what reads channels that went, or else take new statistics; return what says which."""
    why = "none reads what channels are gone from, or got better"
    try:
        fitted = repair(
            before.net, after.net, structure, alive=alive, images=images, image=before.image, told=told
        )
    except UnsupportedModel as error:
        fitted, why = 0, str(error)
    if fitted:
        return f"layers fitted to give what they gave before, without training: {fitted}"
    recalibrate(after.net, images, before.image)
    return f"statistics of batch normalisation were taken anew, no layer was fitted: {why}"


class _Told:
    """Says from time to time how far something is."""

    def __init__(self, what: str, progress: Callable[[str], None]) -> None:
        self._what = what
        self._progress = progress
        self._last_s = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= TOLD_EVERY_S:
            self._last_s = now_s
            self._progress(f"{self._what}: {done} of {of} calls of the net")


def _counted(
    net: object, side: int, terms: Callable[[Structure], tuple[Term, ...]]
) -> tuple[Structure, tuple[Term, ...]]:
    structure = structure_of(follow(net, side), net)
    return structure, terms(structure)


def _time_note(ratio: float, target: float, options: PruneSection, *, near: bool) -> str:
    text = f"{ratio:.3f} of the source's time remains on {options.engine}, one thread, {target:.3f} asked"
    if near:
        return text
    return (
        f"{text}: no widths in multiples of {options.multiple} come within {100 * NEAR:.0f} %; a smaller "
        "prune.multiple comes nearer"
    )


def _reasons(fixed: dict[str, str]) -> str:
    """Return why layers keep their width, the most frequent reasons first."""
    counts = Counter(fixed.values()).most_common(3)
    return "; ".join(f"{why} ({count})" if count > 1 else why for why, count in counts) or (
        "it has no layers whose channels are followed"
    )

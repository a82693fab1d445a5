"""What a new bundle has to show before it may answer in the place of an old one, and while it does."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from boardfit.errors import RecipeError, SwapRefused
from boardfit.runtime.inputs import taken_text
from boardfit.runtime.results import Result
from boardfit.runtime.selftest import golden_inputs, judge, recorded_answer
from boardfit.runtime.session import Session
from boardfit.specs import TensorSpec

WARM_LOOKS = 6
"""At each size, before the first frame; an isolated engine has a tight deadline from then on."""
SLOW_WINDOW = 9
NOTICEABLE_S = 0.005
"""A new bundle is never called slow for less than this."""
OUTCOMES = ("on trial", "kept", "rolled back", "refused")


@dataclass(frozen=True, slots=True)
class Trial:
    """How long a new bundle is on trial, and what it must not do.

    Attributes:
        frames: That it has to answer well before the old one is let go; 0 to let it go at once.
        max_slowdown: How many times the old one's inference time at its largest size it may take: the median
            of six looks before the switch, and of any nine frames after it. None for any time.
    """

    frames: int = 300
    max_slowdown: float | None = 4.0

    def __post_init__(self) -> None:
        if self.frames < 0:
            raise RecipeError(f"a trial of {self.frames} frames: expected 0 or more")
        if self.max_slowdown is not None and not self.max_slowdown > 0.0:
            raise RecipeError(f"max_slowdown is {self.max_slowdown!r}: expected a positive number or None")


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What became of a swap.

    Attributes:
        old: Content id of the bundle that answered before.
        new: Content id of the one that was to take over; empty where it could not be opened.
        outcome: ``on trial``, ``kept``, ``rolled back`` or ``refused``.
        reason: Why it was rolled back or refused; else empty.
        frames: That the new one answered so far.
        tested: Sizes in pixels at which it answered its golden frame as it should.
        time_ratio: Its inference time over the old one's, each at its largest size; None where it was not
            reached.
        prepared_s: Seconds that loading, testing and warming took, while the old one answered.
    """

    old: str
    new: str
    outcome: str
    reason: str = ""
    frames: int = 0
    tested: tuple[int, ...] = ()
    time_ratio: float | None = None
    prepared_s: float = 0.0

    def __post_init__(self) -> None:
        assert self.outcome in OUTCOMES


@dataclass(frozen=True, slots=True)
class Findings:
    """What was measured before the switch: sizes with a right golden answer, and times in seconds."""

    tested: tuple[int, ...]
    old_s: float
    new_s: float


def examine(new: Session, old: Session, trial: Trial) -> Findings:
    """Test and warm a session, beside the one that answers now.

    Args:
        new: The new one; where its bundle has no golden frame, a grey one warms the engine.
        old: That answers now; it is asked for a few looks, to compare times.
        trial: The slowdown allowed.

    Raises:
        SwapRefused: It answers its golden frame wrongly, with numbers that are none, with another number of
            scores than it has labels, or far slower than the old one.
        BundleError: A golden file is damaged.
        EngineError: An engine failed.
    """
    golden = new.bundle.golden_frame()
    frame = np.full((240, 320, 3), 127, np.uint8) if golden is None else golden
    inputs = golden_inputs(new.bundle, new.inputs[1:])
    if [_taken(spec) for spec in new.inputs[1:]] != [_taken(spec) for spec in old.inputs[1:]]:
        raise SwapRefused(
            f"the new bundle takes {taken_text(new.inputs[1:])}, the old one {taken_text(old.inputs[1:])}: "
            "who asks now gives other inputs than it wants"
        )
    tested: list[int] = []
    for size in new.sizes:
        result = new.look(frame, size, inputs=inputs)
        reason = fault_in(result)
        if reason:
            raise SwapRefused(f"at {size} pixels the new bundle's answer {reason}")
        if golden is not None and _answers_its_golden_frame(new, result):
            tested.append(size)
        for _ in range(WARM_LOOKS - 1):
            new.look(frame, size, inputs=inputs)
    pairs = [
        tuple(_seconds(each.look(frame, each.sizes[-1], inputs=inputs)) for each in (old, new))
        for _ in range(WARM_LOOKS)
    ]
    old_s, new_s = (median(column) for column in zip(*pairs, strict=True))
    if is_slow(new_s, old_s, trial.max_slowdown):
        raise SwapRefused(
            f"the new bundle takes {new_s * 1e3:.1f} ms, {new_s / old_s:.1f} times the old one's; "
            f"{trial.max_slowdown:g} are allowed"
        )
    return Findings(tuple(tested), old_s, new_s)


@dataclass(slots=True)
class Record:
    """How a new bundle does while it is on trial.

    Attributes:
        trial: What is demanded.
        old_s: The old one's inference time in seconds.
        frames: Answered so far.
        last_s: Inference times of the last frames in seconds.
    """

    trial: Trial
    old_s: float
    frames: int = 0
    last_s: deque[float] = field(default_factory=lambda: deque(maxlen=SLOW_WINDOW))

    def note(self, results: Sequence[Result]) -> None:
        """Remember good answers."""
        self.frames += len(results)
        self.last_s.extend(_seconds(result) for result in results)

    @property
    def passed(self) -> bool:
        """Whether the trial is over, and well."""
        return self.frames >= self.trial.frames

    @property
    def slowness(self) -> str:
        """Why it is too slow; empty where it is not."""
        if len(self.last_s) < SLOW_WINDOW:
            return ""
        now_s = median(self.last_s)
        if not is_slow(now_s, self.old_s, self.trial.max_slowdown):
            return ""
        return (
            f"its last {SLOW_WINDOW} frames took {now_s * 1e3:.1f} ms, the old one {self.old_s * 1e3:.1f} ms"
        )


def fault_in(result: Result) -> str:
    """Return what is wrong with an answer as such; empty where nothing is."""
    if not np.isfinite(result.scores).all() or any(np.isnan(array).any() for array in result.outputs):
        return "holds numbers that are not finite"
    if result.scores.size and len(result.labels) not in (0, result.scores.size):
        return f"has {result.scores.size} scores for {len(result.labels)} labels"
    return ""


def is_slow(new_s: float, old_s: float, max_slowdown: float | None) -> bool:
    """Return whether a time is far above another, and by enough to be noticed."""
    return max_slowdown is not None and new_s > max(max_slowdown * old_s, old_s + NOTICEABLE_S)


def _answers_its_golden_frame(new: Session, result: Result) -> bool:
    """Return True for a right answer and False where the bundle knows none.

    Raises:
        SwapRefused: The answer is wrong.
    """
    bundle, artifact = new.bundle, new.artifact(result.size)
    recorded = recorded_answer(bundle, artifact)
    if recorded is None and not bundle.golden_outputs(result.size):
        return False
    test = judge(
        bundle,
        artifact,
        engine=new.engine,
        size=result.size,
        outputs=result.outputs,
        recorded=recorded,
    )
    if not test.passed:
        raise SwapRefused(
            f"at {test.size} pixels the new bundle does not answer its golden frame as it should: error "
            f"{test.error:.2g}, cosine {test.cosine:.5f}"
        )
    return True


def let_go(session: Session) -> None:
    """Close a session, and give the memory that its engine has freed back to the machine.

    glibc keeps it else: 30 swaps of EfficientNet-Lite0 on ONNX Runtime then ended at 296 MB instead of 151.
    """
    session.close()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _taken(spec: TensorSpec) -> tuple[object, ...]:
    return (spec.name, "an image") if spec.layout else (spec.name, *spec.shape[1:])


def _seconds(result: Result) -> float:
    return result.timings.inference_s

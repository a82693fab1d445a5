"""Find the best setup for each size of a bundle on this board."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from boardfit._version import __version__
from boardfit.benchmarks.candidates import Field
from boardfit.benchmarks.halving import Runs, halve, rungs, survivors
from boardfit.benchmarks.journal import Journal
from boardfit.benchmarks.trial_bench import BURST, Meter, TrialBench
from boardfit.benchmarks.tuning import GOALS, Key, Trial, Tuning
from boardfit.benchmarks.validity import BUSY_SHARE
from boardfit.errors import RecipeError
from boardfit.runtime.choose import Setup
from boardfit.timing import Samples

if TYPE_CHECKING:
    from boardfit.bundle import Bundle

RUNS = 96
"""Of the last candidates of a size; 5 of them are above a 95th percentile."""
RUNGS = 5
TRIES = 3
"""So often a step is timed while other processes disturb it."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard to look.

    Attributes:
        goal: ``p95`` or ``energy``.
        runs: Timed runs of the last candidates of each size.
        exhaustive: Whether every candidate gets them all; to compare with.
        at_once: Setups that may be loaded together: those compare best.
    """

    goal: str = "p95"
    runs: int = RUNS
    exhaustive: bool = False
    at_once: int = 64

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise RecipeError(f"the goal is {self.goal!r}: expected one of {', '.join(GOALS)}")
        if self.runs < BURST:
            raise RecipeError(f"{self.runs} runs: expected at least {BURST}, which are timed in a row")
        if self.at_once < 1:
            raise RecipeError(f"{self.at_once} setups at once: expected at least 1")

    @property
    def rounds(self) -> tuple[int, ...]:
        """Rounds that each rung adds."""
        return rungs(round(self.runs / BURST), 1 if self.exhaustive else RUNGS)


def tune(
    bundle: Bundle,
    field: Field,
    *,
    key: Key,
    board: str,
    plan: Plan | None = None,
    journal: Journal | None = None,
    meter: Meter | None = None,
    progress: Progress = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
    busy_share: Callable[[], float | None] = lambda: None,
) -> Tuning:
    """Time the candidates of each size, and rank them.

    The winners of the single sizes are timed at the others too, so that one setup can be chosen for several.
    What other processes disturb is timed again: with a core taken, one thread is the best.

    Args:
        bundle: Open bundle.
        field: What to try.
        key: What the result will hold for.
        board: Name of the board's profile, for people.
        plan: How hard to look.
        journal: Keeps what is timed, and gives back what was timed before an interruption.
        meter: Runs a call for a while and returns joules per run; needed for the goal ``energy``.
        progress: Told after each step how far it is, and how long the rest takes.
        clock: Seconds.
        busy_share: Returns the share of the time of all the machine's cores, 0 to 1, that other processes
            took since it was last asked; None where that is not known.

    Raises:
        RecipeError: Every candidate for a size failed, or energy is asked for without a meter.
        BundleError: The bundle is damaged.
        ReportError: The journal cannot be written.
    """
    plan = plan or Plan()
    if plan.goal == "energy" and meter is None:
        raise RecipeError("this board does not tell its power: tune for p95")
    journal = journal or Journal(None, {})
    clerk = _Clerk(field, plan, progress)
    shares: dict[int, float] = dict.fromkeys(field.by_size, 0.0)
    had: dict[int, dict[Setup, Runs]] = {}
    used = meter if plan.goal == "energy" else None
    with TrialBench(bundle, tuple(field.by_size), at_once=plan.at_once, meter=used, clock=clock) as bench:

        def measure(size: int, step: int, setups: Sequence[Setup], rounds: int) -> Mapping[Setup, Runs]:
            timed = _known(journal, f"{size}/{step}", setups)
            fresh = timed is None
            if timed is None:
                say = partial(_say_again, progress, f"{size} pixels, step {step + 1}")
                timed = _timed(bench, size, setups, rounds, busy_share, say)
                _keep(journal, f"{size}/{step}", setups, timed)
            else:
                bench.failed += timed.failed
            shares[size] = max(shares[size], timed.busy_share)
            clerk.tell(size, step, rounds * len(setups), fresh=fresh)
            return timed.runs

        for size, setups in field.by_size.items():
            had[size] = halve(setups, plan.rounds, partial(measure, size))
            if not had[size]:
                raise RecipeError(f"every candidate for {size} failed: {'; '.join(bench.failed)}")
        _complete(had, lambda size, setups, rounds: measure(size, len(plan.rounds), setups, rounds))
        failed = tuple(bench.failed)
    trials = [_trial(size, setup, runs) for size, found in had.items() for setup, runs in found.items()]
    found = Tuning(
        key=key,
        bundle_name=bundle.manifest.name,
        bundle_id=bundle.content_id,
        board=board,
        goal=plan.goal,
        runs=BURST * sum(plan.rounds),
        trials=tuple(trials),
        left_out=(*field.left_out, *failed),
        disturbed=_disturbed(shares),
        boardfit=__version__,
        created_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    return replace(found, trials=tuple(trial for size in found.sizes for trial in found.ranked(size)))


def subject(bundle: Bundle, field: Field, key: Key, plan: Plan) -> dict[str, Any]:
    """Return what a journal must be of, to serve this tune; JSON values."""
    setups = {str(size): [setup.text for setup in setups] for size, setups in field.by_size.items()}
    how = [plan.goal, plan.runs, plan.exhaustive]
    return {"bundle": bundle.content_id, "key": asdict(key), "plan": how, "setups": setups}


def _complete(
    had: dict[int, dict[Setup, Runs]],
    measure: Callable[[int, Sequence[Setup], int], Mapping[Setup, Runs]],
) -> None:
    """Time the best setup of each size where it was given up early, in turn with the best of there."""
    best = {size: _best(found) for size, found in had.items()}
    for size, found in had.items():
        full = len(found[best[size]].values_s)
        late = [setup for setup in dict.fromkeys(best.values()) if setup in found]
        late = [setup for setup in late if 2 * len(found[setup].values_s) < full]
        if late:
            lacking = full // 2 - min(len(found[setup].values_s) for setup in late)
            for setup, runs in measure(size, [best[size], *late], -(-lacking // BURST)).items():
                found[setup] = runs.plus(found[setup])


def _best(found: Mapping[Setup, Runs]) -> Setup:
    return min(found, key=lambda setup: (-len(found[setup].values_s), found[setup].cost))


def _trial(size: int, setup: Setup, runs: Runs) -> Trial:
    samples = Samples(values_s=runs.values_s)
    return Trial(size, setup, len(runs.values_s), samples.p50_s, samples.p95_s, runs.energy_j)


@dataclass(frozen=True, slots=True)
class _Timed:
    """What a step found.

    Attributes:
        runs: Without the setups that failed.
        failed: One sentence for each of those.
        busy_share: Share of all cores' time that other processes took meanwhile; 0 where it is not known.
    """

    runs: Mapping[Setup, Runs]
    failed: tuple[str, ...]
    busy_share: float


def _timed(
    bench: TrialBench,
    size: int,
    setups: Sequence[Setup],
    rounds: int,
    busy_share: Callable[[], float | None],
    say_again: Callable[[float], None],
) -> _Timed:
    """Time a step until it was left alone, and return the try that was disturbed least.

    Setups that fail in a later try are in none.
    """
    before = len(bench.failed)
    tries: list[tuple[float, Mapping[Setup, Runs]]] = []
    left: Sequence[Setup] = setups
    while left and len(tries) < TRIES and not (tries and tries[-1][0] <= BUSY_SHARE):
        if tries:
            say_again(tries[-1][0])
        busy_share()
        found = bench.measure(size, left, rounds)
        tries.append((busy_share() or 0.0, found))
        left = tuple(found)
    share, best = min(tries, key=lambda each: each[0])
    return _Timed({setup: best[setup] for setup in left}, tuple(bench.failed[before:]), share)


def _say_again(progress: Progress, what: str, share: float) -> None:
    progress(f"{what}: other processes took {100 * share:.0f} % of all cores' time, timed again")


def _disturbed(shares: Mapping[int, float]) -> tuple[str, ...]:
    """Return a sentence for each size whose steps were disturbed in every try."""
    return tuple(
        f"{size} pixels: other processes took {100 * share:.0f} % of all cores' time while it was timed"
        for size, share in shares.items()
        if share > BUSY_SHARE
    )


def _known(journal: Journal, name: str, setups: Sequence[Setup]) -> _Timed | None:
    """Return what the journal has of a step; None where that has to be taken, or was disturbed."""
    by_text = {setup.text: setup for setup in setups}
    known = journal.get(name, list(by_text))
    if known is None or known["busy_share"] > BUSY_SHARE:
        return None
    runs = {
        by_text[text]: Runs(tuple(each["values_s"]), tuple(each["energies_j"]))
        for text, each in known["runs"].items()
    }
    return _Timed(runs, tuple(known["failed"]), known["busy_share"])


def _keep(journal: Journal, name: str, setups: Sequence[Setup], timed: _Timed) -> None:
    runs = {setup.text: asdict(each) for setup, each in timed.runs.items()}
    value = {"runs": runs, "failed": list(timed.failed), "busy_share": timed.busy_share}
    journal.put(name, [setup.text for setup in setups], value)


class _Clerk:
    """Knows how much is to be done, and says how long the rest takes."""

    def __init__(self, field: Field, plan: Plan, progress: Progress) -> None:
        self._progress = progress
        self._largest = max(field.by_size)
        self._due = 0.0
        self._done = 0.0
        self._start = time.monotonic()
        for size, setups in field.by_size.items():
            count = len(setups)
            for rounds in plan.rounds:
                self._due += self._weight(size, rounds * count)
                count = survivors(count)

    def tell(self, size: int, step: int, rounds: int, *, fresh: bool) -> None:
        """Say that so many rounds of a size are done, over all of a step's candidates.

        Args:
            size: Input side in pixels.
            step: Its number, from 0.
            rounds: Of all candidates together.
            fresh: Whether they were taken now, not found in the journal.
        """
        if not fresh:
            self._due -= self._weight(size, rounds)
            return
        self._done += self._weight(size, rounds)
        left_s = (time.monotonic() - self._start) * max(0.0, self._due / self._done - 1.0)
        self._progress(f"{size} pixels, step {step + 1}: done; about {left_s:.0f} s to go")

    def _weight(self, size: int, rounds: int) -> float:
        # Half of a round is the wait for others' pools, the rest grows with the pixels.
        return rounds * (1.0 + (size / self._largest) ** 2)

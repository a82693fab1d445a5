"""The loop: newest frame, answer, sinks, for months."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from boardfit.errors import BoardfitError, CameraError, EngineLost, RecipeError
from boardfit.runtime.camera.batch import Model, gains_by_batches
from boardfit.runtime.camera.gather import Gather
from boardfit.runtime.camera.lanes import Lanes
from boardfit.runtime.camera.records import Event, Frame
from boardfit.runtime.camera.service import Notifier
from boardfit.runtime.camera.sinks import Answer, Sink, SinkThread
from boardfit.runtime.camera.source import Source
from boardfit.runtime.camera.stats import Stats
from boardfit.runtime.policy.budget import Budget
from boardfit.runtime.policy.motion import Motion, MotionSettings
from boardfit.runtime.results import Result

SIZE_LIMIT = "size-limit"
FRAME_FAILED = "frame-failed"
_TICK_S = 0.1
_CLOSE_S = 0.5
"""For the frame under way and all sinks together: a service has a second to end in."""
_CLOSE_FILE_S = 60.0
"""For the sinks, where every frame of a file counts."""
_FINISH_S = 0.4
"""Of that, for what a sink has in hand and the end of its file: a film without it cannot be read."""
_LIVE_LANES, _FILE_LANES = 1, 2
"""Where every frame counts, one is prepared while another one has the engine. A camera's would grow old."""
_MOST_FAILURES = 10
"""Calls of the model in a row without an answer, after which the loop gives up."""


def loop(
    source: Source | Sequence[Source],
    model: Model,
    *,
    sinks: Sequence[Sink | Callable[[Answer], object]] = (),
    budget: Budget | None = None,
    motion: MotionSettings | None = None,
    batch: bool | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Loop:
    """Answer the newest frame, over and over.

    Capture, the answering of a frame, the loop's own body and the sinks overlap; of a file of which every
    frame counts, also the preprocessing of one frame and the inference of another. A camera's frames that
    come too fast are dropped and counted, never queued. It ends when the sources end, or ``stop`` is called,
    or it is left.

    Args:
        source: An open camera, or several, whose newest frames are taken in turn. With several cameras load
            the model with ``stream=False``: its memory of earlier frames would mix them up.
        model: Answers a frame, or with several cameras a list of frames. May be called from two threads,
            where a source is a file of which every frame counts.
        sinks: Take every answer, each in a thread of its own; a function of an Answer, or an object with
            ``write`` and ``close``.
        budget: Lowers the model's ``size_limit`` where time or heat demand it.
        motion: When the last answer is reused, since nothing moved; None for never.
        batch: Whether the frames of several cameras run as one batch; None to measure at the start.
        on_event: Called with every event of the sources and of the loop, from their threads.

    Returns:
        A Loop, to iterate over as (Frame, Result).

    Raises:
        CameraError: A source is in another loop already.
        RecipeError: There is no source, or the model has no ``size_limit`` for the budget.
    """
    sources = [source] if isinstance(source, Source) else list(source)
    return Loop(sources, model, sinks=sinks, budget=budget, motion=motion, batch=batch, on_event=on_event)


@dataclass(slots=True)
class _Outcome:
    """What became of one frame.

    Attributes:
        began_s: When it was taken.
        follows: Whether it was answered in one call with a frame before it.
    """

    frame: Frame
    began_s: float
    result: Result | None = None
    error: Exception | None = None
    reused: bool = False
    follows: bool = False


class Loop:
    """A running loop; made by ``loop``. Iterate over it once.

    Attributes:
        stats: Counts and times.
        hangs: Whether the model had not come back from a frame when the loop was closed; closing the model
            would wait for it.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        model: Model,
        *,
        sinks: Sequence[Sink | Callable[[Answer], object]],
        budget: Budget | None,
        motion: MotionSettings | None,
        batch: bool | None,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        if not sources:
            raise RecipeError("a loop without a source: expected at least one open camera")
        if len({source.name for source in sources}) < len(sources):
            raise RecipeError("two sources have one name: open them with name=..., so that answers differ")
        if budget is not None and not hasattr(model, "size_limit"):
            raise RecipeError("a budget needs a model with a size_limit, such as boardfit.load returns")
        self.stats = Stats()
        self.hangs = False
        self._sources = list(sources)
        self._model = model
        self._budget = budget
        self._motions = {source.name: Motion(motion) for source in sources} if motion else {}
        self._batch = batch
        self._on_event = on_event
        self._notifier = Notifier()
        self._failures = 0
        self._failing: set[str] = set()
        self._stopped = self._closed = False
        self._closing = threading.RLock()
        _claim_all(self._sources)
        self._live = all(source.live for source in sources)
        self._gather = Gather(sources)
        self._sinks = [SinkThread(sink, waits=self._waits, tell=self._tell) for sink in sinks]
        for source in sources:
            source.subscribe(self._tell)
        self._lanes = Lanes(
            self._take,
            self._answer,
            count=_LIVE_LANES if self._live else _FILE_LANES,
            is_over=lambda: self._gather.ended,
        )

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[Frame, Result]]:
        """Yield answers until the sources end or the loop is stopped; leaving the iteration closes the loop.

        Raises:
            BoardfitError: The model failed ten times in a row.
        """
        self._notifier.ready()
        try:
            while not self._closed:
                outcomes = self._lanes.next(_TICK_S)
                self._notify()
                if outcomes is None and self._lanes.over:
                    break
                for outcome in outcomes or ():
                    if self._deliver(outcome):
                        assert outcome.result is not None
                        yield outcome.frame, outcome.result
        finally:
            self.close()

    def stop(self) -> None:
        """End the iteration within a fraction of a second; may be called from a signal's handler.

        Sinks are then waited for as those of a camera are: what they cannot take in time is dropped, and
        counted.
        """
        self._stopped = True
        self._lanes.stop()

    def _waits(self) -> bool:
        """Return whether sinks are waited for."""
        return not (self._live or self._stopped)

    def close(self) -> None:
        """Stop, and let the sinks finish what they have. Sources and model stay open.

        Whoever calls it while another thread does waits for that one. A sink, which cannot wait for itself,
        only stops the loop: the end of the iteration closes it.
        """
        if any(sink.is_here for sink in self._sinks):
            if not self._closed:
                self.stop()
            return
        with self._closing:
            if not self._closed:
                self._closed = True
                self._close()

    def _close(self) -> None:
        waits, until = self._waits(), self._end_sinks()
        try:
            self.hangs = not self._lanes.join(_CLOSE_S)
            while (left_s := until - time.monotonic()) > 0.0:
                self._notify()  # the sinks of a file may take longer than the watchdog waits
                if all(sink.join(min(left_s, _TICK_S)) for sink in self._sinks):
                    break
                if waits and not self._waits():  # stop was called while the sinks of a file finish
                    waits, until = False, self._end_sinks()
        finally:
            for source in self._sources:
                source.release()
                source.unsubscribe(self._tell)

    def _end_sinks(self) -> float:
        """Have the sinks finish; return until when they are waited for."""
        close_s = _CLOSE_FILE_S if self._waits() else _CLOSE_S
        for sink in self._sinks:
            sink.end(close_s - _FINISH_S)
        return time.monotonic() + close_s

    @property
    def counters(self) -> Mapping[str, int]:
        """Counts of the sources together, of the loop, and of lost processes of the engine (since a swap)."""
        totals: dict[str, int] = {}
        for source in self._sources:
            for name, count in source.counters.items():
                totals[name] = totals.get(name, 0) + count
        stats = self.stats
        totals |= {"results": stats.results, "reused": stats.reused, "failed": stats.failed}
        totals["sinks_dropped"] = sum(sink.dropped for sink in self._sinks)
        isolation = getattr(self._model, "isolation", None)
        return totals if isolation is None else totals | {"engines_replaced": isolation.replaced}

    def _take(self, timeout_s: float, newer_within_s: float) -> list[Frame] | None:
        most = len(self._sources) if self._batch is not False else 1
        return self._gather.take(most, timeout_s, newer_within_s=newer_within_s) or None

    def _answer(self, frames: list[Frame]) -> list[_Outcome]:
        """Answer frames; the errors of each stay with it."""
        began = time.monotonic()
        outcomes = [_Outcome(frame, began) for frame in frames]
        for outcome in outcomes:
            self._reuse(outcome)
        due = [outcome for outcome in outcomes if outcome.result is None and outcome.error is None]
        if self._gains_together(due):
            self._run(due)
        else:
            for outcome in due:
                self._run([outcome])
        return outcomes

    def _gains_together(self, due: Sequence[_Outcome]) -> bool:
        if len(due) < 2:
            return False
        if self._batch is None:
            try:
                self._batch = gains_by_batches(self._model, [outcome.frame.image for outcome in due])
            except EngineLost:
                return False  # its replacement is measured, with the next frames
        return self._batch

    def _run(self, together: Sequence[_Outcome]) -> None:
        """Answer frames in one call."""
        images = [outcome.frame.image for outcome in together]
        try:
            results = self._model(images) if len(images) > 1 else [self._model(images[0])]
            for outcome, result in zip(together, results, strict=True):
                outcome.result = result
                if self._motions:
                    frame = outcome.frame
                    self._motions[frame.source].answered(frame.image, frame.time_s, result)
        except Exception as error:
            for outcome in together:
                outcome.error = error
                outcome.follows = outcome is not together[0]

    def _reuse(self, outcome: _Outcome) -> None:
        if self._motions:
            frame = outcome.frame
            try:
                outcome.result = self._motions[frame.source].reusable(frame.image, frame.time_s)
            except Exception as error:
                outcome.error = error
            outcome.reused = outcome.result is not None

    def _deliver(self, outcome: _Outcome) -> bool:
        """Count an outcome and hand it to the sinks; return whether there is an answer."""
        now = time.monotonic()
        frame, result = outcome.frame, outcome.result
        if result is None:
            self._fail(outcome, now)
            return False
        self._failures = 0
        self._failing.discard(frame.source)
        age_s = now - frame.time_s
        self.stats.add(
            result, reused=outcome.reused, wait_s=outcome.began_s - frame.time_s, age_s=age_s, now=now
        )
        if self._budget is not None and not outcome.reused:
            self._keep_budget(self._budget, result, now)
        answer = Answer(frame, result, age_s, outcome.reused)
        for sink in self._sinks:
            sink.put(answer)
        return True

    def _fail(self, outcome: _Outcome, now: float) -> None:
        error = outcome.error
        assert error is not None
        self.stats.failed += 1
        self._failures += not outcome.follows
        if not isinstance(error, BoardfitError) or self._failures >= _MOST_FAILURES:
            raise error
        source = outcome.frame.source
        if source not in self._failing:
            self._failing.add(source)
            self._tell(Event(FRAME_FAILED, now, source, str(error)))

    def _keep_budget(self, budget: Budget, result: Result, now: float) -> None:
        timings = result.timings
        spent_s = timings.entropy_s + timings.preprocess_s + timings.inference_s + timings.postprocess_s
        model: Any = self._model
        before = budget.limit
        sizes = tuple(getattr(model, "sizes", budget.sizes))
        if sizes != budget.sizes:  # of another bundle, after a swap
            budget.change_sizes(sizes)
        limit = budget.add(spent_s, result.size, now)
        if limit != before:
            model.size_limit = limit
            self._tell(Event(SIZE_LIMIT, now, "loop", f"{before} to {limit}: {budget.reason}"))

    def _notify(self) -> None:
        """Tell systemd that the loop moves; a model that hangs is none of that, nor a camera that is lost."""
        hangs_s = self._notifier.watchdog_s
        if hangs_s is None or any(source.is_lost for source in self._sources):
            return
        if self._lanes.longest_s() < hangs_s / 2.0:
            self._notifier.alive()

    def _tell(self, event: Event) -> None:
        log = logging.getLogger("boardfit")
        for sink in self._sinks:
            sink.put(event)
        if event.kind in (SIZE_LIMIT, FRAME_FAILED) or event.kind.startswith("sink"):
            log.warning("%s: %s, %s", event.source, event.kind, event.detail)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except (Exception, SystemExit):
                log.exception("a listener to the loop's events failed")


def _claim_all(sources: Sequence[Source]) -> None:
    """Claim all sources or none."""
    claimed: list[Source] = []
    try:
        for source in sources:
            source.claim()
            claimed.append(source)
    except CameraError:
        for source in claimed:
            source.release()
        raise

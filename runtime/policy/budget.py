"""A budget of time and heat: the largest input size that keeps the deadline, and the board cool."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from boardfit.errors import RecipeError
from boardfit.timing import percentile


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What must be kept.

    Attributes:
        fps: Frames that must be answered per second; None for any.
        max_temp_c: Temperature in degrees Celsius to stay below; None for any.
        frames: Frames that are judged together.
        up_s: Seconds of ease before the next larger size is tried; doubled each time that was too early.
        headroom: Share of the deadline that the next larger size may take, by its expected time.
        cool_c: Degrees below ``max_temp_c`` from which a larger size is tried again.
    """

    fps: float | None = None
    max_temp_c: float | None = None
    frames: int = 10
    up_s: float = 5.0
    headroom: float = 0.85
    cool_c: float = 4.0

    def __post_init__(self) -> None:
        if self.fps is not None and not 0.0 < self.fps <= 1000.0:
            raise RecipeError(f"fps is {self.fps}: expected more than 0, at most 1000")
        if self.max_temp_c is not None and not 0.0 < self.max_temp_c < 200.0:
            raise RecipeError(f"max_temp_c is {self.max_temp_c}: expected degrees Celsius, such as 75")
        if self.fps is None and self.max_temp_c is None:
            raise RecipeError("a budget without fps and max_temp_c limits nothing: give one of them")


class Budget:
    """Moves the largest allowed size down at once, up after a while of ease."""

    LONGEST_UP_S = 300.0
    EVERY_S = 1.0
    """Between two looks at the temperature, and two steps for its sake at least twice that."""

    def __init__(
        self,
        settings: BudgetSettings,
        sizes: Sequence[int],
        *,
        temperature_c: Callable[[], float | None] | None = None,
        throttled: Callable[[], bool] | None = None,
    ) -> None:
        """Begin at the largest size.

        Args:
            settings: What must be kept.
            sizes: Input sides in pixels, ascending.
            temperature_c: The board's temperature in degrees Celsius; None where it is not known.
            throttled: Whether the clock has been lowered for heat or want of power.

        Raises:
            RecipeError: There is a limit of temperature, but nobody who tells it.
        """
        if settings.max_temp_c is not None and temperature_c is None:
            raise RecipeError("max_temp_c needs temperature_c, a function that returns degrees Celsius")
        self.reason = ""
        self._settings = settings
        self._sizes = list(sizes)
        self._temperature_c = temperature_c
        self._throttled = throttled
        self._index = len(self._sizes) - 1
        self._recent: deque[float] = deque(maxlen=settings.frames)
        self._recent_at_any: deque[float] = deque(maxlen=settings.frames)
        self._times_s: dict[int, float] = {}
        self._easy_since: float | None = None
        self._up_s = settings.up_s
        self._went_up_at: float | None = None
        self._looked_at: float | None = None
        self._stepped_at: float | None = None
        self._hot = self._warm = False

    @property
    def limit(self) -> int:
        """The largest size that is allowed now."""
        return self._sizes[self._index]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that it moves among."""
        return tuple(self._sizes)

    def change_sizes(self, sizes: Sequence[int]) -> None:
        """Go on with the sizes of another model, from the largest one that the limit allows.

        Args:
            sizes: Input sides in pixels, ascending.
        """
        unlimited = self._index + 1 == len(self._sizes)
        within = bisect_right(sizes, self.limit)
        self._sizes = list(sizes)
        self._index = len(self._sizes) - 1 if unlimited else max(0, within - 1)
        self.reason = "the model has other sizes now"
        self._times_s.clear()
        self._begin_anew()

    def add(self, seconds: float, size: int, now: float) -> int:
        """Take one frame's time and return the largest size that is allowed from now on.

        Args:
            seconds: What its stages took together.
            size: Input side in pixels at which it was answered.
            now: Seconds, ascending.
        """
        if size <= self.limit:  # a larger one was under way when the limit fell
            self._recent_at_any.append(seconds)
        if size == self.limit:
            self._recent.append(seconds)
            self._times_s[size] = percentile(list(self._recent), 90)
        self._feel(now)
        if self._must_go_down(now):
            self._step(-1, now)
        elif self._may_go_up(now):
            self._step(+1, now)
        return self.limit

    def _feel(self, now: float) -> None:
        if self._looked_at is not None and now - self._looked_at < self.EVERY_S:
            return
        self._looked_at = now
        limit_c = self._settings.max_temp_c
        found_c = self._temperature_c() if self._temperature_c is not None and limit_c is not None else None
        throttled = self._throttled is not None and self._throttled()
        self._hot = throttled or (found_c is not None and limit_c is not None and found_c >= limit_c)
        self._warm = self._hot or (
            found_c is not None and limit_c is not None and found_c > limit_c - self._settings.cool_c
        )

    def _must_go_down(self, now: float) -> bool:
        if self._index == 0:
            return False
        if self._hot and (self._stepped_at is None or now - self._stepped_at >= 2.0 * self.EVERY_S):
            self.reason = "the board is hot, or its clock was lowered"
            return True
        if self._settings.fps is None:
            return False
        # One late frame in ten is a hiccup. Those of smaller sizes count too: a policy may choose no others.
        late = any(
            len(seconds) == self._settings.frames and percentile(list(seconds), 90) > 1.0 / self._settings.fps
            for seconds in (self._recent, self._recent_at_any)
        )
        if late:
            self.reason = f"{self._settings.fps:g} frames a second were missed"
        return late

    def _may_go_up(self, now: float) -> bool:
        if self._index + 1 == len(self._sizes) or self._warm or not self._fits(self._sizes[self._index + 1]):
            self._easy_since = None
            return False
        if self._easy_since is None:
            self._easy_since = now
        if now - self._easy_since < self._up_s:
            return False
        self.reason = "there is room for a larger size"
        return True

    def _fits(self, size: int) -> bool:
        """Return whether a larger size should keep the deadline: time is close to quadratic in the side."""
        if self._settings.fps is None:
            return True
        mine_s = self._times_s.get(self.limit)
        if mine_s is None or len(self._recent) < self._settings.frames:
            return False
        expected_s = mine_s * (size / self.limit) ** 2
        return expected_s < self._settings.headroom / self._settings.fps

    def _step(self, by: int, now: float) -> None:
        if by > 0:
            self._went_up_at = now
        elif self._went_up_at is not None and now - self._went_up_at < 2.0 * self._up_s:
            self._up_s = min(2.0 * self._up_s, self.LONGEST_UP_S)  # it was too early
        else:
            self._up_s = self._settings.up_s
        self._index += by
        self._stepped_at = now
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._recent.clear()
        self._recent_at_any.clear()
        self._easy_since = None

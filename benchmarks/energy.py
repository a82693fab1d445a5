"""What a run costs in joules, from a board's own power sensors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from statistics import mean

from boardfit.errors import EngineError

METER_S = 2.0
"""Sensors such as the INA3221 average over some milliseconds, and are asked at most some hundred times."""
EVERY_S = 0.02


def total_w(rails: Mapping[str, float]) -> float | None:
    """Return what a board takes in all, in watts; None where no rail tells.

    NVIDIA's boards have one rail through which everything comes (``VDD_IN``, ``POM_5V_IN``), and the others
    are parts of it. Elsewhere the rails stand side by side.

    Args:
        rails: Watts by name.
    """
    if not rails:
        return None
    whole = [watts for name, watts in rails.items() if name.upper().endswith("_IN")]
    return max(whole) if whole else sum(rails.values())


def energy_meter(
    power_w: Callable[[], float | None],
    *,
    duration_s: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[Callable[[], object]], float]:
    """Return a function that runs a call again and again, and returns joules per run.

    Args:
        power_w: Reads what the board takes now; None where it does not tell just now.
        duration_s: How long a call is run; None for ``METER_S``.
        clock: Seconds.
    """

    def meter(call: Callable[[], object]) -> float:
        watts: list[float] = []
        over = threading.Event()

        def watch() -> None:
            while True:
                found = power_w()
                if found is not None:
                    watts.append(found)
                if over.wait(EVERY_S):
                    return

        watcher = threading.Thread(target=watch, name="boardfit-power", daemon=True)
        watcher.start()
        lasting_s = METER_S if duration_s is None else duration_s
        runs, begin = 0, clock()
        try:
            while clock() < begin + lasting_s or runs == 0:
                call()
                runs += 1
        finally:
            spent_s = clock() - begin
            over.set()
            watcher.join()
        if not watts or mean(watts) <= 0.0:
            raise EngineError("the board's power sensor told nothing meanwhile: tune for p95")
        return mean(watts) * spent_s / runs

    return meter

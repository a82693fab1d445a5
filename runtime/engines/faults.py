"""What goes wrong with engines, on purpose: for tests of what must survive it."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import numpy as np

from boardfit.errors import EngineError

FAULTS = ("", "crash", "eat", "error", "hang", "nan", "slow", "stop")
SLOWER = 10.0
_EATEN_BYTES = 8 << 30
_BITE_BYTES = 64 << 20


def strike(fault: str, delay_s: float) -> None:
    """Let a run go wrong.

    Args:
        fault: ``crash`` reads from address 0, ``eat`` takes 8 GB of memory, ``error`` raises, ``hang`` never
            ends, ``slow`` takes ten times as long, ``stop`` is SIGSTOP; ``nan`` is left to the caller.
        delay_s: Seconds that a run takes.

    Raises:
        EngineError: For the fault of this name.
    """
    if fault == "crash":
        ctypes.string_at(0)
    elif fault == "eat":
        bites = [np.ones(_BITE_BYTES, np.uint8) for _ in range(_EATEN_BYTES // _BITE_BYTES)]
        del bites
    elif fault == "error":
        raise EngineError("the fake engine fails, as it was told to")
    elif fault == "hang":
        while True:
            pass
    elif fault == "slow":
        time.sleep((SLOWER - 1.0) * delay_s)
    elif fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)

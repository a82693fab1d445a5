"""What a look at each size, a change of size and an image entropy take: what policies are solved from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from boardfit.bundle import Bundle
from boardfit.errors import RecipeError
from boardfit.files import write_whole
from boardfit.runtime.choose import Setup
from boardfit.runtime.selftest import golden_or_grey
from boardfit.runtime.session import Session, load
from boardfit.specs import PolicySpec, classic_policy
from boardfit.timing import LEAD_IN_S, machine_name, time_paired

TIMES_SCHEMA = 1
TIME_ROUNDS = 25
TIME_BURST = 5
DEFAULT = Setup()


@dataclass(frozen=True, slots=True)
class Times:
    """What a look costs.

    Attributes:
        look_s: Seconds of one look at each size, in ascending order of the sizes: preprocessing,
            inference and decoding.
        switch_s: Seconds that a change of size costs on top.
        entropy_s: Seconds of one image entropy.
        two_look_switch_s: The same as ``switch_s`` under a two-look policy, for which some engines keep their
            sizes ready; None where that is no other number.
    """

    look_s: tuple[float, ...]
    switch_s: float = 0.0
    entropy_s: float = 0.0
    two_look_switch_s: float | None = None

    def __post_init__(self) -> None:
        extra = (self.switch_s, self.entropy_s, self.two_look_switch_s or 0.0)
        numbers = (*self.look_s, *extra)
        if not self.look_s or not np.isfinite(numbers).all() or min(self.look_s) <= 0.0 or min(extra) < 0.0:
            raise RecipeError(f"the times {self} make no sense: expected seconds, one look per size")

    def change_s(self, kind: str) -> float:
        """Return the seconds that a change of size costs under a kind of policy."""
        if kind == "two-look" and self.two_look_switch_s is not None:
            return self.two_look_switch_s
        return self.switch_s


@dataclass(frozen=True, slots=True)
class BoardTimes:
    """What a look costs on some machine, as it travels between machines.

    Attributes:
        machine: The machine's name.
        sizes: Input sides in pixels, in the order of ``times.look_s``.
        times: Seconds.
    """

    machine: str
    sizes: tuple[int, ...]
    times: Times

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "schema": TIMES_SCHEMA,
            "machine": self.machine,
            "sizes": list(self.sizes),
            **asdict(self.times),
        }

    @classmethod
    def from_dict(cls, data: object) -> BoardTimes:
        """Read the record back.

        Raises:
            RecipeError: It is no record of times.
        """
        try:
            if not isinstance(data, Mapping) or data["schema"] != TIMES_SCHEMA:
                raise ValueError(f"expected an object of schema {TIMES_SCHEMA}")
            two_look = data.get("two_look_switch_s")
            times = Times(
                look_s=tuple(float(value) for value in data["look_s"]),
                switch_s=float(data["switch_s"]),
                entropy_s=float(data["entropy_s"]),
                two_look_switch_s=None if two_look is None else float(two_look),
            )
            return cls(machine=str(data["machine"]), sizes=tuple(map(int, data["sizes"])), times=times)
        except (KeyError, TypeError, ValueError) as error:
            raise RecipeError(
                f"the times cannot be used ({error}): write them on the board with "
                "boardfit fit BUNDLE --save-times FILE"
            ) from error


def measure_board(bundle: Bundle, *, setup: Setup = DEFAULT) -> BoardTimes:
    """Time this machine; see ``measure_times``."""
    return BoardTimes(
        machine=machine_name(), sizes=bundle.manifest.sizes, times=measure_times(bundle, setup=setup)
    )


def save_times(path: Path, board: BoardTimes) -> None:
    """Write a file of times.

    Raises:
        RecipeError: It cannot be written.
    """
    try:
        write_whole(path, (json.dumps(board.to_dict(), indent=2) + "\n").encode())
    except OSError as error:
        raise RecipeError(f"cannot write {path}: {error.strerror}") from error


def load_times(path: Path) -> BoardTimes:
    """Read a file of times.

    Raises:
        RecipeError: The file cannot be read, or is no record of times.
    """
    try:
        return BoardTimes.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecipeError(f"cannot read the times in {path}: {error}") from error


def measure_times(
    bundle: Bundle,
    *,
    setup: Setup = DEFAULT,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time one look at each size, a change of size, and one image entropy, on this machine.

    The frame is the golden one, or grey.

    Args:
        bundle: Open bundle.
        setup: Engine, precision, threads and cores; what it leaves open, ``load`` chooses.
        clock: Seconds. With one thread, ``time.process_time`` is disturbed least by what else runs.
    """
    from boardfit.runtime.entropy import entropy_bits

    sizes = bundle.manifest.sizes
    frame = golden_or_grey(bundle)
    sessions = {size: open_setup(bundle, setup, size=size) for size in sizes}
    try:
        calls: dict[str, Callable[[], object]] = {
            str(size): partial(session, frame) for size, session in sessions.items()
        }
        timed = time_paired(
            {**calls, "entropy": partial(entropy_bits, frame)},
            rounds=TIME_ROUNDS // TIME_BURST,
            lead_in_s=LEAD_IN_S,
            burst=TIME_BURST,
            clock=clock,
        )
    finally:
        for session in sessions.values():
            session.close()
    switches: dict[str, float] = {}
    if len(sizes) > 1:
        for kind in ("entropy", "two-look") if has_certainty(bundle) else ("entropy",):
            with open_setup(bundle, setup, policy=classic_policy(kind, sizes)) as session:
                switches[kind] = size_change_s(session, frame, (sizes[0], sizes[-1]), clock=clock)
    return Times(
        look_s=tuple(timed[str(size)].p50_s for size in sizes),
        switch_s=switches.get("entropy", 0.0),
        entropy_s=timed["entropy"].p50_s,
        two_look_switch_s=switches.get("two-look"),
    )


def open_setup(
    bundle: Bundle, setup: Setup, *, size: int | None = None, policy: PolicySpec | None = None
) -> Session:
    """Load a bundle under a setup; see ``load``."""
    return load(
        bundle,
        engine=setup.engine,
        precision=setup.precision,
        threads=setup.threads,
        affinity=setup.affinity,
        size=size,
        policy=policy,
    )


def has_certainty(bundle: Bundle) -> bool:
    """Return whether some answers are more certain than others: the output is no bare number."""
    return bundle.manifest.artifacts[0].outputs[0].activation != "none"


def size_change_s(
    session: Session,
    frame: np.ndarray,
    sizes: tuple[int, int],
    *,
    rounds: int = 2 * TIME_ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return what a look costs more, in seconds, when the look before had another size.

    The median over pairs of looks at one size, the first of which follows a look at the other.

    Args:
        session: Over both sizes.
        frame: HxWx3 uint8 BGR.
        sizes: Two input sides in pixels.
        rounds: Pairs, half of them at each size.
        clock: Seconds.
    """
    extra = []
    for number in range(rounds):
        size, other = sizes if number % 2 else sizes[::-1]
        session.look(frame, other)
        begin = clock()
        session.look(frame, size)
        changed = clock()
        session.look(frame, size)
        extra.append((changed - begin) - (clock() - changed))
    return max(0.0, median(extra))

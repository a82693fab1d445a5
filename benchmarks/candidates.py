"""Which setups are worth trying on a board: what is installed, and what the bundle's own proofs admit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.errors import BoardfitError, EngineMissing, RecipeError
from boardfit.runtime.affinity import check_cores
from boardfit.runtime.choose import Choice, Setup, choose_engine, precisions_of
from boardfit.runtime.engines import Engine, engine_classes, find_engine, is_by_name_only, is_installed
from boardfit.specs import Artifact

if TYPE_CHECKING:
    from boardfit.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user restricts; None leaves it open.

    Attributes:
        engines: Names; also ones that are never chosen by default, and variants.
        precisions: Taken as they are named, whatever the bundle's proofs say.
        threads: Numbers of threads.
        affinities: Sets of cores that an engine may be bound to; an empty one leaves it free.
        sizes: Input sides in pixels.
    """

    engines: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    threads: tuple[int, ...] | None = None
    affinities: tuple[tuple[int, ...], ...] | None = None
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and (not self.threads or min(self.threads) < 1):
            raise RecipeError(f"threads are {list(self.threads)}: expected numbers of at least 1")
        for cores in self.affinities or ():
            if cores:
                check_cores(cores)


@dataclass(frozen=True, slots=True)
class Field:
    """What will be tried.

    Attributes:
        by_size: Setups by input side in pixels; every size has some.
        left_out: What will not be tried, with the reason.
    """

    by_size: Mapping[int, tuple[Setup, ...]]
    left_out: tuple[str, ...]

    @property
    def setups(self) -> tuple[Setup, ...]:
        """Every setup once."""
        return tuple(dict.fromkeys(setup for setups in self.by_size.values() for setup in setups))


def candidates(bundle: Bundle, wish: Wish, *, cores: int, groups: Sequence[tuple[int, ...]] = ()) -> Field:
    """Return what is worth trying.

    Args:
        bundle: Open bundle.
        wish: What the user restricts.
        cores: That this process may use.
        groups: Cores of each kind, where there is more than one kind, as on big.LITTLE processors.

    Raises:
        EngineMissing: No engine that may be tried is installed, or one is wished for that does not exist.
        RecipeError: Nothing is left, or a size is not in the bundle.
    """
    sizes = _sizes(bundle, wish)
    left_out: list[str] = []
    kept: dict[int, list[Setup]] = {size: [] for size in sizes}
    choices = list(_choices(bundle, wish, left_out))
    plans = _thread_plans(wish, cores, groups)
    for choice, size in product(choices, sizes):
        if size not in choice.sizes:
            continue
        reason = _reason_against(bundle, choice, size, wish)
        if reason:
            left_out.append(f"{choice.name} {choice.precision} at {size}: {reason}")
            continue
        kept[size] += [Setup(choice.name, choice.precision, threads, affinity) for affinity, threads in plans]
    for size, setups in kept.items():
        if not setups:
            reasons = "; ".join(left_out) or "nothing in the bundle serves it"
            missing = any("not installed" in reason for reason in left_out) and not choices
            raise (EngineMissing if missing else RecipeError)(f"nothing can be tried at {size}: {reasons}")
    return Field({size: tuple(setups) for size, setups in kept.items()}, tuple(left_out))


def core_groups(cpus: Path = Path("/sys/devices/system/cpu")) -> tuple[tuple[int, ...], ...]:
    """Return the cores of each kind, the fastest kind first; empty where all are of one kind.

    Linux tells a core's ``cpu_capacity`` on ARM, and nearly everywhere its highest clock.

    Args:
        cpus: The folder of the kernel's cores.
    """
    import os

    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    kinds: dict[int, list[int]] = {}
    for core in sorted(usable):
        for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
            try:
                kinds.setdefault(int((cpus / f"cpu{core}" / name).read_text()), []).append(core)
                break
            except (OSError, ValueError):
                continue
        else:
            return ()  # One core does not tell: no kinds are known.
    if len(kinds) < 2:
        return ()
    return tuple(tuple(kinds[kind]) for kind in sorted(kinds, reverse=True))


def _sizes(bundle: Bundle, wish: Wish) -> tuple[int, ...]:
    known = bundle.manifest.sizes
    unknown = sorted(set(wish.sizes or ()) - set(known))
    if unknown:
        raise RecipeError(f"the bundle answers at {list(known)} pixels, not at {unknown}: choose among these")
    return tuple(sorted(wish.sizes or known))


def _choices(bundle: Bundle, wish: Wish, left_out: list[str]) -> Iterable[Choice]:
    """Yield engines with precisions; note what falls out."""
    artifacts = bundle.manifest.artifacts
    for name, engine in _engines(artifacts, wish):
        if not is_installed(engine):
            libraries = " or ".join(getattr(engine, "libraries", ())) or "its library"
            left_out.append(f"{name}: {libraries} is not installed")
            continue
        for precision in wish.precisions or precisions_of(engine, artifacts):
            try:
                yield choose_engine(artifacts, engine=name, precision=precision)
            except BoardfitError as error:
                left_out.append(f"{name} {precision}: {error}")


def _engines(artifacts: Sequence[Artifact], wish: Wish) -> Iterable[tuple[str, type[Engine]]]:
    formats = {artifact.format for artifact in artifacts}
    if wish.engines is None:
        for name, engine in sorted(engine_classes().items()):
            if formats & set(engine.formats) and not is_by_name_only(engine):
                yield name, engine
        return
    for name in dict.fromkeys(wish.engines):
        yield name, find_engine(name)


def _thread_plans(
    wish: Wish, cores: int, groups: Sequence[tuple[int, ...]]
) -> list[tuple[tuple[int, ...], int]]:
    """Return pairs of cores to be bound to and a number of threads, which is never more than there are."""
    plans = []
    for affinity in wish.affinities if wish.affinities is not None else ((), *groups):
        most = len(affinity) or cores
        if wish.threads is not None:
            counts = {count for count in wish.threads if not affinity or count <= most}
        else:
            powers = {1 << bit for bit in range(most.bit_length())}
            counts = {*powers, most, *(len(group) for group in groups if len(group) <= most)}
        plans += [(affinity, count) for count in sorted(counts)]
    if not plans:
        raise RecipeError(
            f"no number of threads among {list(wish.threads or ())} fits on the cores {wish.affinities}"
        )
    return plans


def _reason_against(bundle: Bundle, choice: Choice, size: int, wish: Wish) -> str:
    """Return why an artifact may not answer at a size; empty where the bundle's own proofs admit it.

    The most exact precision of a format is what runs without a tuning, so it needs no proof here.
    """
    ranked = precisions_of(choice.engine, bundle.manifest.artifacts)
    if wish.precisions is not None or choice.precision == ranked[0]:
        return ""
    artifact = choice.artifact_for(size)
    measured = bundle.measurements or {}
    section = measured.get("quantized")
    rows = section.get("artifacts") if isinstance(section, Mapping) else None
    row = _row(rows, artifact.name, size)
    if row is not None:
        verdict = row.get("verdict")
        passed = isinstance(verdict, Mapping) and verdict.get("passed") is True
        return "" if passed else "the bundle's gate refused it"
    row = _row(measured.get("parity"), artifact.name, size)
    if row is None:
        return f"the bundle does not say how exact it is; name it with --precision {choice.precision}"
    return "" if row.get("fault") in ("", None) else f"its parity is faulty ({row['fault']})"


def _row(rows: Any, artifact: str, size: int) -> Mapping[str, Any] | None:
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and (row.get("artifact"), row.get("size")) == (artifact, size):
            return row
    return None

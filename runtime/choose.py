"""What a session will use: engine, precision, artifacts, policy, threads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from boardfit.errors import EngineMissing, RecipeError
from boardfit.runtime.engines import Engine, engine_classes, find_engine, is_by_name_only, is_installed
from boardfit.runtime.policy.two_look import NO_CERTAINTY
from boardfit.specs import MIXED, POLICY_KINDS, PRECISIONS, Artifact, PolicySpec, classic_policy
from boardfit.timing import usable_cores

# By the time that one frame takes with a few threads; other engines follow by name, fakes never lead.
_PREFERRED = ("litert", "tflite", "onnxruntime", "ncnn")


@dataclass(frozen=True, slots=True)
class Setup:
    """How a bundle is run; what is None is left to the runtime.

    Attributes:
        engine: Its name.
        precision: Of the artifacts.
        threads: Of the engine.
        affinity: Cores that the engine is bound to; empty for all.
    """

    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    affinity: tuple[int, ...] | None = None

    @property
    def text(self) -> str:
        """For people: ``onnxruntime fp16, 2 threads on cores 2 3``."""
        words = [self.engine or "any engine", self.precision or ""]
        text = " ".join(filter(None, words))
        if self.threads is not None:
            text += f", {self.threads} thread{'' if self.threads == 1 else 's'}"
        if self.affinity:
            text += f" on core{'' if len(self.affinity) == 1 else 's'} {' '.join(map(str, self.affinity))}"
        return text

    def fits(self, asked: Setup) -> bool:
        """Return whether nothing that is asked for is otherwise here."""
        pairs = (
            (asked.engine, self.engine),
            (asked.precision, self.precision),
            (asked.threads, self.threads),
            (asked.affinity, self.affinity),
        )
        return all(wanted is None or wanted == mine for wanted, mine in pairs)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """An engine and the artifacts that it will run.

    Attributes:
        name: Of the engine.
        engine: Its class.
        precision: Of the artifacts.
        artifacts: All of one format and precision, but for int8's stand-ins.
        cores: That the engine is bound to; empty for all.
    """

    name: str
    engine: type[Engine]
    precision: str
    artifacts: tuple[Artifact, ...]
    cores: tuple[int, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Input sides in pixels that the artifacts serve, ascending."""
        return tuple(sorted({size for artifact in self.artifacts for size in artifact.sizes}))

    def artifact_for(self, size: int) -> Artifact:
        """Return the first artifact that serves a size, which must be one of ``sizes``."""
        return next(artifact for artifact in self.artifacts if size in artifact.sizes)


def default_threads(cores: Sequence[int] = ()) -> int:
    """Return the number of usable cores, at most 4: more gains little on one small image.

    Args:
        cores: The ones that the engine is bound to, if it is.
    """
    return min(4, len(cores) or usable_cores())


def choose_engine(
    artifacts: Sequence[Artifact], *, engine: str | None = None, precision: str | None = None
) -> Choice:
    """Choose an engine whose library is installed and the artifacts that it runs.

    Args:
        artifacts: All that the bundle has.
        engine: A name, or None for the first that serves.
        precision: ``fp32``, ``fp16``, ``int8`` and so on, or None for fp32 where there is one. Where a
            size did not survive int8, its ``mixed`` or ``fp16`` file stands in, which is logged.

    Raises:
        EngineMissing: If the named engine, or every possible one, is not installed.
        RecipeError: If the bundle has no artifact of the engine's formats, or of the precision.
    """
    if engine is None:
        formats = {artifact.format for artifact in artifacts if artifact.precision == precision}
        precise = tuple(artifact for artifact in artifacts if artifact.format in formats)
        return _first_installed(precise or artifacts, precision)
    found = find_engine(engine)
    mine = _artifacts_for(found, artifacts)
    if not mine:
        raise RecipeError(
            f"engine {engine!r} runs {', '.join(found.formats)}, but the bundle has "
            f"{_formats(artifacts)} only: choose an engine for these, or build with --formats"
        )
    return _choice(engine, found, mine, precision)


def precisions_of(engine: type[Engine], artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    """Return the precisions of those artifacts that an engine runs, the most exact first."""
    found = {artifact.precision for artifact in artifacts if artifact.format in engine.formats}
    return tuple(sorted(found, key=_precision_rank))


def choose_policy(
    own: PolicySpec, *, policy: str | PolicySpec | None, size: int | None, choice: Choice
) -> PolicySpec:
    """Choose how sizes are chosen.

    Args:
        own: The bundle's policy.
        policy: A kind, a whole spec, or None for the bundle's own. A kind that is not the bundle's own
            takes all sizes that are served and the classic thresholds.
        size: The one side to use, or None.
        choice: The artifacts to use.

    Raises:
        RecipeError: If the options contradict each other, a size is not served, or two-look meets an
            output whose numbers are no probabilities.
    """
    served = choice.sizes
    if size is not None:
        if policy not in (None, "fixed"):
            raise RecipeError(f"size={size} means one fixed size: leave out either it or policy={policy!r}")
        own = PolicySpec(kind="fixed", sizes=(size,)) if size in served else own
    elif isinstance(policy, PolicySpec):
        own = policy
    elif policy is not None and policy != own.kind:
        if policy not in POLICY_KINDS:
            raise RecipeError(f"there is no policy {policy!r}: expected one of {', '.join(POLICY_KINDS)}")
        own = replace(classic_policy(policy, served), hysteresis_bits=own.hysteresis_bits)
    wanted = (size,) if size is not None else own.sizes
    lacking = [side for side in wanted if side not in served]
    if lacking:
        raise RecipeError(
            f"the bundle's files for this engine and precision serve {', '.join(map(str, served))} pixels, "
            f"not {', '.join(map(str, lacking))}: choose a size among these, or build with --sizes"
        )
    if own.kind == "two-look" and choice.artifacts[0].outputs[0].activation == "none":
        raise RecipeError(NO_CERTAINTY)
    return own


def _first_installed(artifacts: Sequence[Artifact], precision: str | None) -> Choice:
    """Choose the best engine that is installed, and say aloud which ones were passed over."""
    absent: list[str] = []
    for name, found in _ranked(engine_classes(), artifacts).items():
        if not is_installed(found):
            absent.append(f"{name} ({' or '.join(getattr(found, 'libraries', ()))})")
            continue
        choice = _choice(name, found, _artifacts_for(found, artifacts), precision)
        if absent:
            logging.getLogger("boardfit").warning(
                "falling back to engine %s, since the library of %s is not installed",
                name,
                " and ".join(absent),
            )
        return choice
    if not absent:
        raise EngineMissing(f"no registered engine runs the bundle's formats ({_formats(artifacts)})")
    raise EngineMissing(
        f"the bundle has {_formats(artifacts)}, but no engine for it is installed: {', '.join(absent)}. "
        f"One of these serves: pip install 'boardfit[litert]', 'boardfit[onnx]' or 'boardfit[ncnn]'"
    )


def _ranked(engines: dict[str, type[Engine]], artifacts: Sequence[Artifact]) -> dict[str, type[Engine]]:
    """Return the engines that run one of the artifacts, best first."""

    def rank(name: str) -> tuple[int, str]:
        return (_PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED), name)

    return {
        name: engines[name]
        for name in sorted(engines, key=rank)
        if _artifacts_for(engines[name], artifacts) and not is_by_name_only(engines[name])
    }


def _artifacts_for(engine: type[Engine], artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    return tuple(artifact for artifact in artifacts if artifact.format in engine.formats)


def _choice(name: str, engine: type[Engine], mine: tuple[Artifact, ...], precision: str | None) -> Choice:
    have = precisions_of(engine, mine)
    wanted = precision or have[0]
    if wanted not in have:
        raise RecipeError(
            f"the bundle's {_formats(mine)} files are {' and '.join(have)}, not {wanted}: choose one of "
            f"these, or build with --precisions {wanted}"
        )
    same = [artifact for artifact in mine if artifact.precision == wanted]
    # An engine may run several formats: one of them is enough, the one that comes first.
    same = [artifact for artifact in same if artifact.format == same[0].format]
    if wanted == "int8":
        same += _stand_ins(same, [artifact for artifact in mine if artifact.format == same[0].format])
    return Choice(name, engine, wanted, tuple(same))


def _stand_ins(chosen: Sequence[Artifact], mine: Sequence[Artifact]) -> list[Artifact]:
    """Return what serves the sizes at which the build could not keep int8, and say so."""
    served = {size for artifact in chosen for size in artifact.sizes}
    found = []
    for precision in (MIXED, "fp16"):
        for artifact in mine:
            fresh = set(artifact.sizes) - served
            if artifact.precision == precision and fresh:
                found.append(artifact)
                served |= fresh
                logging.getLogger("boardfit").warning(
                    "there is no int8 file for %s pixels: %s stands in",
                    ", ".join(map(str, sorted(fresh))),
                    artifact.name,
                )
    return found


def _precision_rank(precision: str) -> tuple[int, str]:
    return (PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS), precision)


def _formats(artifacts: Sequence[Artifact]) -> str:
    return ", ".join(sorted({artifact.format for artifact in artifacts}))

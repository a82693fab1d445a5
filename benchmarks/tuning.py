"""What ``boardfit tune`` found on a board, and where that is kept for ``boardfit.load``."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardfit.errors import EngineMissing, ReportError
from boardfit.runtime.choose import Setup
from boardfit.runtime.engines import engine_version, find_engine, is_installed
from boardfit.timing import machine_name

if TYPE_CHECKING:
    from boardfit.bundle import Manifest

TUNING_SCHEMA = 20261130
"""The day on which the form of a tuning last changed."""

GOALS = ("p95", "energy")
MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Trial:
    """What one setup took at one size.

    Attributes:
        size: Input side in pixels.
        setup: Engine, precision, threads and cores; nothing in it is None.
        runs: Timed runs; those that were given up early have fewer.
        p50_s: From frame to answer.
        p95_s: The same.
        energy_j: For one frame; None where no probe told.
    """

    size: int
    setup: Setup
    runs: int
    p50_s: float
    p95_s: float
    energy_j: float | None = None

    def __post_init__(self) -> None:
        setup = self.setup
        texts = (setup.engine, setup.precision)
        counts = (self.size, self.runs, setup.threads)
        whole = all(isinstance(text, str) and text for text in texts) and all(
            type(count) is int and count > 0 for count in counts
        )
        if not whole or setup.affinity is None or any(type(core) is not int for core in setup.affinity):
            raise ReportError(f"a trial of {setup} at {self.size!r}, {self.runs!r} runs: expected all of it")
        costs = (self.p50_s, self.p95_s, *(() if self.energy_j is None else (self.energy_j,)))
        if not all(math.isfinite(cost) and cost > 0.0 for cost in costs):
            raise ReportError(f"{self.setup.text} at {self.size} took {costs}: expected numbers above 0")

    def cost(self, goal: str) -> float:
        """Return what is to be small: seconds for ``p95``, joules for ``energy`` where those are known."""
        if goal == "energy" and self.energy_j is not None:
            return self.energy_j
        return self.p95_s

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """Read the record back from JSON values."""
        setup = data["setup"]
        return cls(**{**data, "setup": Setup(**{**setup, "affinity": tuple(setup["affinity"])})})


@dataclass(frozen=True, slots=True)
class Key:
    """What a tuning is of; where any of it differs, it says nothing.

    Attributes:
        models_id: Of the bundle's models; see ``models_id``.
        machine: What the board calls itself, its processor, its usable cores; see ``machine_here``.
        versions: Of the engines' libraries that were tried, by engine.
    """

    models_id: str
    machine: str
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        words = (self.models_id, self.machine, *self.versions, *self.versions.values())
        if not all(isinstance(word, str) for word in words):
            raise ReportError(f"the key of a tuning is {words}: expected text alone")

    def differs_from(self, here: Key) -> str:
        """Return in words why what was found under this key does not hold here; empty where it does."""
        if self.models_id != here.models_id:
            return f"it is of other models ({self.models_id[:12]}, the bundle's are {here.models_id[:12]})"
        if self.machine != here.machine:
            return f"it is of {self.machine}, this is {here.machine}"
        for engine, version in self.versions.items():
            found = here.versions.get(engine)
            if found != version:
                return f"{engine} was {version or 'of no version'}, and now is {found or 'not installed'}"
        return ""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The record that ``tuning.json`` holds.

    Attributes:
        key: What it is of.
        bundle_name: For people.
        bundle_id: Content id of the bundle that was tuned. It may have another policy now.
        board: Name of the board's profile, for people.
        goal: ``p95`` or ``energy``.
        runs: Timed runs that the last candidates of each size had at least.
        trials: By size, and there the best first.
        left_out: What was not tried, with the reason.
        disturbed: One sentence for each size that other processes disturbed in every try.
        boardfit: Version that measured.
        created_utc: ISO 8601.
    """

    key: Key
    bundle_name: str
    bundle_id: str
    board: str
    goal: str
    runs: int
    trials: tuple[Trial, ...]
    left_out: tuple[str, ...]
    disturbed: tuple[str, ...]
    boardfit: str
    created_utc: str

    def __post_init__(self) -> None:
        if self.goal not in GOALS or not self.trials or type(self.runs) is not int or self.runs < 1:
            raise ReportError(f"a tuning for {self.goal!r} of {len(self.trials)} trials, {self.runs!r} runs")
        engines = {str(trial.setup.engine) for trial in self.trials}
        if not engines <= set(self.key.versions):
            raise ReportError(f"it tells no version of {', '.join(engines - set(self.key.versions))}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Input sides in pixels that were tuned, ascending."""
        return tuple(sorted({trial.size for trial in self.trials}))

    def best(self, size: int) -> Trial:
        """Return the best setup for one size, which must be one of ``sizes``."""
        return self.ranked(size)[0]

    def ranked(self, size: int) -> list[Trial]:
        """Return the trials of one size, best first: what was given up early stands behind the others."""
        mine = [trial for trial in self.trials if trial.size == size]
        return sorted(mine, key=lambda trial: (-min(trial.runs, self.runs), trial.cost(self.goal)))

    def choose(self, sizes: Iterable[int], asked: Setup | None = None) -> Setup | None:
        """Return the setup that serves several sizes best.

        A session has one setup for all its sizes. Where no setup is the best at each of them, the one that
        loses least against the best of each, by the geometric mean of the ratios.

        Args:
            sizes: Input sides in pixels that the session will use.
            asked: What must not be otherwise.

        Returns:
            None where nothing that fits was tried at all of the sizes.
        """
        wanted = sorted(set(sizes))
        if not wanted or not set(wanted) <= set(self.sizes):
            return None
        rows: dict[Setup, list[Trial]] = {}
        for trial in self.trials:
            if trial.size in wanted and trial.setup.fits(asked or Setup()):
                rows.setdefault(trial.setup, []).append(trial)
        least = {size: self.best(size).cost(self.goal) for size in wanted}

        def rank(setup: Setup) -> tuple[int, float]:
            loss = sum(math.log(trial.cost(self.goal) / least[trial.size]) for trial in rows[setup])
            # The best of one size has half of the runs at least at the others.
            return -min(min(trial.runs, self.runs // 2) for trial in rows[setup]), loss

        whole = [setup for setup, trials in rows.items() if len(trials) == len(wanted)]
        return min(whole, key=rank, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {"schema": TUNING_SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, data: object) -> Tuning:
        """Read a tuning back from JSON values.

        Raises:
            ReportError: It is no tuning, damaged, or one of another schema.
        """
        if not isinstance(data, Mapping) or "schema" not in data:
            raise ReportError("not a tuning: expected what boardfit tune writes")
        if data["schema"] != TUNING_SCHEMA:
            raise ReportError(
                f"a tuning of schema {data['schema']!r}, but this boardfit reads {TUNING_SCHEMA}: tune again"
            )
        try:
            found = {name: value for name, value in data.items() if name != "schema"}
            found["key"] = Key(**found["key"])
            found["trials"] = tuple(Trial.from_dict(trial) for trial in found["trials"])
            found["left_out"] = tuple(found["left_out"])
            found["disturbed"] = tuple(found["disturbed"])
            if set(found) != {item.name for item in fields(cls)}:
                raise ValueError(f"it has the fields {sorted(found)}")
            return cls(**found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReportError(f"a damaged tuning ({error}): tune again") from error


def models_id(manifest: Manifest) -> str:
    """Return a SHA-256 in hex over what a bundle's speed hangs on: its models and how frames enter them.

    Not its policy, which is solved again from what a tuning measured, nor its labels and signatures.
    """
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    facts = {
        "image": manifest.image.to_dict(),
        "artifacts": [artifact.to_dict() for artifact in manifest.artifacts],
        "files": {path: digests[path] for artifact in manifest.artifacts for path in artifact.files},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def machine_here(root: Path = Path("/")) -> str:
    """Return what this machine is, in one line: the device tree's name for it, processor, usable cores.

    Recognising the board by its profile would read them all, at every ``load``; it goes by the same texts.

    Args:
        root: Folder that holds ``proc``.
    """
    try:
        model = (root / "proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        model = ""
    return ", ".join(filter(None, (model, machine_name())))


def key_here(manifest: Manifest, engines: Iterable[str]) -> Key:
    """Return the key of a tuning of a bundle's models on this machine.

    Args:
        manifest: The bundle's.
        engines: Names; those that are not installed are left out.
    """
    versions = {}
    for name in sorted(set(engines)):
        try:
            engine = find_engine(name)
        except EngineMissing:
            continue
        if is_installed(engine):
            versions[name] = engine_version(engine)
    return Key(models_id(manifest), machine_here(), versions)


def own_folder() -> Path:
    """Return where this user's tunings lie, if there are any.

    By the XDG Base Directory Specification: in ``$XDG_CACHE_HOME``, or ``~/.cache`` where that is not set.

    Raises:
        ReportError: This user has no home folder.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The specification: a relative path is to be ignored.
        root = Path(named) if named and Path(named).is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise ReportError("this user has no home folder: set XDG_CACHE_HOME, or use --out") from error
    return root / "boardfit" / "tuning"


def own_path(models: str, machine: str) -> Path:
    """Return where this user's tuning of some models on some machine lies, if there is one.

    A home may be shared by several boards, or move to another one with its card.

    Args:
        models: As ``models_id`` returns it.
        machine: As ``machine_here`` returns it.

    Raises:
        ReportError: This user has no home folder.
    """
    board = hashlib.sha256(machine.encode()).hexdigest()[:16]
    return own_folder() / models / f"{board}.json"


def read_tuning(path: Path) -> Tuning:
    """Read a tuning.

    Raises:
        ReportError: It cannot be read, is cut short or damaged, or is of another schema.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ReportError(f"{path} is too long for a tuning: tune again")
        return Tuning.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ReportError):
            raise ReportError(f"{path}: {error}") from error
        raise ReportError(f"cannot read the tuning {path} ({error}): tune again") from error


def write_tuning(path: Path, tuning: Tuning) -> None:
    """Write a tuning; whatever happens, a reader finds the whole of it, or what was there before.

    Raises:
        ReportError: It cannot be written.
    """
    write_json(path, tuning.to_dict())


def write_json(path: Path, value: object) -> None:
    """Write a file of JSON so that it is there whole or not at all; its folders are made if need be.

    Raises:
        ReportError: It cannot be written.
    """
    from boardfit.benchmarks.store import write_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(
            f"cannot write {path} ({error.strerror or error}): choose another place with --out"
        ) from error
    write_file(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

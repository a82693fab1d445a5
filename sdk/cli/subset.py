"""What remains of a manifest when formats, precisions or sizes are left out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from boardfit.bundle import Golden, Manifest
from boardfit.errors import RecipeError
from boardfit.specs import Artifact, PolicySpec


@dataclass(frozen=True, slots=True)
class Selection:
    """What to keep; an empty tuple keeps all."""

    formats: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()

    def cut(self, artifact: Artifact) -> Artifact | None:
        """Return what is kept of an artifact: with fewer sizes, or nothing."""
        if self.formats and artifact.format not in self.formats:
            return None
        if self.precisions and artifact.precision not in self.precisions:
            return None
        sizes = tuple(size for size in artifact.sizes if not self.sizes or size in self.sizes)
        return replace(artifact, sizes=sizes) if sizes else None


def restrict(manifest: Manifest, wanted: Selection) -> Manifest:
    """Return the manifest of the smaller bundle.

    Raises:
        RecipeError: Something that is asked for is not in the bundle, or nothing would be left.
    """
    _check_known(manifest, wanted)
    artifacts = tuple(cut for artifact in manifest.artifacts if (cut := wanted.cut(artifact)) is not None)
    if not artifacts:
        raise RecipeError(f"no artifact is all of what was asked for; the bundle has {_content(manifest)}")
    sizes = tuple(sorted({size for artifact in artifacts for size in artifact.sizes}))
    golden = manifest.golden and Golden(
        manifest.golden.frame,
        {s: paths for s, paths in manifest.golden.outputs.items() if s in sizes},
        manifest.golden.inputs,
    )
    dropped = _used(manifest.artifacts, manifest.golden) - _used(artifacts, golden)
    return replace(
        manifest,
        artifacts=artifacts,
        policy=restrict_policy(manifest.policy, sizes),
        files=tuple(entry for entry in manifest.files if entry.path not in dropped),
        golden=golden,
    )


def restrict_policy(policy: PolicySpec, sizes: tuple[int, ...]) -> PolicySpec:
    """Return the policy over the sizes that remain.

    A frame whose size is gone gets the next larger one, or the largest where there is none: it may cost
    time, but loses no accuracy that the remaining sizes could give. What is left was not fitted.

    Args:
        policy: Over more sizes, or others.
        sizes: Input sides in pixels, ascending, that are still served.
    """
    kept = tuple(size for size in policy.sizes if size in sizes)
    if kept == policy.sizes:
        return policy
    if len(kept) < 2 or policy.kind == "fixed":
        only = kept or sizes[-1:]
        return replace(
            policy,
            kind="fixed",
            sizes=only,
            thresholds_bits=(),
            second_size=None,
            third_look_bits=None,
            fit=None,
        )
    thresholds = tuple(policy.thresholds_bits[bisect_left(policy.sizes, size)] for size in kept[:-1])
    second = policy.second_size if policy.second_size in kept else None
    third = policy.third_look_bits if len(kept) > 2 else None
    return replace(
        policy,
        sizes=kept,
        thresholds_bits=thresholds,
        second_size=second,
        third_look_bits=third,
        fit=None,
    )


def restrict_measurements(
    measurements: Mapping[str, Any] | None, *, before: Manifest, after: Manifest
) -> dict[str, Any] | None:
    """Return the rows that speak of what remains, under the names that the artifacts have now."""
    if measurements is None:
        return None
    old_by_file = {artifact.files: artifact.name for artifact in before.artifacts}
    names = {old_by_file[artifact.files]: artifact for artifact in after.artifacts}
    kept: dict[str, Any] = dict(measurements)
    for key in ("parity", "times"):
        rows = measurements.get(key)
        kept[key] = [
            {**row, "artifact": names[row["artifact"]].name}
            for row in (rows if isinstance(rows, list) else [])
            if isinstance(row, Mapping)
            and row.get("artifact") in names
            and row.get("size") in names[row["artifact"]].sizes
        ]
    if isinstance(section := measurements.get("quantized"), Mapping):
        rows = section.get("artifacts")
        left = [row for row in rows if _remains(row, names)] if isinstance(rows, list) else []
        kept["quantized"] = {**section, "artifacts": left}
    return kept


def _remains(row: object, names: Mapping[str, Artifact]) -> bool:
    """Return whether a quantized artifact is still there; each has one size, and keeps its name."""
    name = row.get("artifact") if isinstance(row, Mapping) else None
    return isinstance(name, str) and name in names


def _check_known(manifest: Manifest, wanted: Selection) -> None:
    have: list[tuple[str, tuple[Any, ...], set[Any]]] = [
        ("format", wanted.formats, {artifact.format for artifact in manifest.artifacts}),
        ("precision", wanted.precisions, {artifact.precision for artifact in manifest.artifacts}),
        ("size", wanted.sizes, set(manifest.sizes)),
    ]
    for what, asked, known in have:
        absent = [value for value in asked if value not in known]
        if absent:
            raise RecipeError(f"the bundle has no {what} {absent[0]}; it has {_content(manifest)}")


def _content(manifest: Manifest) -> str:
    return "; ".join(
        f"{artifact.name} at {', '.join(map(str, artifact.sizes))}" for artifact in manifest.artifacts
    )


def _used(artifacts: tuple[Artifact, ...], golden: Golden | None) -> set[str]:
    return {path for artifact in artifacts for path in artifact.files} | set(golden.paths if golden else ())

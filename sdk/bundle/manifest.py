"""Manifest: what a bundle says of itself. Opens no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from boardfit.bundle.rules import (
    RESERVED,
    check_path,
    check_paths,
    check_sha256,
    dump_json,
    parse_json,
    sha256_hex,
)
from boardfit.errors import BundleError
from boardfit.specs import TASKS, Artifact, ImageSpec, PolicySpec, TensorSpec

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a bundle: its path, the SHA-256 of its bytes in hex, its byte count."""

    path: str
    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        check_path(self.path)
        check_sha256(self.sha256, self.path)
        if type(self.size_bytes) is not int or self.size_bytes < 0:
            raise BundleError(f"size of {self.path} is {self.size_bytes!r}: expected a count of bytes")
        if self.path in RESERVED:
            raise BundleError(f"{self.path} is the bundle's own: expected another name for a file")

    @classmethod
    def of(cls, path: str, data: bytes) -> FileEntry:
        """Return the entry of a file with these contents."""
        return cls(check_path(path), sha256_hex(data), len(data))


@dataclass(frozen=True, slots=True)
class Golden:
    """A frame with the answers that the source model gave to it, for the self-test on a board.

    Attributes:
        frame: Path of a .npy file: HxWx3 uint8 BGR.
        outputs: By input side in pixels: paths of .npy files, one per output, float32.
        inputs: Paths of .npy files, one per further input in the order of an artifact's: HxWx3 uint8 BGR
            for an image, else float32 without the batch's axis.
    """

    frame: str
    outputs: Mapping[int, tuple[str, ...]]
    inputs: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of all its files."""
        return (self.frame, *self.inputs, *(path for paths in self.outputs.values() for path in paths))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        outputs = [{"size": size, "files": list(paths)} for size, paths in sorted(self.outputs.items())]
        return {"frame": self.frame, "inputs": list(self.inputs), "outputs": outputs}

    @classmethod
    def from_dict(cls, data: object) -> Golden:
        """Read the record back from JSON values."""
        found = _exact(data, {"frame", "inputs", "outputs"}, "golden")
        outputs: dict[int, tuple[str, ...]] = {}
        for item in _list(found["outputs"], "golden.outputs"):
            row = _exact(item, {"size", "files"}, "golden.outputs")
            size = row["size"]
            if type(size) is not int or size <= 0 or size in outputs:
                raise BundleError(f"golden.outputs has the size {size!r}: expected distinct sides in pixels")
            outputs[size] = tuple(check_path(path) for path in _list(row["files"], "golden.outputs.files"))
        inputs = tuple(check_path(path) for path in _list(found["inputs"], "golden.inputs"))
        return cls(check_path(found["frame"]), outputs, inputs)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle holds. The SHA-256 of its JSON is the bundle's content id.

    Attributes:
        name: Name of the model, for people.
        task: What the model is for, one of ``boardfit.specs.TASKS``.
        labels: Class names in the order of the first output; empty where none are known.
        image: How a frame becomes the input tensor.
        policy: Which size a frame gets.
        artifacts: The exported models.
        files: Every file but manifest.json, measurements.json, signatures.json and SHA256SUMS.
        golden: The self-test, or None.
        recipe: How the bundle was built, as JSON values.
        tools: Versions by the name of the tool.
        schema: Of this record.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    image: ImageSpec
    policy: PolicySpec
    artifacts: tuple[Artifact, ...]
    files: tuple[FileEntry, ...]
    golden: Golden | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _check_schema(self.schema)
        _check_text(self.name, "name")
        if self.task not in TASKS:
            raise BundleError(f"task is {self.task!r}: expected {', '.join(TASKS)}")
        for label in self.labels:
            _check_text(label, "a label", at_most=1000)
        for tool, version in self.tools.items():
            _check_text(tool, "a tool")
            _check_text(version, f"version of {tool!r}")
        _check_artifacts(self)
        _check_files(self)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Input sides in pixels, ascending, that some artifact serves."""
        return tuple(sorted({size for artifact in self.artifacts for size in artifact.sizes}))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "schema": self.schema,
            "name": self.name,
            "task": self.task,
            "labels": list(self.labels),
            "image": self.image.to_dict(),
            "policy": self.policy.to_dict(),
            "artifacts": [artifact.to_dict() for artifact in self.artifacts],
            "files": [
                {"path": entry.path, "sha256": entry.sha256, "size_bytes": entry.size_bytes}
                for entry in self.files
            ],
            "golden": self.golden.to_dict() if self.golden else None,
            "recipe": dict(self.recipe),
            "tools": dict(self.tools),
        }

    @classmethod
    def from_dict(cls, data: object) -> Manifest:
        """Read the record back from JSON values.

        Raises:
            BundleError: A field is missing, unknown or makes no sense; or the schema is another one.
        """
        if isinstance(data, Mapping):
            # First of all: a later schema has other fields, and that is what its reader must be told.
            _check_schema(data.get("schema"))
        found = _exact(data, {item.name for item in fields(cls)}, "manifest")
        golden = found["golden"]
        return cls(
            schema=found["schema"],
            name=found["name"],
            task=found["task"],
            labels=tuple(_list(found["labels"], "labels")),
            image=ImageSpec.from_dict(found["image"]),
            policy=PolicySpec.from_dict(found["policy"]),
            artifacts=tuple(Artifact.from_dict(item) for item in _list(found["artifacts"], "artifacts")),
            files=tuple(_file_entry(item) for item in _list(found["files"], "files")),
            golden=None if golden is None else Golden.from_dict(golden),
            recipe=_mapping(found["recipe"], "recipe"),
            tools=_mapping(found["tools"], "tools"),
        )

    def to_bytes(self) -> bytes:
        """Return manifest.json."""
        return dump_json(self.to_dict(), "the manifest")

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read manifest.json from untrusted bytes.

        Raises:
            BundleError: See ``from_dict`` and ``parse_json``.
        """
        return cls.from_dict(parse_json(data, "the manifest"))


def _check_schema(schema: object) -> None:
    if type(schema) is not int or schema != SCHEMA:
        raise BundleError(
            f"the bundle has schema {schema!r}, and this boardfit reads schema {SCHEMA}: "
            "install another version of boardfit, or build the bundle again"
        )


def _check_artifacts(manifest: Manifest) -> None:
    names = [artifact.name for artifact in manifest.artifacts]
    if not names:
        raise BundleError("the bundle has no artifact: expected at least one exported model")
    if len(set(names)) != len(names):
        raise BundleError(f"artifacts are {', '.join(names)}: expected distinct names")
    unserved = sorted(set(manifest.policy.sizes) - set(manifest.sizes))
    if unserved:
        raise BundleError(
            f"the policy names the size {unserved[0]}, which no artifact serves: "
            f"expected some of {', '.join(map(str, manifest.sizes))}"
        )
    _check_inputs(manifest)
    for artifact in manifest.artifacts:
        shape = artifact.outputs[0].shape
        classes = shape[-1] if shape else None
        scored = manifest.task == "classify" and classes is not None
        if manifest.labels and scored and len(manifest.labels) != classes:
            raise BundleError(
                f"{len(manifest.labels)} labels, but {artifact.name} answers {classes} classes: "
                "expected one label a class"
            )


def _check_inputs(manifest: Manifest) -> None:
    """Compare what the artifacts take besides the frame: the same in all, whatever each calls it."""
    first = manifest.artifacts[0]
    for artifact in manifest.artifacts:
        if [_taken(spec) for spec in artifact.inputs[1:]] != [_taken(spec) for spec in first.inputs[1:]]:
            raise BundleError(
                f"{artifact.name} takes other inputs than {first.name}: expected the same in every artifact"
            )
    count = len(first.inputs) - 1
    if manifest.golden and len(manifest.golden.inputs) != count:
        raise BundleError(
            f"golden.inputs has {len(manifest.golden.inputs)} files: expected one for each of the {count} "
            "inputs besides the frame"
        )


def _taken(spec: TensorSpec) -> object:
    return "an image" if spec.layout else spec.shape[1:]


def _check_files(manifest: Manifest) -> None:
    known = set(check_paths(entry.path for entry in manifest.files))
    used = [path for artifact in manifest.artifacts for path in artifact.files]
    missing = [
        path for path in (*used, *(manifest.golden.paths if manifest.golden else ())) if path not in known
    ]
    if missing:
        raise BundleError(f"the manifest uses {missing[0]!r}, but does not list it among its files")


def _file_entry(data: object) -> FileEntry:
    found = _exact(data, {"path", "sha256", "size_bytes"}, "files")
    return FileEntry(found["path"], found["sha256"], found["size_bytes"])


def _check_text(value: object, what: str, at_most: int = 255) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= at_most or "\n" in value:
        raise BundleError(f"{what} is {value!r:.80}: expected one line of 1 to {at_most} characters")


def _exact(data: object, names: set[str], what: str) -> Mapping[str, Any]:
    found = _mapping(data, what)
    if set(found) != names:
        raise BundleError(f"{what} has the fields {sorted(found)}: expected exactly {sorted(names)}")
    return found


def _mapping(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise BundleError(f"{what} is {data!r:.80}: expected an object")
    return data


def _list(data: object, what: str) -> list[Any]:
    if not isinstance(data, (list, tuple)):
        raise BundleError(f"{what} is {data!r:.80}: expected a list")
    return list(data)

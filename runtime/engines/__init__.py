"""Inference engines: one file each, found through the entry points ``boardfit.engines``.

An engine gets the bytes that were hashed and never a path; it returns arrays and never decodes,
resizes or normalises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from boardfit.errors import EngineMissing
from boardfit.specs import Artifact


class Engine(Protocol):
    """The smallest interface that runs an artifact.

    A class may also name the top-level modules that it needs in ``libraries: ClassVar[tuple[str, ...]]``
    (any one of them serves); without it, it is taken for installed, unless ``is_usable()`` says no.
    ``slow_resize: ClassVar[bool]`` says that a change of the input's size costs it more than a hundredth of a
    run, ``by_name_only: ClassVar[bool]`` that it is never chosen by default. One with ``with_variant(text)``
    takes what stands behind a colon of its name, as in ``onnxruntime:cuda``; it keeps that in ``variant``,
    and lists what it knows in ``variants: ClassVar[tuple[str, ...]]``. One whose engines of the same file can
    share what they hold has ``first_of_several(artifact, files, threads)``; what that returns may have
    ``sibling()``, which returns a further one. One that can tell what each layer takes has a class method
    ``profile(artifact, files, threads, *, feeds, runs, warmup)`` that returns a ``LayerProfile`` of some runs
    after some for warm-up, or raises EngineError.

    Attributes:
        formats: Formats of the artifacts that it runs.
    """

    formats: ClassVar[tuple[str, ...]]

    def __init__(self, artifact: Artifact, files: Mapping[str, bytes], threads: int) -> None:
        """Load an artifact.

        Args:
            artifact: What the files are; its specs are the truth about shapes and names.
            files: Contents by path, for every path in ``artifact.files``.
            threads: Threads for one run.

        Raises:
            EngineMissing: If the engine's library is not installed.
            EngineError: If the engine refuses the files.
        """
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """Run once.

        Args:
            feeds: Tensors by input name. Batch and spatial size may change from call to call where the
                artifact's specs leave them free.

        Returns:
            float32 arrays in the order of ``artifact.outputs``, which belong to the caller.

        Raises:
            EngineError: If the engine fails.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds. Twice does no harm."""
        ...


def engine_classes() -> dict[str, type[Engine]]:
    """Return every engine that is registered, by name. Imports no engine library."""
    from importlib.metadata import entry_points

    return {point.name: point.load() for point in entry_points(group="boardfit.engines")}


def find_engine(name: str) -> type[Engine]:
    """Return one engine's class.

    Args:
        name: As registered, or with a variant behind a colon: ``onnxruntime:cuda``, ``litert:PATH``.

    Raises:
        EngineMissing: If no engine of this name is registered, or it has no such variant.
    """
    classes = engine_classes()
    base, colon, variant = name.partition(":")
    if base not in classes:
        raise EngineMissing(f"there is no engine {name!r}: registered are {', '.join(sorted(classes))}")
    if not colon:
        return classes[base]
    choose = getattr(classes[base], "with_variant", None)
    if choose is None:
        raise EngineMissing(
            f"engine {base!r} has no variants such as {name!r}: leave out the colon and the rest"
        )
    found: type[Engine] = choose(variant)
    return found


def is_installed(engine: type[Engine]) -> bool:
    """Return whether one of the libraries that an engine needs can be found. Imports none of them."""
    from importlib.util import find_spec

    usable = getattr(engine, "is_usable", None)
    if usable is not None and not usable():
        return False
    libraries: tuple[str, ...] = getattr(engine, "libraries", ())
    return not libraries or any(find_spec(name) is not None for name in libraries)


def engine_version(engine: type[Engine]) -> str:
    """Return the version of the library that an engine would run; empty where there is none. Imports none."""
    from importlib.metadata import PackageNotFoundError, version

    for library in getattr(engine, "libraries", ()):
        for package in (library, *_PACKAGES.get(library, ())):
            try:
                return version(package)
            except PackageNotFoundError:
                continue
    return ""


_PACKAGES = {
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-qnn", "onnxruntime-openvino"),
}
"""Packages that bring a library of another name."""


def available_engines(format: str) -> list[str]:
    """Return the sorted names of the engines that run a format and whose library is installed.

    One that serves by name only is not among them.
    """
    return sorted(
        name
        for name, engine in engine_classes().items()
        if format in engine.formats and is_installed(engine) and not is_by_name_only(engine)
    )


def is_by_name_only(engine: type[Engine]) -> bool:
    """Return whether an engine is never chosen where the caller names none."""
    return bool(getattr(engine, "by_name_only", False))


def missing(engine: str, library: str, extra: str, error: ImportError) -> EngineMissing:
    """Make the error for a library that cannot be imported, with the command to type."""
    return EngineMissing(
        f"engine {engine!r} needs {library}, which cannot be imported ({error}): "
        f"pip install 'boardfit[{extra}]'"
    )


def indices_by_name(wanted: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """Return where the wanted names stand among the known ones, or None if one is absent.

    A single wanted name among a single known one needs no match: exporters rename the only tensor.
    """
    if len(wanted) == len(known) == 1:
        return [0]
    if any(name not in known for name in wanted):
        return None
    return [known.index(name) for name in wanted]


def owned_float32(array: Any) -> np.ndarray:
    """Return an engine's array as float32, contiguous."""
    return np.ascontiguousarray(array, dtype=np.float32)

"""What finished compress stages made, kept until the build is done, so that resuming does not repeat them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boardfit.converters.ingest.reference import keras_reference
from boardfit.converters.model import TrainedModel
from boardfit.converters.training_images import TrainingImages
from boardfit.errors import CompressError
from boardfit.files import write_whole

if TYPE_CHECKING:
    from boardfit.converters.compress.stage import StageResult

SCHEMA = 1


class KeptStages:
    """The results of stages, each in its stage's folder: ``stage.keras``, and ``stage.json`` as its seal.

    A stage that measures times would choose something else when it is run again, and what was trained
    behind it would be lost.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Callable[[str], Mapping[str, Any]],
        images: TrainingImages | None,
        teacher: TrainedModel | None,
    ) -> None:
        """Remember what results belong to.

        Args:
            folder: Of all stages.
            settings: From a stage's name, what its result hangs on, as JSON values. With those of ``distill``
                it hangs on the teacher as well.
            images: What is trained on.
            teacher: Who teaches instead of the source, or None.
        """
        self._folder, self._settings, self._teacher = folder, settings, teacher
        self._images = images

    def get(self, name: str, before: TrainedModel) -> StageResult | None:
        """Return what a stage made of a model before, or None.

        Raises:
            CompressError: It was made of another model, or with another teacher, other settings or images.
        """
        import keras

        from boardfit.converters.compress.stage import StageResult

        net, seal = self._places(name)
        try:
            record = json.loads(seal.read_text(encoding="utf-8"))
            whole = record["sha256"] == hashlib.sha256(net.read_bytes()).hexdigest()
            belongs_to, notes = record["belongs_to"], tuple(record["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not whole or record["schema"] != SCHEMA:
            return None
        if belongs_to != self._belongs_to(name, before):
            raise _of_another(seal.parent)
        loaded = keras.saving.load_model(net, compile=False)
        loaded.trainable = False
        return StageResult(model=replace(before, net=loaded, reference=keras_reference(loaded)), notes=notes)

    def put(self, name: str, before: TrainedModel, result: StageResult) -> None:
        """Keep what a stage made of a model; nothing where that is a net per size.

        Raises:
            CompressError: It cannot be written, because the disk is full for example.
        """
        if result.model.nets_by_size is not None:
            return
        net, seal = self._places(name)
        record = {
            "schema": SCHEMA,
            "sha256": _save(result.model.net, net),
            "belongs_to": self._belongs_to(name, before),
            "notes": result.notes,
        }
        try:
            write_whole(seal, json.dumps(record).encode())
        except OSError as error:
            raise _full(seal, error) from error

    def _places(self, name: str) -> tuple[Path, Path]:
        return self._folder / name / "stage.keras", self._folder / name / "stage.json"

    def _belongs_to(self, name: str, before: TrainedModel) -> str:
        settings = self._settings(name)
        # A path may hold another teacher today: what counts are its weights.
        taught = [self._teacher] if self._teacher and "distill" in settings else []
        return fingerprint(settings, self._images, [before, *taught])


def fingerprint(
    settings: Mapping[str, Any], images: TrainingImages | None, models: Sequence[TrainedModel]
) -> str:
    """Return a hash of what a stage's result hangs on.

    Args:
        settings: As JSON values.
        images: What is trained on.
        models: Those that the stage reads: weights, how pixels become the input, and what outputs mean.
    """
    about: dict[str, Any] = {"settings": settings, "images": []}
    if images is not None:
        sizes = [path.stat().st_size if path.is_file() else 0 for path in images.paths]
        about["images"] = [[str(path) for path in images.paths], sizes, images.labels]
    about["models"] = [
        [model.image.to_dict(), [output.activation for output in model.outputs]] for model in models
    ]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for weight in (weight for model in models for weight in model.net.get_weights()):
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def begun_with(folder: Path, model: TrainedModel, *, resume: bool, belongs_to: str) -> TrainedModel:
    """Return what a training in a folder began with: the model that is kept there, or the given one.

    Args:
        folder: Of the training; made here.
        model: What it would begin with.
        resume: Whether it goes on.
        belongs_to: What the model hangs on, see ``fingerprint``.

    Raises:
        CompressError: The model cannot be kept, because the disk is full for example; or what is kept there
            belongs to something else.
    """
    import keras

    path, seal = folder / "begun.keras", folder / "begun.json"
    if not resume or not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # First the seal: a model never lies there under another one's.
            write_whole(seal, json.dumps({"belongs_to": belongs_to}).encode())
        except OSError as error:
            raise _full(seal, error) from error
        _save(model.net, path)
        return model
    if _sealed_for(seal) != belongs_to:
        raise _of_another(folder)
    try:
        net = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CompressError(f"{path} cannot be read ({error}): delete {folder} to begin anew") from error
    return replace(model, net=net, reference=keras_reference(net))


def _sealed_for(seal: Path) -> str:
    try:
        return str(json.loads(seal.read_text(encoding="utf-8"))["belongs_to"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _of_another(folder: Path) -> CompressError:
    return CompressError(
        f"{folder} holds what another model, another teacher, other images or other settings gave: resume "
        "with those, or delete it to begin anew"
    )


def _save(net: Any, path: Path) -> str:
    """Write a net whole or not at all, and return the SHA-256 of the file."""
    draft = path.with_name("draft.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        net.save(draft)
        found = hashlib.sha256(draft.read_bytes()).hexdigest()
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _full(path, error) from error
    return found


def _full(path: Path, error: OSError) -> CompressError:
    return CompressError(
        f"{path} cannot be written ({error.strerror}): make room and start again with --resume"
    )

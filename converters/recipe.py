"""Recipe: everything that a build is told, in sections, from a TOML file or from flags.

One dataclass per section. A section knows its own rules and says in a sentence what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from boardfit.converters.calibrate import ESTIMATORS
from boardfit.converters.recipe_checks import check_choices, check_types
from boardfit.converters.recipe_prune import PruneSection
from boardfit.converters.recipe_qat import QatSection
from boardfit.converters.recipe_train import DistillSection, ElasticSection
from boardfit.errors import BundleError, RecipeError
from boardfit.specs import FORMATS, POLICY_KINDS, PRECISIONS, TASKS, check_sizes

SCHEMA = 1

FEWEST_TO_CALIBRATE = 20
FEWEST_TO_VALIDATE = 10


@dataclass(frozen=True, slots=True)
class SourceSection:
    """The trained model and what is known of it.

    Attributes:
        model: Path of a ``.keras``, ``.h5`` or ``.onnx`` file; empty with ``torch``.
        torch: ``package.module:factory`` or ``file.py:factory``; runs its author's code.
        name: Name of the bundle; empty takes the source's.
        labels: Path of a text file with one class name a line; empty for none.
        image_spec: A preset's name, or the path of a TOML file with an image spec's fields.
        assume_same_padding: Take padding that equals "same" at the source's own size for "same"
            everywhere.
        task: ``classify``, ``detect``, ``segment``, ``embed`` or ``raw``.
        pass_through: Pack an ``.onnx`` (and what pnnx makes of it) or ``.tflite`` file as it is.
        inputs: ``NAME=FILE.npy`` each: rows of numbers for an input besides the image, to compare on.
    """

    model: str = ""
    torch: str = ""
    name: str = ""
    labels: str = ""
    image_spec: str = "imagenet"
    assume_same_padding: bool = False
    task: str = "classify"
    pass_through: bool = False
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_types(self, "source")
        if self.task not in TASKS:
            raise RecipeError(f"source.task is {self.task!r}: expected one of {', '.join(TASKS)}")
        wrong = [word for word in self.inputs if not isinstance(word, str) or not word.partition("=")[2]]
        if wrong:
            raise RecipeError(f"source.inputs has {wrong[0]!r}: expected NAME=FILE.npy")
        if bool(self.model) == bool(self.torch):
            raise RecipeError(
                "a build needs one source: give a model file (.keras, .h5, .onnx), "
                "or --torch package.module:factory, and not both"
            )


@dataclass(frozen=True, slots=True)
class ImagesSection:
    """The photographs that parity is measured on.

    Attributes:
        folder: Folder of images, searched with its subfolders.
        limit: At most so many of them, evenly spaced over the sorted names.
    """

    folder: str = ""
    limit: int = 128

    def __post_init__(self) -> None:
        check_types(self, "images")
        if not self.folder:
            raise RecipeError("a build needs photographs to prove the artifacts on: give --images FOLDER")
        if self.limit < 1:
            raise RecipeError(f"images.limit is {self.limit}: expected at least 1")


@dataclass(frozen=True, slots=True)
class ExportSection:
    """What is made.

    Attributes:
        sizes: Input sides in pixels, ascending.
        auto_sizes: Propose sizes that suit the source instead; ``sizes`` is then not looked at.
        formats: Among ``tflite``, ``onnx``, ``ncnn``.
        precisions: Among ``fp32``, ``fp16``, ``int8``, ``int16x8`` (tflite only) and ``dynamic``.
    """

    sizes: tuple[int, ...] = (112, 160, 224)
    formats: tuple[str, ...] = FORMATS
    precisions: tuple[str, ...] = ("fp32", "fp16")
    auto_sizes: bool = False

    def __post_init__(self) -> None:
        check_types(self, "export")
        try:
            check_sizes(self.sizes, "export.sizes")
        except BundleError as error:
            raise RecipeError(str(error)) from error
        check_choices(self.formats, FORMATS, "export.formats")
        check_choices(self.precisions, PRECISIONS, "export.precisions")


@dataclass(frozen=True, slots=True)
class PolicySection:
    """Which policy the bundle carries.

    Attributes:
        kind: ``entropy``, ``two-look`` or ``fixed``.
    """

    kind: str = "entropy"

    def __post_init__(self) -> None:
        check_types(self, "policy")
        if self.kind not in POLICY_KINDS:
            raise RecipeError(f"policy.kind is {self.kind!r}: expected one of {', '.join(POLICY_KINDS)}")


@dataclass(frozen=True, slots=True)
class FitSection:
    """How the size policy is fitted.

    Attributes:
        enabled: Whether it is; otherwise the bundle carries the classic thresholds.
        val: CSV file with the columns ``file`` and ``label``, files relative to ``images.folder``; empty
            for a fit by agreement with the largest size.
        limit: At most so many images, evenly spaced over the sorted names.
        max_drop: Points that may be lost against the largest size, for the least time.
        max_time: Fraction of the largest size's time, for the best answers; wins over ``max_drop``
            unless 0.
    """

    enabled: bool = True
    val: str = ""
    limit: int = 1000
    max_drop: float = 0.5
    max_time: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "fit")
        if self.limit < 1:
            raise RecipeError(f"fit.limit is {self.limit}: expected at least 1")


@dataclass(frozen=True, slots=True)
class ParitySection:
    """The gate: how far an artifact may be from its source.

    Attributes:
        fp32_max_abs: Largest difference, as a fraction of the source's output range.
        fp16_min_cosine: Smallest mean cosine between an artifact's and the source's outputs.
        fp16_max_flips: Largest share of images whose top-1 answer changes; one flip always passes.
        fp16_min_iou: Smallest mean overlap of a segmenter's masks with the source's.
    """

    fp32_max_abs: float = 1e-3
    fp16_min_cosine: float = 0.999
    fp16_max_flips: float = 0.005
    fp16_min_iou: float = 0.99

    def __post_init__(self) -> None:
        check_types(self, "parity")


@dataclass(frozen=True, slots=True)
class QuantizeSection:
    """How int8 is calibrated, and what its gate allows. Labels are those of ``fit.val``.

    Attributes:
        calibration: Folder of photographs to calibrate on; empty takes a part of ``images.folder``.
        calibration_images: At most so many of them.
        validation_images: At most so many others, on which the gate judges.
        estimators: How ranges are read from what calibration saw; the best by output error is taken.
        max_drop: Points of top-1 that may be lost against the source, where labels are known.
        max_flips: Answers in per cent that may differ from fp32 at the largest size, where none are;
            smaller sizes are allowed 1.6 times as many.
        rescue: Whether an artifact outside the gate is rescued before it is given up.
    """

    calibration: str = ""
    calibration_images: int = 256
    validation_images: int = 512
    estimators: tuple[str, ...] = ESTIMATORS
    max_drop: float = 1.0
    max_flips: float = 5.0
    rescue: bool = True

    def __post_init__(self) -> None:
        check_types(self, "quantize")
        check_choices(self.estimators, ESTIMATORS, "quantize.estimators")
        if self.calibration_images < FEWEST_TO_CALIBRATE or self.validation_images < FEWEST_TO_VALIDATE:
            raise RecipeError(
                f"quantize.calibration_images is {self.calibration_images} and validation_images "
                f"{self.validation_images}: expected at least {FEWEST_TO_CALIBRATE} and {FEWEST_TO_VALIDATE}"
            )
        for name in ("max_drop", "max_flips"):
            if not 0.0 <= getattr(self, name) <= 100.0:
                raise RecipeError(f"quantize.{name} is {getattr(self, name):g}: expected 0 to 100")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All sections of one build."""

    source: SourceSection
    images: ImagesSection
    export: ExportSection = field(default_factory=ExportSection)
    prune: PruneSection = field(default_factory=PruneSection)
    distill: DistillSection = field(default_factory=DistillSection)
    elastic: ElasticSection = field(default_factory=ElasticSection)
    policy: PolicySection = field(default_factory=PolicySection)
    fit: FitSection = field(default_factory=FitSection)
    parity: ParitySection = field(default_factory=ParitySection)
    quantize: QuantizeSection = field(default_factory=QuantizeSection)
    qat: QatSection = field(default_factory=QatSection)

    def __post_init__(self) -> None:
        if self.qat.when == "always" and not self.may_train_int8:
            raise RecipeError(
                "a net is trained in simulated int8: give --distill FOLDER, photographs to train on, and "
                "int8 among --precisions"
            )
        if self.elastic.enabled and not self.distill.folder:
            raise RecipeError("an elastic net is trained: give --distill FOLDER, photographs to train on")
        if self.distill.folder and not (self.distills or self.elastic.enabled or self.may_train_int8):
            raise RecipeError(
                "there is nothing to train on the photographs of --distill: add --prune, --teacher, "
                "--elastic or int8, or leave it out"
            )
        if self.prune.sparsity and self.elastic.enabled and self.elastic.kernels == "trained":
            raise RecipeError(
                'prune.sparsity sets weights to 0, and elastic.kernels = "trained" would train them again: '
                "leave one of them out"
            )

    @property
    def distills(self) -> bool:
        """Whether a net learns from a teacher: a pruned one from the source, or the source from another."""
        return bool(self.distill.folder and (self.prune.structured or self.distill.teacher))

    @property
    def compresses(self) -> bool:
        """Whether any compress stage is asked for."""
        return bool(
            self.prune.structured or self.prune.sparsity or self.distill.folder or self.elastic.enabled
        )

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the compress stages that are asked for, in their order."""
        asked = {
            "prune": self.prune.structured,
            "distill": self.distills,
            "sparsify": bool(self.prune.sparsity),
            "elastic": self.elastic.enabled,
        }
        return tuple(name for name, wanted in asked.items() if wanted)

    def stage_tables(self, stage: str) -> dict[str, Any]:
        """Return what a compress stage's result hangs on, as JSON values: sections, and the sizes.

        Args:
            stage: Among ``stage_names``.
        """
        sections = {
            # Between its steps a net recovers, by distilling.
            "prune": ("prune", "distill") if self.distills and self.prune.steps > 1 else ("prune",),
            "distill": ("distill",),
            "sparsify": ("prune",),
            "elastic": ("distill", "elastic"),
        }[stage]
        tables = {name: asdict(getattr(self, name)) for name in sections}
        # Who teaches is told by weights, wherever they lie.
        tables.get("distill", {}).pop("teacher", None)
        return {**tables, "sizes": list(self.export.sizes)}

    @property
    def may_train_int8(self) -> bool:
        """Whether the int8 stage has something to train on, and is not told to leave it."""
        return bool(self.distill.folder and self.qat.when != "never" and "int8" in self.export.precisions)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as TOML values, sections as tables."""
        tables = asdict(self)
        return {"schema": SCHEMA, **{name: _plain(table) for name, table in tables.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Make a recipe from tables; an absent section or field takes its default."""
        if data.get("schema", SCHEMA) != SCHEMA:
            raise RecipeError(
                f"the recipe has schema {data['schema']!r}: this boardfit knows {SCHEMA}; "
                "print a fresh one with: boardfit build --print-recipe"
            )
        known = {section.name for section in fields(cls)}
        unknown = sorted(set(data) - known - {"schema"})
        if unknown:
            raise RecipeError(f"the recipe has the unknown section {unknown[0]!r}: known are {sorted(known)}")
        return cls(**{name: _section(kind, data.get(name, {}), name) for name, kind in _SECTIONS.items()})


_SECTIONS: Mapping[str, type] = {
    "source": SourceSection,
    "images": ImagesSection,
    "export": ExportSection,
    "prune": PruneSection,
    "distill": DistillSection,
    "elastic": ElasticSection,
    "policy": PolicySection,
    "fit": FitSection,
    "parity": ParitySection,
    "quantize": QuantizeSection,
    "qat": QatSection,
}


def to_toml(recipe: Recipe) -> str:
    """Return the recipe as the text of a TOML file."""
    import tomli_w

    return str(tomli_w.dumps(recipe.to_dict()))


def merge(tables: Mapping[str, Any], flags: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Lay flags over a recipe's tables; a flag that is None was not given.

    A flag that names one kind of source takes the other kind away.
    """
    merged = {name: dict(value) if isinstance(value, Mapping) else value for name, value in tables.items()}
    for section, given in flags.items():
        chosen = {name: value for name, value in given.items() if value is not None}
        if "model" in chosen or "torch" in chosen:
            merged[section] = {
                name: value
                for name, value in merged.get(section, {}).items()
                if name not in ("model", "torch")
            }
        merged[section] = {**merged.get(section, {}), **chosen}
    return merged


def _section(kind: type, table: object, name: str) -> Any:
    if not isinstance(table, Mapping):
        raise RecipeError(f"recipe section [{name}] is {table!r}: expected a table")
    known = {item.name for item in fields(kind)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise RecipeError(f"recipe section [{name}] has no field {unknown[0]!r}: known are {sorted(known)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}

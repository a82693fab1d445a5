"""The recipe's sections of training: on what and how long, and what is trained."""

from __future__ import annotations

from dataclasses import dataclass

from boardfit.converters.recipe_checks import check_choices, check_types
from boardfit.errors import RecipeError

OPTIMIZERS = ("sgd", "adamw")
NORMS = ("frozen", "batch")
KERNELS = ("frozen", "trained")
NUMBERS = ("float32", "mixed_bfloat16", "mixed_float16")
FEWEST_TO_TRAIN = 50


@dataclass(frozen=True, slots=True)
class DistillSection:
    """The photographs that compress stages train on, their training, and how a teacher teaches.

    Attributes:
        folder: Folder of images, searched with its subfolders; labels are not needed.
        labels: CSV file with the columns ``file`` and ``label``, files relative to ``folder``; empty for
            none. Then only the images that it names are trained on.
        limit: At most so many images, evenly spaced over the sorted names, or over the rows of
            ``labels``. They are kept in memory.
        teacher: A model file that teaches instead of the source, of the same classes and image spec.
        epochs: How often every image is seen.
        batch: Images in a step.
        accumulate: Steps whose gradients are added up before the weights change: a batch so many times as
            large, in the memory of one.
        optimizer: ``sgd`` (Nesterov momentum 0.9) or ``adamw``.
        learning_rate: The peak, after warm-up; it falls to 0 like a cosine. 0 for what suits the stage:
            see ``rate_of``.
        warm_up: Share of the steps in which the rate rises from 0.
        weight_decay: Share of a kernel that a step takes off, times the rate.
        ema: Decay of the moving average of weights that is kept in the end; 0 for the last weights.
        flip: Whether half of the images are mirrored left to right each time.
        shift: Largest shift of an image, as a fraction of its side.
        min_scale: Smallest part of an image that is shown, as a fraction of its side.
        norms: ``batch``: normalisation takes its statistics from the batches. ``frozen``: they stay as they
            came, for a few hundred images.
        teacher_weight: Of the divergence from the teacher's softened answer.
        temperature: Of softened answers.
        label_weight: Of the cross entropy with labels, where there are some.
        hint_weight: Of the distance between features of both nets, at the last layer of each resolution.
        contrast_weight: Of InfoNCE between both nets' embeddings: what the last Dense layer reads.
        contrast_temperature: Of InfoNCE.
        decouple_weight: Of the correlation between groups of the embedding.
        decouple_groups: How many groups.
        numbers: What layers compute with: ``float32``, ``mixed_bfloat16`` or ``mixed_float16``; weights,
            normalisation and losses stay in float32.
        recompute: Whether activations are computed twice, not kept: less memory, more time.
        deterministic: Whether only operations are used that give the same bits each time, on GPUs too.
        seed: Of order, variation and dropout.
    """

    folder: str = ""
    labels: str = ""
    limit: int = 10000
    teacher: str = ""
    epochs: int = 10
    batch: int = 32
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 0.0
    warm_up: float = 0.05
    weight_decay: float = 1e-2
    ema: float = 0.0
    flip: bool = True
    shift: float = 0.1
    min_scale: float = 0.7
    norms: str = "batch"
    teacher_weight: float = 1.0
    temperature: float = 2.0
    label_weight: float = 1.0
    hint_weight: float = 0.0
    contrast_weight: float = 0.0
    contrast_temperature: float = 0.1
    decouple_weight: float = 0.0
    decouple_groups: int = 4
    numbers: str = "float32"
    recompute: bool = False
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "distill")
        check_choices((self.optimizer,), OPTIMIZERS, "distill.optimizer")
        check_choices((self.norms,), NORMS, "distill.norms")
        check_choices((self.numbers,), NUMBERS, "distill.numbers")
        for name in ("limit", "epochs", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise RecipeError(f"distill.{name} is {getattr(self, name)}: expected at least 1")
        if self.learning_rate < 0.0:
            raise RecipeError(f"distill.learning_rate is {self.learning_rate:g}: expected 0 or more")
        for name in ("labels", "teacher"):
            if getattr(self, name) and not self.folder:
                raise RecipeError(f"distill.{name} is given, but no images: give --distill FOLDER")

    def rate_of(self, *, kernels: str, norms: str) -> float:
        """Return the peak of the learning rate: what was asked for, else what suits a stage.

        Frozen kernels leave normalisation to learn, which bears 2e-3. Trained kernels of a net that is
        trained already bear less; 1e-5 where normalisation keeps its statistics (decision 0009).
        """
        if self.learning_rate:
            return self.learning_rate
        if kernels == "frozen":
            return 2e-3
        return 1e-5 if norms == "frozen" else 1e-3


@dataclass(frozen=True, slots=True)
class ElasticSection:
    """How one net is made good at every size.

    Attributes:
        enabled: Whether it is.
        shares: Shares of the epochs with the largest size alone, with every batch dealt among the sizes,
            and with every image at every size; they add up to 1. With frozen kernels it is the third alone.
        norms: ``frozen``: batch normalisation keeps the statistics of the source, and each size learns its
            own scale and shift, for a trained net and few images. ``batch``: each size takes statistics of
            its own from the batches, for many images or a net that is trained from scratch.
        kernels: ``frozen``: the largest size stays the source, the others learn their normalisation from
            it; safe with a thousand photographs. ``trained``: all sizes learn together, for many images.
        label_weight: Of the cross entropy with labels, where there are some.
        teacher_weight: Of the source's answer for the largest size, and the largest size's for the others.
        hint_weight: Of the distance between a small size's features and the largest one's.
        temperature: Of softened answers.
    """

    enabled: bool = False
    shares: tuple[float, ...] = (0.0, 0.25, 0.75)
    norms: str = "frozen"
    kernels: str = "frozen"
    label_weight: float = 1.0
    teacher_weight: float = 1.0
    hint_weight: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_types(self, "elastic")
        check_choices((self.norms,), NORMS, "elastic.norms")
        check_choices((self.kernels,), KERNELS, "elastic.kernels")
        if len(self.shares) != 3:
            raise RecipeError(f"elastic.shares are {list(self.shares)!r}: expected three that add up to 1")

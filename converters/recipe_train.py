"""The recipe's sections of training: on what and how long, and what is trained."""

from __future__ import annotations

from dataclasses import dataclass

from boardfit.converters.recipe_checks import check_choices, check_types
from boardfit.errors import RecipeError

OPTIMIZERS = ("sgd", "adamw")
NORMS = ("frozen", "batch")
KERNELS = ("frozen", "trained")
FEWEST_TO_TRAIN = 50


@dataclass(frozen=True, slots=True)
class DistillSection:
    """The photographs that a compress stage trains on, and its training.

    Attributes:
        folder: Folder of images, searched with its subfolders; labels are not needed.
        labels: CSV file with the columns ``file`` and ``label``, files relative to ``folder``; empty for
            none. Then only the images that it names are trained on.
        limit: At most so many images, evenly spaced over the sorted names, or over the rows of
            ``labels``. They are kept in memory.
        epochs: How often every image is seen.
        batch: Images in a step.
        optimizer: ``sgd`` (Nesterov momentum 0.9) or ``adamw``.
        learning_rate: The peak, after warm-up; it falls to 0 like a cosine. The default suits frozen
            kernels (see ``elastic``); trained kernels of a net that is trained already want 1e-5.
        warm_up: Share of the steps in which the rate rises from 0.
        weight_decay: Share of a kernel that a step takes off, times the rate.
        ema: Decay of the moving average of weights that is kept in the end; 0 for the last weights.
        flip: Whether half of the images are mirrored left to right each time.
        shift: Largest shift of an image, as a fraction of its side.
        min_scale: Smallest part of an image that is shown, as a fraction of its side.
        seed: Of order and variation.
    """

    folder: str = ""
    labels: str = ""
    limit: int = 10000
    epochs: int = 10
    batch: int = 32
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 1e-2
    ema: float = 0.0
    flip: bool = True
    shift: float = 0.1
    min_scale: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "distill")
        check_choices((self.optimizer,), OPTIMIZERS, "distill.optimizer")
        for name in ("limit", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise RecipeError(f"distill.{name} is {getattr(self, name)}: expected at least 1")
        if self.labels and not self.folder:
            raise RecipeError("distill.labels names images of distill.folder: give --distill FOLDER")


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

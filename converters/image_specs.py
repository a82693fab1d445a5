"""How frames become input tensors: presets by name, and specs from TOML files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from boardfit.converters.toml_file import load_toml
from boardfit.errors import BundleError, RecipeError
from boardfit.specs import ImageSpec

_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)

IMAGE_SPECS: Mapping[str, ImageSpec] = {
    # Why "area": docs/decisions/0005-area-is-the-default-resize.md.
    "efficientnet-lite": ImageSpec(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
    "imagenet": ImageSpec(mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    "tf": ImageSpec(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
    "unit": ImageSpec(),
}
"""Presets by name. Means and deviations in pixel units, RGB; centred crop of 0.875."""


def resolve_image_spec(text: str) -> ImageSpec:
    """Return the preset of that name, or the spec in that TOML file (absent fields take defaults).

    Raises:
        RecipeError: No such preset or file, or a field of the file makes no sense.
    """
    if text in IMAGE_SPECS:
        return IMAGE_SPECS[text]
    if not text.endswith(".toml"):
        raise RecipeError(
            f"image spec {text!r} is unknown: expected one of {', '.join(IMAGE_SPECS)}, or a .toml file"
        )
    given = load_toml(Path(text))
    try:
        return ImageSpec.from_dict({**ImageSpec().to_dict(), **given})
    except BundleError as error:
        raise RecipeError(f"{text}: {error}") from error

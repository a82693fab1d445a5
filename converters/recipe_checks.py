"""What every section of a recipe checks of itself."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from boardfit.errors import RecipeError


def check_types(section: Any, name: str) -> None:
    """Raise RecipeError unless every field of a section has the type of its default."""
    for item in fields(section):
        value = getattr(section, item.name)
        default = item.default if not callable(item.default_factory) else item.default_factory()
        expected = type(default)
        fits = type(value) is expected or (expected is float and type(value) is int)
        if not fits:
            raise RecipeError(
                f"recipe field {name}.{item.name} is {value!r}: expected a value like {default!r}"
            )


def check_choices(values: tuple[str, ...], choices: tuple[str, ...], what: str) -> None:
    """Raise RecipeError unless the values are one or more of the choices, each once."""
    wrong = [value for value in values if value not in choices]
    if wrong or not values or len(set(values)) != len(values):
        raise RecipeError(f"{what} are {list(values)!r}: expected distinct ones of {', '.join(choices)}")

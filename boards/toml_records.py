"""Reads records from a TOML file; what is missing, unknown or of another type is named by its field."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from boardfit.errors import BoardError

_Record = TypeVar("_Record")


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        BoardError: It is no TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BoardError(f"not TOML: {error}") from error


def record(cls: type[_Record], table: object, where: str = "") -> _Record:
    """Make a record of a table.

    Args:
        cls: A dataclass; its fields may be str, int, float, bool, an optional of these, tuples and mappings
            of these, and further dataclasses.
        table: As TOML gives it.
        where: Path of the table in its file, such as ``clusters[0]``; empty for the file itself.

    Raises:
        BoardError: A field is missing, unknown, of another type or refused by the record itself. The
            message begins with the field's path.
    """
    if not isinstance(table, Mapping):
        raise BoardError(f"{where} is {table!r}: expected a table")
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for name in table:
        if name not in known:
            raise BoardError(f"{_path(where, name)} is no field: expected some of {', '.join(known)}")
    values = {}
    for name, item in known.items():
        if name in table:
            values[name] = _value(hints[name], table[name], _path(where, name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise BoardError(f"{_path(where, name)} is missing")
    try:
        return cls(**values)
    except BoardError as error:
        raise BoardError(_path(where, str(error))) from error


def _value(kind: Any, value: object, where: str) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        return record(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _value(next(each for each in inner if each is not NoneType), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise BoardError(f"{where} is {value!r}: expected a list")
        return tuple(_listed(inner[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise BoardError(f"{where} is {value!r}: expected a table")
        return {key: _listed(inner[1], item, _path(where, key)) for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise BoardError(f"{where} is {value!r}: expected {_NAMES[kind]}")
    return value


def _listed(kind: Any, value: object, where: str) -> Any:
    """Return the value of one item of a list or a table, where an empty text has no meaning."""
    if value == "":
        raise BoardError(f"{where} is empty: expected some text")
    return _value(kind, value, where)


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name

"""Typed settings: keys with a default, a sentence and bounds, read from TOML's tables with errors that name the key."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import types
import typing
from dataclasses import field
from typing import Any, Literal, TypeVar

from eravane.core.errors import ConfigError

T = TypeVar("T")


def setting(default: Any, doc: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A documented configuration key: its default, a sentence on what it does (with unit), and its bounds."""
    metadata = {"doc": doc, "least": least, "most": most}
    if isinstance(default, list | tuple | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def build(kind: type[T], content: dict[str, Any], source: str, prefix: str = "") -> T:
    """A dataclass of settings from nested tables; errors name `source` and the key.

    Raises:
        ConfigError: a key is unknown (the nearest name is suggested), or a value of the wrong type or out of bounds.
    """
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = prefix + key
        if key not in fields:
            raise ConfigError(f"{source}: unknown key {name!r}{_suggestion(key, fields, prefix)}")
        values[key] = _convert(hints[key], value, fields[key], f"{source}: {name}")
    return kind(**values)


def _suggestion(key: str, fields: dict[str, Any], prefix: str) -> str:
    near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {prefix + near[0]!r}?"
    return f"; allowed here: {', '.join(sorted(fields))}"


def _convert(hint: Any, value: Any, item: dataclasses.Field[Any], where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is a table, given {value!r}")
        source, _, prefix = where.partition(": ")
        return build(typing.cast(type, hint), value, source, prefix + ".")
    converted = _scalar(hint, value, where)
    least, most = item.metadata.get("least"), item.metadata.get("most")
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        if least is not None and converted < least:
            raise ConfigError(f"{where} must be at least {least:g}, given {converted:g}")
        if most is not None and converted > most:
            raise ConfigError(f"{where} must be at most {most:g}, given {converted:g}")
    return converted


def _scalar(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _scalar(next(kind for kind in arguments if kind is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            near = difflib.get_close_matches(str(value), [str(choice) for choice in arguments], n=1)
            hint_text = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{where} is one of {', '.join(map(str, arguments))}, given {value!r}{hint_text}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            kind = ", ".join(typing.get_args(arguments[0])) or arguments[0].__name__
            raise ConfigError(f"{where} is a list of {kind}, given {value!r}")
        return tuple(_scalar(arguments[0], entry, f"{where}, each entry,") for entry in value)
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is a table, given {value!r}")
        return {_name(key, where): _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is a {hint.__name__}, given {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is a finite number, given {value}")
    return value


def _name(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{where}: names in a table are text, given {key!r}")
    return key


def _plain(value: Any, where: str) -> Any:
    """A value of a free table as TOML can hold it: lists for tuples, Python's numbers for NumPy's."""
    if isinstance(value, dict):
        return {_name(key, where): _plain(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{where}, each entry,") for entry in value]
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is a finite number, given {value}")
    if not isinstance(value, str | bool | int | float):
        raise ConfigError(f"{where} is text, a number, true or false, a list or a table, given {value!r}; leave it out")
    return value

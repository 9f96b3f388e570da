"""Builds a configuration's dataclasses out of nested tables: types, bounds, keys of older releases."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, Literal, TypeVar

from eravane.core.editions import RETIRED, meaning_left_out
from eravane.core.errors import ConfigError, did_you_mean

T = TypeVar("T")
HUGE = 10**300
# Largest numbers where a key sets no bounds of its own: beyond them nothing is computed but nonsense.
MOST_INT, MOST_FLOAT, MOST_SEED = 1_000_000, 1e12, 2**63 - 1


def setting(
    default: object,
    doc: str,
    *,
    least: float | None = None,
    most: float | None = None,
    earlier: Mapping[int, object] | None = None,
) -> Any:
    """A documented configuration key: its default, a sentence on what it does (with unit), and its bounds.

    `earlier`: the meaning of a missing key: last edition of that meaning -> value (see `editions`).
    """
    metadata = {"doc": doc, "least": least, "most": most, "earlier": earlier or {}}
    if isinstance(default, list | tuple | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Reading(Generic[T]):
    """A configuration as it was read, and what became of keys that are no more.

    Attributes:
        config: the configuration.
        notes: keys that were translated, a sentence each.
        lost: keys whose meaning this release no longer has, a sentence each; `config` holds what takes their place.
    """

    config: T
    notes: tuple[str, ...]
    lost: tuple[str, ...]


_hints = cache(typing.get_type_hints)  # each call compiles every annotation


class Builder:
    """Builds nested settings out of nested tables.

    Args:
        source: what errors call the tables.
        edition: what keys that are left out mean.
        sections: sections of the present edition -> the same as that edition had them.
    """

    def __init__(self, source: str, edition: int, sections: Mapping[type, type] | None = None) -> None:
        self._notes: list[str] = []
        self._lost: list[str] = []
        self._source, self._edition, self._sections = source, edition, sections or {}

    def read(self, kind: type[T], content: Mapping[str, object]) -> Reading[T]:
        """The settings that the tables hold.

        Raises:
            ConfigError: a key is unknown, or a value of the wrong type or outside its bounds.
        """
        return Reading(self._build(kind, content, ""), tuple(self._notes), tuple(self._lost))

    def _build(self, kind: type[T], content: Mapping[str, object], prefix: str) -> T:
        kind = self._sections.get(kind, kind)
        fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
        hints = _hints(typing.cast(Any, kind))
        own = set(vars(kind)["__annotations__"]) if kind in self._sections.values() else set()
        values: dict[str, object] = {}
        for key, value in self._present(content, fields, own, prefix).items():
            if dataclasses.is_dataclass(hints[key]):
                values[key] = self._section(typing.cast(type, hints[key]), value, prefix + key)
            else:
                values[key] = _convert(hints[key], value, fields[key], f"{self._source}: {prefix + key}")
        for key, item in fields.items():
            if key not in values and dataclasses.is_dataclass(hints[key]):
                values[key] = self._build(typing.cast(type, hints[key]), {}, f"{prefix}{key}.")
            elif key not in values:
                values[key] = left_out(item, self._edition)
        return kind(**values)

    def _section(self, kind: type[T], value: object, name: str) -> T:
        if not isinstance(value, dict):
            raise ConfigError(f"{self._source}: {name} is a table, given {value!r}")
        return self._build(kind, value, name + ".")

    def _present(
        self, content: Mapping[str, object], fields: Iterable[str], kept: set[str], prefix: str
    ) -> dict[str, object]:
        """The content in terms of today's keys, and of those that the edition kept."""
        found: dict[str, object] = {}
        for key, value in content.items():
            name = prefix + key
            gone = None if key in kept else RETIRED.get(name)
            if gone is not None and gone.concerns(value):
                found |= self._translated(key, content, prefix)
            elif key in fields:
                found[key] = value
            else:
                hint = did_you_mean(key, fields, prefix=prefix) or f"; allowed here: {', '.join(sorted(fields))}"
                raise ConfigError(f"{self._source}: unknown key {name!r}{hint}")
        return found

    def _translated(self, key: str, content: Mapping[str, object], prefix: str) -> dict[str, object]:
        name, value = prefix + key, content[key]
        gone = RETIRED[name]
        if gone.renamed:
            self._notes.append(f"{name} is called {prefix}{gone.renamed} since eravane {gone.since}")
            return {gone.renamed: value}
        left = {} if gone.becomes is None else {key: gone.becomes}
        what = f"{name} = {json.dumps(value, default=str)}"
        if gone.same(value, content):
            self._notes.append(f"{what} is no more since eravane {gone.since} and changed nothing here")
        else:
            self._lost.append(f"{what} is no more since eravane {gone.since}: {gone.instead}")
        return left


def bounds(item: dataclasses.Field[Any], kind: type) -> tuple[float, float]:
    """The least and the most that a key of numbers may be; `kind` is int or float."""
    least, most = item.metadata.get("least"), item.metadata.get("most")
    widest = MOST_INT if kind is int else MOST_FLOAT
    return -widest if least is None else least, widest if most is None else most


def require_between(name: str, value: float, least: float, most: float) -> None:
    """Check a number that a user gives.

    Raises:
        ConfigError: it is not a number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(f"{name} is a number from {shown(least)} to {shown(most)}, given {value!r:.40}")


def shown(value: float) -> str:
    """A number as messages and documents have it: 1,000,000."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def _convert(hint: object, value: object, item: dataclasses.Field[Any], where: str) -> object:
    converted = _scalar(hint, value, where)
    for number in converted if isinstance(converted, tuple) else (converted,):
        if isinstance(number, int | float) and not isinstance(number, bool):
            least, most = bounds(item, type(number))
            if not least <= number <= most:
                raise ConfigError(
                    f"{where} must be at least {shown(least)} and at most {shown(most)}, given {_given(number)}"
                )
    return converted


def _given(number: float) -> str:
    return repr(number) if abs(number) < 10**30 else f"a number of {math.floor(math.log10(abs(number))) + 1} digits"


def _scalar(hint: Any, value: object, where: str) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _scalar(next(kind for kind in arguments if kind is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            allowed = [*map(str, arguments)]
            near = did_you_mean(str(value), allowed)
            raise ConfigError(f"{where} is one of {', '.join(allowed)}, given {value!r}{near}")
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
        return float(max(-HUGE, min(HUGE, value)))  # what is larger is out of every bounds
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is a {hint.__name__}, given {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is a finite number, given {value}")
    return value


def _name(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{where}: names in a table are text, given {key!r}")
    return key


def _plain(value: object, where: str) -> object:
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


def left_out(item: dataclasses.Field[Any], edition: int) -> object:
    """Meaning of a key that is left out, under an edition."""
    default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return meaning_left_out(default, item.metadata["earlier"], edition)

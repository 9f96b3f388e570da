"""The reference of every configuration key, drawn from `config.py`; `python -m tests.architecture.configuration`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from eravane.core.config import RunConfig
from eravane.core.settings import bounds, shown

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
HEAD = """# Configuration

A run is decided by one TOML file: `eravane run DATA --config FILE --out RUN`. Every key has a default, so the file
holds only what differs; `RUN/run.toml` holds them all, as the run used them. An unknown key is an error that suggests
the nearest name, a value of the wrong type or out of bounds an error that says what is allowed. Ready files lie in
`configs/`. What decides *where* the work runs (`[compute]`) does not enter the digest that names a run's artefacts.

In Python: `eravane.run({"zoo": {"trees": 500}}, data=..., out=...)`, or `eravane.load_config(path)`.

This page is drawn from `engine/eravane/core/config.py` by `python -m tests.architecture.configuration`.
"""


def page() -> str:
    """The page as it should be."""
    parts = [HEAD, "## Top level\n", *_table(RunConfig, top=True)]
    for item in dataclasses.fields(RunConfig):
        section = typing.get_type_hints(RunConfig)[item.name]
        if dataclasses.is_dataclass(section):
            parts += [f"\n## `[{item.name}]`\n", f"{section.__doc__}\n", *_table(section)]
    return "\n".join(parts) + "\n"


def _table(section: Any, *, top: bool = False) -> Iterator[str]:
    hints = typing.get_type_hints(section)
    yield "| key | default | type | what |"
    yield "| --- | --- | --- | --- |"
    for item in dataclasses.fields(section):
        if not (top and dataclasses.is_dataclass(hints[item.name])):
            cells = (f"`{item.name}`", _default(item), _type(hints[item.name], item), item.metadata["doc"])
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(item: dataclasses.Field[Any]) -> str:
    value = item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore[misc]
    return "unset" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _type(hint: Any, item: dataclasses.Field[Any]) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _type(next(kind for kind in arguments if kind is not type(None)), item)
    if origin is Literal:
        return ", ".join(f'`"{choice}"`' for choice in arguments)
    if origin is tuple:
        return f"list of {_word(arguments[0])}"
    return _word(origin or hint) + _bounds(item, origin or hint)


def _word(kind: Any) -> str:
    words = {int: "integer", float: "number", str: "text", bool: "true or false", dict: "table"}
    return words.get(kind) or ", ".join(f'`"{choice}"`' for choice in typing.get_args(kind))


def _bounds(item: dataclasses.Field[Any], kind: Any) -> str:
    return ", {} to {}".format(*map(shown, bounds(item, kind))) if kind in (int, float) else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

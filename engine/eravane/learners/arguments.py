"""Arguments of `fit` and `predict` under the names of XGBoost and LightGBM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eravane.core.errors import ConfigError, DataError

Argument = tuple[str, Any]
"""An argument: the name that was used for it, and its value."""
AUTO = {
    "feature_name": "names are those of a data frame's columns; give X as one",
    "categorical_feature": "levels are split in order; make an indicator column of each category, or leave it out",
}


def one_of(**named: object) -> Argument:
    """The one of these arguments that is given, and its name; the first one and None where none is.

    Raises:
        ConfigError: two are.
    """
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{given[1]} is another name of {given[0]}: give one of them")
    name = given[0] if given else next(iter(named))
    return name, named[name]


def only_auto(**named: object) -> None:
    """Refuses arguments of LightGBM other than "auto".

    Raises:
        ConfigError: one does.
    """
    for name, value in named.items():
        if value is not None and not (isinstance(value, str) and value == "auto"):
            raise ConfigError(f"{name}: expected 'auto', given {value!r}; {AUTO[name]}")


def paired(eval_X: object, eval_y: object) -> list[tuple[Any, Any]]:
    """Pairs of rows and labels from LightGBM's `eval_X` and `eval_y`.

    Raises:
        ConfigError: one of them is missing, or their numbers differ.
    """
    rows, labels = (value if isinstance(value, tuple) else (value,) for value in (eval_X, eval_y))
    if eval_X is None or eval_y is None or len(rows) != len(labels):
        raise ConfigError("eval_X and eval_y: expected rows and labels, or as many of both in tuples")
    return list(zip(rows, labels, strict=True))


def as_many(values: object, many: int, name: str) -> list[Any]:
    """A value for each evaluation set; None for each where none is given.

    Raises:
        ConfigError: it is no list of as many.
    """
    if values is None:
        return [None] * many
    if not isinstance(values, list | tuple) or len(values) != many:
        given = len(values) if isinstance(values, list | tuple) else type(values).__name__
        raise ConfigError(f"{name}: expected a list of {many} entries, given {given}")
    return list(values)


def is_pair(entry: object) -> bool:
    """Whether it is rows and their labels."""
    return isinstance(entry, list | tuple) and len(entry) == 2


def are_names(y: object) -> bool:
    """Whether labels are names of columns."""
    return isinstance(y, list | tuple) and bool(y) and all(isinstance(entry, str) for entry in y)


def other_columns(given: Sequence[str], known: Sequence[str], what: str) -> DataError:
    """The error for columns that are not those of training."""
    for place, (one, other) in enumerate(zip(given, known, strict=False)):
        if one != other:
            order = "; columns are in the same order as in training" if set(given) == set(known) else ""
            return DataError(f"{what}: column {place} is {one!r}, in training it was {other!r}{order}")
    return DataError(f"{what} has {len(given)} columns, training had {len(known)}")

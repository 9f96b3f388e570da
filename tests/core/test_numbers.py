"""Absurd numbers in every key of numbers: a refusal that names the key and its range, or a run that can be planned."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eravane.core import settings
from eravane.core.config import FirstGateConfig, FirstLoopConfig, RunConfig, load_config, parse_config
from eravane.core.errors import ConfigError, EravaneError
from eravane.core.settings import bounds
from eravane.core.units import parse_size
from eravane.planning.cost import plan_cost
from eravane.planning.shape import read_shape
from eravane.planning.workload import Hardware
from eravane.synth import SynthConfig, synthesise

ABSURD = (10**20, -(10**20), 10**400, -(10**400), 1e308, -1e308, math.nan, math.inf, -math.inf, True)


def _numbers(kind: Any = RunConfig, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], type]]:
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from _numbers(hint, f"{prefix}{item.name}.")
        found = {one for one in (hint, *typing.get_args(hint)) if one in (int, float)}
        if found:
            yield prefix + item.name, item, found.pop()


KEYS = {name: (item, kind) for name, item, kind in _numbers() if name != "edition"}
OLD_KEYS = {
    f"{section}.{name}": (item, kind)
    for section, group in (("gate", FirstGateConfig), ("loop", FirstLoopConfig))
    for name, item, kind in _numbers(group)
}


def _with(name: str, value: object) -> dict[str, Any]:
    section, _, key = name.rpartition(".")
    return {section: {key: value}} if section else {key: value}


def _values(name: str, value: object) -> list[object]:
    return [value, [value]] if name == "gate.half_lives" else [value]


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize("value", ABSURD, ids=lambda value: f"{value!r:.8}")
def test_absurd_numbers_are_refused_by_name_with_the_range(value: object, edition: int) -> None:
    keys = KEYS if edition == 2 else {**KEYS, **OLD_KEYS}
    for name, (item, kind) in keys.items():
        for given in _values(name, value):
            with pytest.raises(ConfigError) as caught:
                parse_config(_with(name, given), edition=edition)
            assert name in str(caught.value)
            if isinstance(value, int) and not isinstance(value, bool) and given is value and name != "gate.half_lives":
                assert all(settings.shown(bound) in str(caught.value) for bound in bounds(item, kind)), name


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = SynthConfig(main_target="target_ender_20", eras=80, rows=40, features=16, groups=3)
    return synthesise(tmp_path_factory.mktemp("numbers") / "data", sizes)


def _refusal(content: dict[str, Any], data: Path) -> str:
    """Why a run cannot be planned; empty where it can. Any error but eravane's own is raised."""
    try:
        config = parse_config(content)
        plan_cost(config, read_shape(data, config), Hardware("cpu", 2, 0, math.inf, math.inf)).lines()
    except EravaneError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", KEYS)
def test_the_bounds_themselves_can_be_planned_or_are_refused_in_a_sentence(name: str, data: Path) -> None:
    base = {"data": {"feature_sets": ["small"]}, "time": {"loop_eras": 20}, "zoo": {"fold_eras": 20, "folds": 1}}
    for value in bounds(*KEYS[name]):
        section, _, key = name.rpartition(".")
        content = {**base, section: {**base.get(section, {}), key: value}} if section else {**base, key: value}
        refusal = _refusal(content, data)
        assert not refusal or " " in refusal, name


@pytest.mark.parametrize("learner", ["levels", "xgboost", "lightgbm"])
@pytest.mark.parametrize("value", [*ABSURD, 2**31, -1, 0, 1e-300], ids=lambda value: f"{value!r:.8}")
def test_parameters_of_learners_are_refused_or_can_be_planned(learner: str, value: object, data: Path) -> None:
    for name in ("max_depth", "eta", "max_bin", "subsample", "colsample_bytree", "reg_lambda", "num_leaves", "gamma"):
        content = {
            "data": {"feature_sets": ["small"]},
            "time": {"loop_eras": 20},
            "zoo": {"fold_eras": 20, "folds": 1, "learner": learner, "params": {name: value}},
        }
        refusal = _refusal(content, data)
        assert not refusal or "zoo.params" in refusal, name


@pytest.mark.parametrize("text", ["9" * 400 + "GB", "1" + "0" * 20 + "TB", "0.0001B", "-5GB", "nan", "1e9", "٣GB"])
def test_sizes_that_nobody_has_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no size from 1 B to 1,000,000 TB"):
        parse_size(text)


@pytest.mark.parametrize("name", ["eras", "rows", "features", "seed", "row_group_eras", "n_regimes", "snr"])
@pytest.mark.parametrize("value", [10**20, -(10**20), 1e308, math.nan, math.inf], ids=str)
def test_made_data_of_absurd_sizes_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"synth: {name} is"):
        SynthConfig(**{name: value})


def test_numbers_of_thousands_of_digits_and_deep_lists_are_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    for text in ("seed = " + "9" * 5000, "a = " + "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ConfigError, match="is not TOML"):
            load_config(path)

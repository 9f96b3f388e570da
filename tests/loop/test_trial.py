"""The trial of update rules: what it follows is what did best on eras that are resolved, by scores computed apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numerai_tools.scoring import numerai_corr

from eravane.core.config import LoopConfig
from eravane.core.errors import ConfigError
from eravane.learners.registry import Trees, load_booster
from eravane.learners.xgboost import fit, quantile_matrix, resolve_params
from eravane.loop.trial import RULES, Trial, make_trial
from eravane.loop.updates import Model, Updater
from eravane.zoo.specs import ModelSpec
from eravane_kernels import cpu

PARAMS, _ = resolve_params({"colsample_bytree": 1.0, "max_depth": 3}, "cpu")
COLUMNS = ("f0", "f1", "f2")
SPEC = ModelSpec("all", "all", "target", 0, COLUMNS)
HALF_LIFE = 4.0


def _era(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values_CN = rng.integers(0, 5, (3, 400)).astype(np.int8)
    levels = np.array([0.0, 0.25, 0.5, 0.75, 1.0], dtype=np.float32)
    noisy = values_CN[0] + rng.normal(size=400) * 2
    return values_CN, levels[np.digitize(noisy, np.quantile(noisy, [0.1, 0.3, 0.7, 0.9]))]


def _model(sign: int) -> Model:
    values_CN, label_N = _era(99)
    matrix = quantile_matrix(pa.table(dict(zip(COLUMNS, values_CN, strict=True))), PARAMS)
    return Model(Trees((fit(matrix, 0.5 + sign * (label_N - 0.5), None, trees=5, params=PARAMS, seed=1),), COLUMNS))


class Turns:
    """An updater that turns its model into another one at one era."""

    def __init__(self, era: int, into: Model) -> None:
        self._era, self._into = era, into

    def due(self, era: int) -> str:
        return "refit" if era == self._era else ""

    def update(self, specs: Sequence[ModelSpec], models: Mapping[str, Model], era: int) -> dict[str, Model]:
        return {spec.model_id: self._into for spec in specs}


@pytest.fixture(scope="module")
def good() -> Model:
    return _model(1)


@pytest.fixture(scope="module")
def bad() -> Model:
    return _model(-1)


def _trial(good: Model, bad: Model) -> Trial:
    updaters = {"stays bad": Turns(0, bad), "turns good": Turns(3, good), "turns bad": Turns(9, bad)}
    trial = Trial(SPEC, cast(Mapping[str, Updater], updaters), HALF_LIFE)
    trial.begin(bad)
    return trial


def _corr(model: Model, era: int) -> float:
    values_CN, label_N = _era(era)
    said = pd.DataFrame({"p": load_booster(model.trees.blocks[0]).inplace_predict(values_CN.T)})
    return float(numerai_corr(said, pd.Series(label_N, name="y"))["p"])


def test_the_rule_that_scored_best_is_followed(good: Model, bad: Model) -> None:
    trial, lag, keep = _trial(good, bad), 2, 0.5 ** (1 / HALF_LIFE)
    followed, total, weight = [], np.zeros(3), 0.0
    for era in range(1, 12):
        if era > lag:
            trial.resolve(era - lag, _era(era - lag)[1], cpu)
            turned = [bad, good if era - lag >= 3 else bad, bad]
            total = keep * total + [_corr(model, era - lag) for model in turned]
            weight = keep * weight + 1
            assert list(trial.scores.values()) == pytest.approx(list(total / weight), abs=1e-9)
        trial.update(era)
        trial.predict(era, _era(era)[0])
        followed.append(trial.rule)
    # The second rule is better from era 3 on; that is known when era 3 is resolved, before era 5.
    assert followed[:4] == ["stays bad"] * 4
    assert followed[4:] == ["turns good"] * 7
    assert trial.updater.due(3) == "refit"
    assert trial.updater.due(9) == ""


def test_the_first_rule_is_followed_until_there_is_evidence(good: Model, bad: Model) -> None:
    trial = Trial(SPEC, cast(Mapping[str, Updater], {"first": Turns(0, bad), "second": Turns(0, good)}), 7.0)
    trial.begin(bad)
    trial.models["second"] = good
    for era in range(1, 6):
        trial.predict(era, _era(era)[0])
        trial.resolve(era, _era(era)[1], cpu)
        assert trial.rule == ("first" if era < 4 else "second")  # half of seven eras, rounded up


def test_a_restored_trial_goes_on_as_it_would_have(good: Model, bad: Model) -> None:
    whole, cut = _trial(good, bad), _trial(good, bad)
    for era in range(1, 12):
        if era == 7:
            arrays, facts = cut.state()
            models, cut = cut.models, _trial(good, bad)
            cut.restore(models, arrays, facts)
        for trial in (whole, cut):
            if era > 2:
                trial.resolve(era - 2, _era(era - 2)[1], cpu)
            trial.update(era)
            trial.predict(era, _era(era)[0])
        assert (cut.rule, cut.scores) == (whole.rule, whole.scores)


def test_an_era_whose_labels_never_come_is_passed_over(good: Model, bad: Model) -> None:
    trial = _trial(good, bad)
    for era in (1, 2, 3):
        trial.predict(era, _era(era)[0])
    trial.resolve(2, _era(2)[1], cpu)
    assert sorted(trial.state()[0]) == ["3"]
    trial.resolve(1, _era(1)[1], cpu)
    assert trial.state()[1]["resolved"] == 1


def test_rules_that_a_learner_cannot_follow_are_left_out() -> None:
    def updater_of(config: LoopConfig) -> Updater:
        if config.update in ("leaves", "append"):
            raise ConfigError("not with this learner")
        return cast(Updater, Turns(0, Model(Trees((), ()))))

    specs = [dataclasses.replace(SPEC, group=f"g{n}", columns=COLUMNS[:n]) for n in (1, 3, 2)]
    trial = make_trial(specs, LoopConfig(update="auto"), updater_of)
    assert trial.rules == tuple(rule for rule in RULES if rule not in ("leaves", "append"))
    assert trial.spec is specs[2]  # of middle width

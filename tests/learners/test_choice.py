"""What grows the trees where the configuration says "auto", and the reason that is given."""

from __future__ import annotations

from typing import Any

import pytest

from eravane.core.config import parse_config
from eravane.core.errors import ConfigError
from eravane.learners.choice import resolve_learner
from eravane.learners.registry import make_learner


@pytest.mark.parametrize(
    ("dtype", "params", "compute", "learner", "reason"),
    [
        ("int8", {}, {}, "levels", "all features are integer levels"),
        ("int8", {"max_depth": 12, "subsample": 0.5, "reg_lambda": 2}, {}, "levels", "all features"),
        ("int8", {"tree_method": "gpu_hist"}, {"device": "cuda"}, "levels", "all features"),
        ("float32", {}, {}, "xgboost", "the features are float32"),
        ("int8", {"max_depth": 13}, {}, "xgboost", "max_depth: expected 1..12, given 13"),
        ("int8", {"objective": "reg:absoluteerror"}, {}, "xgboost", "zoo.params.objective"),
        ("int8", {"colsample_bynode": 0.5}, {}, "xgboost", "zoo.params.colsample_bynode is not known to the level"),
        ("int8", {"grow_policy": "lossguide"}, {}, "xgboost", "zoo.params.grow_policy"),
        ("int8", {}, {"booster_spans": "cluster"}, "xgboost", "compute.booster_spans"),
    ],
)
def test_the_level_grower_is_taken_wherever_it_can_grow_the_trees(
    dtype: str, params: dict[str, Any], compute: dict[str, Any], learner: str, reason: str
) -> None:
    config = parse_config({"zoo": {"params": params}, "compute": compute})
    assert config.zoo.learner == "auto"
    found, text = resolve_learner(config, dtype)
    assert found.zoo.learner == learner
    assert text.startswith(f'zoo.learner "auto" is "{learner}": ')
    assert reason in text
    assert make_learner(found.zoo, "cpu")[0].name == learner


@pytest.mark.parametrize("learner", ["levels", "xgboost", "lightgbm"])
def test_a_learner_that_is_named_stays(learner: str) -> None:
    config = parse_config({"zoo": {"learner": learner}})
    assert resolve_learner(config, "float32") == (config, "")


def test_what_no_learner_takes_is_still_refused() -> None:
    found, _ = resolve_learner(parse_config({"zoo": {"params": {"seed": 3}}}), "int8")
    with pytest.raises(ConfigError, match="seed is set by eravane"):
        make_learner(found.zoo, "cpu")

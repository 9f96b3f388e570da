"""Choice of the learner where the configuration leaves it open (`zoo.learner = "auto"`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError

Choice = Literal["auto", "levels", "xgboost", "lightgbm"]


def resolve_learner(config: RunConfig, dtype: str) -> tuple[RunConfig, str]:
    """The configuration with a learner in place of "auto", and a sentence with the choice and its reason.

    The level grower grows the trees wherever it can, on both devices: XGBoost's own trees in a fraction of the time.
    XGBoost grows them on float features, with parameters that the level grower does not have, and where one booster
    spans a cluster.

    Args:
        config: the run's configuration; one that names its learner is returned as it is, with an empty sentence.
        dtype: of the features, "int8" or "float32".
    """
    if config.zoo.learner != "auto":
        return config, ""
    reason = _against_levels(config, dtype)
    learner: Choice = "xgboost" if reason else "levels"
    note = f'zoo.learner "auto" is "{learner}": {reason or "all features are integer levels"}'
    return with_learner(config, learner), note


def with_learner(config: RunConfig, learner: Choice) -> RunConfig:
    """The configuration with this learner."""
    return replace(config, zoo=replace(config.zoo, learner=learner))


def _against_levels(config: RunConfig, dtype: str) -> str:
    """Why the level grower cannot grow these trees; empty where it can."""
    from eravane.learners.levels import Levels

    if dtype != "int8":
        return f"the features are {dtype}, and the level grower needs integer levels"
    if config.compute.booster_spans == "cluster":
        return 'compute.booster_spans = "cluster", and the level grower trains a booster on one worker'
    try:
        Levels.make(config.zoo.params, "cpu")
    except ConfigError as error:
        fact, _, _ = str(error).partition(";")
        return fact.replace('zoo.learner "levels"', "the level grower")
    return ""

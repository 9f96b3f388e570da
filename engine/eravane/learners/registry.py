"""Registry of learners by their name in the configuration, and of fitted blocks by their writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eravane.core.arrays import Float32s, Values, on_host
from eravane.core.config import ZooConfig
from eravane.core.settings import MOST_FLOAT, require_between
from eravane.learners import lightgbm, outside
from eravane.learners.forest import Predictor
from eravane.learners.levels import Levels
from eravane.learners.protocol import Learner, Model
from eravane.learners.xgboost import XGBoost, resolve_params, try_params
from eravane_kernels.cpu.levelcolumns import LevelColumns

# Least and most of parameters that decide how much is held and how long it takes.
BOUNDS = {"max_depth": (-1, 32), "max_leaves": (0, 131_072), "num_leaves": (2, 131_072), "max_bin": (2, 65_536)}


def make_learner(config: ZooConfig, device: str) -> tuple[Learner, list[str]]:
    """The learner that the configuration names, and notes on translated parameters.

    Args:
        config: with a learner that is settled, see `eravane.learners.choice.resolve_learner`.
        device: "cpu" or "cuda".

    Raises:
        ConfigError: a parameter contradicts what the engine sets itself, or the learner cannot use the device or is
            not installed.
    """
    assert config.learner != "auto", "settled by resolve_learner where the features are known"
    require_sane(config.params)
    if config.learner == "lightgbm":
        return lightgbm.LightGbm.make(config.params, device)
    if config.learner == "levels":
        return Levels.make(config.params, device)
    params, notes = resolve_params(config.params, device)
    return XGBoost(params), notes + try_params(params)


def require_sane(params: Mapping[str, Any]) -> None:
    """Check that numbers among the learner's parameters are of a size that anything is computed with.

    Raises:
        ConfigError: one is not.
    """
    for name, value in params.items():
        least, most = BOUNDS.get(name, (-MOST_FLOAT, MOST_FLOAT))
        if name in BOUNDS or (isinstance(value, int | float) and not isinstance(value, bool)):
            require_between(f"zoo.params.{name}", value, least, most)


def load_booster(block: bytes) -> Model:
    """A fitted block from its bytes: a `Predictor` from UBJ, else that of the learner that wrote them."""
    if block.startswith(lightgbm.MARK):
        return lightgbm.Boosted.load(block)
    if block == outside.BLOCK:
        return outside.Column()
    return Predictor(block)


@dataclass(frozen=True)
class Trees:
    """A fitted model: one booster, or a first booster and blocks of trees appended to it.

    Attributes:
        blocks: bytes of each booster (XGBoost's UBJ, or another learner's own); the first holds the intercept, each
            later one starts from the margin of those before.
        columns: names of the features, in the order of training.
    """

    blocks: tuple[bytes, ...]
    columns: tuple[str, ...]

    def boosters(self) -> list[Model]:
        """The blocks as models that predict with one thread."""
        return [load_booster(block) for block in self.blocks]

    @property
    def rounds(self) -> int:
        """Trees over all blocks."""
        return sum(booster.num_boosted_rounds() for booster in self.boosters())


def predict(boosters: Sequence[Model], values_CN: Values | LevelColumns) -> Float32s:
    """Predict rows with the sum of a model's blocks.

    Args:
        boosters: from `Trees.boosters`.
        values_CN: int8 or float32 [C, N], the model's columns alone; levels where they lie are copied for boosters that
            do not read them there.

    Returns:
        float32 [N].
    """
    rows = values_CN.rows if isinstance(values_CN, LevelColumns) else values_CN.shape[1]
    total = np.zeros(rows, dtype=np.float32)
    for booster in boosters:
        # XGBoost's trees are evaluated where the columns lie, others on the host.
        if isinstance(booster, Predictor):
            total += booster.output(values_CN)
        else:
            total += booster.output(_matrix(values_CN))
    return total


def _matrix(values_CN: Values | LevelColumns) -> Values:
    found: Values = values_CN.matrix() if isinstance(values_CN, LevelColumns) else on_host(values_CN)
    return found

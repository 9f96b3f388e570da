"""What the zoo asks of a learner: a matrix that serves many models, trees grown on it, a fitted model that predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from eravane.core.config import ZooConfig

FloatArray = NDArray[np.float32]

# Learners whose blocks are XGBoost's models.
GROW_XGBOOST = ("xgboost", "levels")


class Stop(Protocol):
    """Asked between two trees whether to go on."""

    def is_set(self) -> bool:
        """Whether training shall end."""
        ...


class Model(Protocol):
    """A fitted block of trees."""

    def predict(self, values_CN: NDArray[Any]) -> FloatArray:
        """Predict rows from int8 or float32 columns [C, N]; float32 [N]."""
        ...


class Learner(Protocol):
    """Grows trees. A frozen value: it travels to workers, and what it says of itself names cached models."""

    @property
    def name(self) -> str:
        """As `zoo.learner` and zoo.parquet name it."""
        ...

    @property
    def device(self) -> str:
        """Where trees are grown, "cpu" or "cuda"."""
        ...

    @property
    def params(self) -> Mapping[str, Any]:
        """Resolved parameters."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Everything of the learner that decides a model, JSON-able: parameters and library version."""
        ...

    def matrix(self, table: Any) -> Any:
        """Bin a table of columns (Arrow on the host, cuDF on a GPU) for any number of models."""
        ...

    def bytes_needed(self, rows: int, columns: int, itemsize: int, models: int = 1) -> int:
        """Bytes that training on such a matrix holds at its peak, on the learner's device.

        models: of the same cell and seed; learners that do not grow them together hold one of them at a time.
        """
        ...

    def fit(
        self,
        matrix: Any,
        label_N: FloatArray,
        weight_N: FloatArray | None,
        *,
        trees: int,
        seed: int,
        margin_N: FloatArray | None = None,
        stop: Stop | None = None,
    ) -> bytes:
        """Grow trees on a matrix that may already have served other targets.

        Args:
            matrix: from `matrix`; its labels are replaced.
            label_N: float32 [N]; NaN rows count as absent.
            weight_N: float32 [N] or None for equal weights.
            trees: boosting rounds.
            seed: of this call alone.
            margin_N: float32 [N] output of earlier blocks; the new trees then carry no intercept of their own.
            stop: asked between trees.

        Returns:
            The block as bytes that `eravane.learners.xgboost.load_booster` reads.

        Raises:
            RunError: no row has a label.
            DeviceError: the device asked for was not used, or has too little memory.
            TrainingInterruptedError: `stop` was set.
        """
        ...


@runtime_checkable
class GrowsTogether(Protocol):
    """What a learner can do besides, whose models of a cell that differ in their target alone draw alike.

    They share the seed of their draws, and so the columns of every tree: one pass over these serves all of them. What a
    model is does not depend on which others are grown with it.
    """

    def fit_together(
        self,
        matrix: Any,
        label_BN: FloatArray,
        weight_N: FloatArray | None,
        *,
        trees: int,
        seed: int,
        stop: Stop | None = None,
    ) -> list[bytes]:
        """Grow trees for B targets: for each the block that `Learner.fit` gives for it alone with this seed.

        Args:
            matrix: from `matrix`.
            label_BN: float32 [B, N]; NaN rows count as absent.
            weight_N: float32 [N] or None for equal weights.
            trees: boosting rounds.
            seed: of this call alone.
            stop: asked between rounds.

        Raises:
            RunError: a target has no label.
            TrainingInterruptedError: `stop` was set.
        """
        ...


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
    if config.learner == "lightgbm":
        from eravane.learners.lightgbm import LightGbm

        return LightGbm.make(config.params, device)
    if config.learner == "levels":
        from eravane.learners.levels import Levels

        return Levels.make(config.params, device)
    from eravane.learners.xgboost import XGBoost, resolve_params

    params, notes = resolve_params(config.params, device)
    return XGBoost(params), notes

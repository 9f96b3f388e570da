"""Protocols of learners (a matrix that serves many models, trees grown on it) and of fitted models; their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Required, TypedDict, Unpack, runtime_checkable

import numpy as np

from eravane.core.arrays import Bools, Float32s, Values
from eravane.core.errors import OutOfDeviceMemoryError as OutOfDeviceMemoryError
from eravane.core.errors import RunError
from eravane_kernels.cpu.levelcolumns import LevelColumns

# Learners whose blocks are XGBoost's models.
GROW_XGBOOST = ("xgboost", "levels")
# What trees start from: targets are centred on it, and a fitted intercept would be added again by every appended block.
INTERCEPT = 0.5


class TrainingInterruptedError(RunError):
    """Training was interrupted between two trees."""


class Stop(Protocol):
    """Checked between two trees: whether to stop."""

    def is_set(self) -> bool:
        """Whether to end training."""
        ...


def check_stop(stop: Stop | None) -> None:
    """Raise `TrainingInterruptedError` where training is to end."""
    if stop is not None and stop.is_set():
        raise TrainingInterruptedError("training was interrupted")


def known_rows(label_N: Float32s) -> Bools:
    """The rows that have a label, bool [N].

    Raises:
        RunError: there are none.
    """
    known_N: Bools = ~np.isnan(label_N)
    if not known_N.any():
        raise RunError("no training row has a label; use other eras or another target")
    return known_N


class Growing(TypedDict, total=False):
    """How trees are grown on a matrix that may already have served other targets.

    Attributes:
        trees: boosting rounds.
        seed: of this call alone.
        margin_N: float32 [N] output of earlier blocks; the new trees then carry no intercept of their own.
        stop: asked between trees.
    """

    trees: Required[int]
    seed: Required[int]
    margin_N: Float32s | None
    stop: Stop | None


class Model(Protocol):
    """A fitted block of trees."""

    def num_boosted_rounds(self) -> int:
        """Trees in the block."""
        ...

    def output(self, values_CN: Values) -> Float32s:
        """Predict rows from int8 or float32 columns [C, N]; float32 [N]."""
        ...


class Learner(Protocol):
    """Grows trees. A frozen value: it is sent to workers, and its identity names cached models."""

    @property
    def name(self) -> str:
        """Its name in `zoo.learner` and zoo.parquet."""
        ...

    @property
    def device(self) -> str:
        """Device on which trees are grown, "cpu" or "cuda"."""
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
        """Bin a table of columns (Arrow on the host, a `DeviceTable` on a GPU) for any number of models."""
        ...

    def bytes_needed(self, rows: int, columns: int, itemsize: int, models: int = 1, *, missing: bool = False) -> int:
        """Bytes that training holds at its peak on the learner's device, beside the table that it is given.

        Args:
            rows, columns, itemsize: of the table.
            models: of the same cell and seed; learners that do not grow them together hold one of them at a time.
            missing: whether cells may be missing (NaN).
        """
        ...

    def fit(self, matrix: Any, label_N: Float32s, weight_N: Float32s | None, **how: Unpack[Growing]) -> bytes:
        """Grow trees on a matrix that may already have served other targets.

        Args:
            matrix: from `matrix`; its labels are replaced.
            label_N: float32 [N]; NaN rows count as absent.
            weight_N: float32 [N] or None for equal weights.
            how: see `Growing`.

        Returns:
            The block as bytes that `eravane.learners.registry.load_booster` reads.

        Raises:
            RunError: no row has a label.
            DeviceError: the device asked for was not used, or has too little memory.
            TrainingInterruptedError: `stop` was set.
        """
        ...


@runtime_checkable
class TakesLevels(Protocol):
    """A learner that grows trees on columns of levels where they lie."""

    def matrix_of(self, columns: LevelColumns, names: Sequence[str]) -> Any:
        """The same as `Learner.matrix` of a table of these columns, without one.

        Raises:
            RunError: they hold something else than levels 0..4 and -1.
        """
        ...


@runtime_checkable
class GrowsTogether(Protocol):
    """A learner that grows models of a cell together where they differ in their target alone, with the same draws.

    They share the seed of their draws, and so the columns of every tree: one pass over these serves all of them. What a
    model is does not depend on which others are grown with it.
    """

    @property
    def together(self) -> int:
        """The most models that are grown at once."""
        ...

    def fit_together(
        self, matrix: Any, label_BN: Float32s, weight_N: Float32s | None, **how: Unpack[Growing]
    ) -> list[bytes]:
        """Grow trees for B targets: for each the block that `Learner.fit` gives for it alone with this seed.

        Args:
            matrix: from `matrix`.
            label_BN: float32 [B, N]; NaN rows count as absent.
            weight_N: float32 [N] or None for equal weights.
            how: see `Growing`; without margins.

        Raises:
            RunError: a target has no label.
            TrainingInterruptedError: `stop` was set.
        """
        ...

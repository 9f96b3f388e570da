"""The level grower as a learner: XGBoost's trees, grown on the sampled columns alone, where they lie in the store.

On a GPU, where `levels_device` grows them, the same models come out to the byte.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

import numpy as np
import pyarrow as pa
import xgboost as xgb
from numpy.typing import NDArray
from packaging.version import Version

from eravane.core.arrays import Float32s
from eravane.core.errors import ConfigError, RunError
from eravane.learners.levels_device import DeviceBoosting, device_bytes, device_columns
from eravane.learners.levels_model import to_ubj
from eravane.learners.protocol import INTERCEPT, Growing, Stop, check_stop, known_rows
from eravane.learners.xgboost import DEFAULT_PARAMS, resolve_params
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules, Tree

# XGBoost's names of what the grower knows; others would be ignored, which XGBoost itself only warns of.
ALIASES = {
    "learning_rate": "eta",
    "reg_lambda": "lambda",
    "reg_alpha": "alpha",
    "min_split_loss": "gamma",
}
KNOWN = (*DEFAULT_PARAMS, "lambda", "alpha", "gamma", "min_child_weight", "subsample", "booster", "grow_policy")
ONLY: Mapping[str, str] = {"objective": "reg:squarederror", "booster": "gbtree", "grow_policy": "depthwise"}
# Weights, eras and labels while they are read; and what a thread needs for a shard, for itself and per model. Sums are
# two integers per level of a column, of two levels of nodes and of half a level that is counted.
BYTES_PER_ROW, BYTES_PER_THREAD, BYTES_PER_SHARD, BYTES_PER_SUM = 24, 2**19, 8 * 65_536, 240
# Models of several targets that are grown at once, and bytes a row that each of them takes.
LEVELS_TOGETHER, LEVELS_ROW_BYTES = 8, 18
# Seconds of growing between two checks of the stop flag: rounds in one call hold no interpreter lock.
SECONDS_PER_CALL = 0.2


@dataclass(frozen=True)
class LevelMatrix:
    """Columns that trees are grown on, and their names."""

    columns: Any
    names: tuple[str, ...]


class Growth(Protocol):
    """Models that grow side by side, on draws of columns and rows that they share."""

    def grow(self, rounds: int) -> list[list[Tree]]:
        """The next trees, [rounds][B]; there may be fewer rounds than asked for, but one."""
        ...

    def learn_at(self, eta: float) -> None:
        """Change the factor of the leaf values for the trees that are still to grow."""
        ...


@dataclass(frozen=True)
class Levels:
    """The level grower on one thread of the CPU, or on a GPU.

    Models of a cell and seed whose targets differ draw the same columns and rows in every round, and so are grown
    together; other seeds draw others.

    Attributes:
        params: complete parameters under XGBoost's names.
    """

    params: Mapping[str, Any]
    name: str = "levels"
    device: str = "cpu"
    together: int = LEVELS_TOGETHER

    @classmethod
    def make(cls, params: Mapping[str, object], device: str) -> tuple[Levels, list[str]]:
        """Complete parameters with the defaults.

        Raises:
            ConfigError: a parameter is the engine's own, not known or out of range.
        """
        for name in params:
            if name not in (*KNOWN, *ALIASES, "device", "seed", "random_state", "nthread", "n_jobs", "base_score"):
                raise ConfigError(
                    f'zoo.params.{name} is not known to zoo.learner "levels"; take it out, or use zoo.learner = '
                    '"xgboost"'
                )
        resolved, notes = resolve_params({ALIASES.get(name, name): value for name, value in params.items()}, device)
        for name, value in ONLY.items():
            if resolved.get(name, value) != value:
                raise ConfigError(
                    f'zoo.params.{name} is "{value}" with zoo.learner "levels", given {resolved[name]!r}; use '
                    'zoo.learner = "xgboost"'
                )
        learner = cls(resolved, device=device)
        try:
            learner._rules()
        except ValueError as error:
            raise ConfigError(f"zoo.params: {error}") from error
        for name in ("colsample_bytree", "subsample"):
            if not 0 < resolved.get(name, 1.0) <= 1:
                raise ConfigError(f"zoo.params.{name} lies in (0, 1], given {resolved[name]}")
        return learner, notes

    @property
    def identity(self) -> dict[str, Any]:
        """Parameters, the version of XGBoost whose model is written, and that of the draws."""
        return {"params": dict(self.params), "levels": 2, "xgboost": xgb.__version__}

    def matrix(self, table: Any) -> LevelMatrix:
        """The columns of an Arrow table, or on a GPU of a table there, where they lie.

        Raises:
            RunError: they hold something else than levels 0..4 and -1.
        """
        if self.device == "cuda":
            return LevelMatrix(*device_columns(table))
        kinds = sorted({str(kind) for kind in table.schema.types})
        if kinds != ["int8"]:
            raise RunError(
                f'zoo.learner "levels" needs features of integer levels, given {", ".join(kinds)}; use zoo.learner = '
                '"xgboost"'
            )
        return self.matrix_of(LevelColumns(*addresses(table), table, missing=True), table.column_names)

    def matrix_of(self, columns: LevelColumns, names: Sequence[str]) -> LevelMatrix:
        """See `TakesLevels.matrix_of`."""
        try:
            checked = LevelColumns.at(columns.address_SC, columns.row_S, columns.owner)
        except ValueError as error:
            raise RunError(f'zoo.learner "levels": {error}; use zoo.learner = "xgboost"') from error
        return LevelMatrix(checked, tuple(names))

    def bytes_needed(self, rows: int, columns: int, itemsize: int, models: int = 1, *, missing: bool = False) -> int:
        """Bytes beside the store's pages; on a GPU all of them."""
        models = min(models, self.together)
        if self.device == "cuda":
            return device_bytes(rows, columns, self._chosen(columns), self._rules(), models)
        nodes = 1 << (int(self.params["max_depth"]) - 1)
        of_model = rows * LEVELS_ROW_BYTES + BYTES_PER_SHARD + nodes * self._chosen(columns) * BYTES_PER_SUM
        return rows * BYTES_PER_ROW + BYTES_PER_THREAD + models * of_model

    def fit(self, matrix: LevelMatrix, label_N: Float32s, weight_N: Float32s | None, **how: Unpack[Growing]) -> bytes:
        """See `Learner.fit`."""
        return self.fit_together(matrix, label_N[None], weight_N, **how)[0]

    def fit_together(
        self, matrix: LevelMatrix, label_BN: Float32s, weight_N: Float32s | None, **how: Unpack[Growing]
    ) -> list[bytes]:
        """See `GrowsTogether.fit_together`; margins are of one target."""
        from eravane_kernels.cpu.boosting import Boosting

        for label_N in label_BN:
            known_rows(label_N)
        margin_N = how.get("margin_N")
        base = INTERCEPT if margin_N is None else 0.0
        margin_BN = np.full(label_BN.shape, base, dtype=np.float32)
        if margin_N is not None:
            margin_BN[:] = margin_N
        growth = (DeviceBoosting if self.device == "cuda" else Boosting)(
            matrix.columns,
            self._rules(),
            np.require(label_BN, requirements=["C", "W"]),
            weight_N,
            margin_BN,
            seed=how["seed"],
            chosen=self._chosen(matrix.columns.width),
            share=float(self.params.get("subsample", 1.0)),
        )
        rounds = grown(growth, how["trees"], how.get("stop"))
        del growth, margin_BN  # their memory is free while the models are written
        return [to_ubj([trees[model] for trees in rounds], matrix.names, base) for model in range(len(label_BN))]

    def _chosen(self, width: int) -> int:
        """Columns of a tree."""
        return max(1, int(self.params["colsample_bytree"] * width))

    def _rules(self) -> Rules:
        params = self.params
        return Rules(
            max_depth=int(params["max_depth"]),
            eta=float(params["eta"]),
            reg_lambda=float(params.get("lambda", 1.0)),
            reg_alpha=float(params.get("alpha", 0.0)),
            gamma=float(params.get("gamma", 0.0)),
            min_child_weight=float(params.get("min_child_weight", 1.0)),
            gain_from_weight=gain_from_weight(xgb.__version__),
        )


def addresses(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Address of every int8 column in every chunk, int64 [S, C], and the rows of the chunks, int64 [S]."""
    batches = table.to_batches()
    address_SC = [[column.buffers()[1].address + column.offset for column in batch.columns] for batch in batches]
    row_S = np.array([batch.num_rows for batch in batches], dtype=np.int64)
    return np.array(address_SC, dtype=np.int64).reshape(len(batches), table.num_columns), row_S


def gain_from_weight(version: str) -> bool:
    """Whether that XGBoost computes gains from rounded weights (`growth.Rules`), as 3.4 began to do."""
    return Version(version) >= Version("3.4")


def grown(growth: Growth, trees: int, stop: Stop | None) -> list[list[Tree]]:
    """Trees [rounds][B]; `stop` is asked about every `SECONDS_PER_CALL`, and never less than once a round.

    Raises:
        TrainingInterruptedError: `stop` was set.
    """
    rounds: list[list[Tree]] = []
    asked = 1
    while len(rounds) < trees:
        check_stop(stop)
        began = time.perf_counter()
        found = growth.grow(min(asked, trees - len(rounds)))
        asked = next_rounds(asked, len(found), time.perf_counter() - began)
        rounds += found
    return rounds


def next_rounds(asked: int, found: int, seconds: float) -> int:
    """Rounds of the next call, from those that the last one was asked for, those that came and the time it took."""
    return max(1, min(int(SECONDS_PER_CALL * found / max(seconds, 1e-6)), 4 * asked))

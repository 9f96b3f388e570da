"""The level grower as a learner: XGBoost's trees, grown on the sampled columns alone, where they lie in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost as xgb
from numpy.typing import NDArray

from eravane.errors import ConfigError, RunError
from eravane.zoo.learner import Stop
from eravane.zoo.levels_model import to_ubj
from eravane.zoo.trees import DEFAULT_PARAMS, INTERCEPT, TrainingInterruptedError, resolve_params
from eravane_kernels.growth import Rules

FloatArray = NDArray[np.float32]

# XGBoost's names of what the grower knows; others would be ignored, which XGBoost itself only warns of.
ALIASES = {
    "learning_rate": "eta",
    "reg_lambda": "lambda",
    "reg_alpha": "alpha",
    "min_split_loss": "gamma",
}
KNOWN = (*DEFAULT_PARAMS, "lambda", "alpha", "gamma", "min_child_weight", "subsample", "booster", "grow_policy")
ONLY: Mapping[str, str] = {"objective": "reg:squarederror", "booster": "gbtree", "grow_policy": "depthwise"}
# Grown from the columns where they lie: gradients, margins, places and labels, and what a thread needs for a shard.
BYTES_PER_ROW, BYTES_PER_THREAD = 40, 2**21


@dataclass(frozen=True)
class LevelMatrix:
    """Columns that trees are grown on, and their names."""

    columns: Any
    names: tuple[str, ...]


@dataclass(frozen=True)
class Levels:
    """The level grower on one thread of the CPU.

    Attributes:
        params: complete parameters under XGBoost's names.
    """

    params: Mapping[str, Any]
    name: str = "levels"
    device: str = "cpu"

    @classmethod
    def make(cls, params: Mapping[str, Any], device: str) -> tuple[Levels, list[str]]:
        """Complete parameters with the defaults.

        Raises:
            ConfigError: the device is not the CPU, or a parameter is the engine's own, not known or out of range.
        """
        if device != "cpu":
            raise ConfigError(
                f'zoo.learner "levels" grows trees on the CPU, given {device}; set compute.device = "cpu", or '
                'zoo.learner = "xgboost"'
            )
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
        learner = cls(resolved)
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
        """Parameters, and the version of XGBoost whose model is written."""
        return {"params": dict(self.params), "levels": 1, "xgboost": xgb.__version__}

    def matrix(self, table: Any) -> LevelMatrix:
        """The columns of an Arrow table where they lie.

        Raises:
            RunError: they hold something else than levels 0..4 and -1.
        """
        from eravane_kernels.cpu.levelcolumns import LevelColumns

        kinds = sorted({str(kind) for kind in table.schema.types})
        if kinds != ["int8"]:
            raise RunError(
                f'zoo.learner "levels" needs features of integer levels, given {", ".join(kinds)}; use zoo.learner = '
                '"xgboost"'
            )
        address_SC, row_S = _addresses(table)
        try:
            columns = LevelColumns.at(address_SC, row_S, table)
        except ValueError as error:
            raise RunError(f'zoo.learner "levels": {error}; use zoo.learner = "xgboost"') from error
        return LevelMatrix(columns, tuple(table.column_names))

    def bytes_needed(self, rows: int, columns: int, itemsize: int) -> int:
        """Bytes beside the store's pages."""
        return rows * BYTES_PER_ROW + BYTES_PER_THREAD

    def fit(
        self,
        matrix: LevelMatrix,
        label_N: FloatArray,
        weight_N: FloatArray | None,
        *,
        trees: int,
        seed: int,
        margin_N: FloatArray | None = None,
        stop: Stop | None = None,
    ) -> bytes:
        """Grow trees; see `Learner.fit`.

        Raises:
            RunError: no row has a label.
            TrainingInterruptedError: `stop` was set.
        """
        from eravane_kernels.cpu.growth import Grower

        known_N = ~np.isnan(label_N)
        if not known_N.any():
            raise RunError("no training row has a label; use other eras or another target")
        base = INTERCEPT if margin_N is None else 0.0
        total_N = np.full(label_N.size, base, dtype=np.float32) if margin_N is None else margin_N.astype(np.float32)
        goal_N = np.where(known_N, label_N, np.float32(INTERCEPT))
        hessian_N = _hessian(known_N, weight_N)
        width = matrix.columns.width
        chosen = max(1, int(self.params["colsample_bytree"] * width))
        grower, rng = Grower(matrix.columns, self._rules(), chosen), np.random.default_rng(seed)
        gradient_N, grown = np.empty_like(total_N), []
        for _ in range(trees):
            if stop is not None and stop.is_set():
                raise TrainingInterruptedError("training was interrupted")
            columns_K = np.sort(rng.choice(width, chosen, replace=False))
            counted_N = self._sampled(hessian_N, total_N.size, rng)
            np.subtract(total_N, goal_N, out=gradient_N)
            if counted_N is not None:
                np.multiply(gradient_N, counted_N, out=gradient_N)
            grown.append(grower.grow(gradient_N, counted_N, columns_K, total_N))
        return to_ubj(grown, matrix.names, base)

    def _rules(self) -> Rules:
        params = self.params
        return Rules(
            max_depth=int(params["max_depth"]),
            eta=float(params["eta"]),
            reg_lambda=float(params.get("lambda", 1.0)),
            reg_alpha=float(params.get("alpha", 0.0)),
            gamma=float(params.get("gamma", 0.0)),
            min_child_weight=float(params.get("min_child_weight", 1.0)),
        )

    def _sampled(self, hessian_N: FloatArray | None, rows: int, rng: np.random.Generator) -> FloatArray | None:
        """Hessians of a tree's rows; each is drawn with probability `subsample`."""
        share = float(self.params.get("subsample", 1.0))
        if share == 1.0:
            return hessian_N
        drawn_N = (rng.random(rows, dtype=np.float32) < share).astype(np.float32)
        return drawn_N if hessian_N is None else drawn_N * hessian_N


def _hessian(known_N: NDArray[np.bool_], weight_N: FloatArray | None) -> FloatArray | None:
    """Hessians of squared error, float32 [N]; None where all are one."""
    if weight_N is None:
        return None if known_N.all() else known_N.astype(np.float32)
    return np.where(known_N, weight_N, np.float32(0)).astype(np.float32)


def _addresses(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where every column begins in every chunk, int64 [S, C], and the rows of the chunks, int64 [S]."""
    chunks = [column.chunks for column in table.columns]
    rows = [[len(chunk) for chunk in column] for column in chunks]
    assert all(lengths == rows[0] for lengths in rows), "the columns of a window are cut alike"
    address_CS = [[chunk.buffers()[1].address + chunk.offset for chunk in column] for column in chunks]
    return np.array(address_CS, dtype=np.int64).T.copy(), np.array(rows[0], dtype=np.int64)

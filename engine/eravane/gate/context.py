"""The era's cross-section as the gate sees it: statistics of every model's feature cell, from the kernels.

The builder fits nothing: normalisers and maps belong to the gate (`inputs`), which refits them on past eras only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import on_host
from eravane.core.config import GateConfig
from eravane.core.errors import RunError
from eravane.gate.facts import OutsideFacts
from eravane.gate.outcomes import EraFacts, GateModel
from eravane_kernels.namespace import Kernels

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
STRUCTURE = ("mean_corr", "mean_abs_corr", "mean_squared_corr", "eigen_1", "eigen_2", "between", "missing")
# Wide cells are represented by evenly spaced columns: more columns add little (the draw of the common factor is the
# noise), while the correlation matrix of a whole set would cost more than predicting the era.
WIDEST_CELL = 128


class ContextBuilder:
    """Measures eras for a pool of base models.

    Args:
        models: the pool, in the gate's order.
        columns_of_cell: positions of each (set, group)'s columns among the rows of the era values.
        ops: the kernels' namespace (`eravane_kernels.spec`, `cpu` or `cuda`).
        config: which inputs are switched on.
        outside: facts from outside; None for none.

    Raises:
        RunError: a model's cell has no columns.
    """

    def __init__(
        self,
        models: Sequence[GateModel],
        columns_of_cell: Mapping[tuple[str, str], NDArray[np.int64]],
        ops: Kernels,
        config: GateConfig,
        outside: OutsideFacts | None = None,
    ) -> None:
        self._ops = ops
        self._outside = OutsideFacts.none() if outside is None else outside
        self._inputs = config.inputs
        cells = [(model.feature_set, model.group) for model in models]
        missing = sorted({cell for cell in cells if cell not in columns_of_cell})
        if missing:
            raise RunError(f"no columns for the cells {missing}; known cells: {sorted(columns_of_cell)[:10]}")
        self._columns = tuple(np.asarray(columns_of_cell[cell], dtype=np.int64) for cell in cells)
        unique = list(dict.fromkeys(cells))
        self._cell_of_model = np.array([unique.index(cell) for cell in cells])
        self._thinned = [thinned(np.asarray(columns_of_cell[cell], dtype=np.int64)) for cell in unique]

    def facts(self, values_CN: Any, era: int) -> EraFacts:
        """Measure one era from its feature values alone.

        Args:
            values_CN: [columns, rows], int8 levels (-1 missing) or float32 (NaN missing), columns contiguous.
            era: era number, for messages.

        Raises:
            RunError: the era has no rows.
        """
        rows = values_CN.shape[1]
        if rows == 0:
            raise RunError(f"era {era} has no rows")
        offsets_E1 = np.array([0, rows], dtype=np.int64)
        stats = self._ops.era_stats(values_CN, offsets_E1, QUANTILES)
        std_C = on_host(stats.std_EC)[0]
        constant_C = ~(std_C > 0)
        missing_M = np.array([constant_C[columns].mean() for columns in self._columns])
        model_MS = self._structure(values_CN, offsets_E1, missing_M)
        marginal_KC = np.zeros((0, len(std_C)), dtype=np.float32)
        if "marginals" in self._inputs:
            # The order is fixed: mean, standard deviation, then the quantiles ascending.
            levels_KC = np.stack([on_host(stats.mean_EC)[0], std_C, *on_host(stats.quantiles_QEC)[:, 0]])
            marginal_KC = np.where(constant_C, np.nan, levels_KC).astype(np.float32)
        return EraFacts(
            model_MS=model_MS,
            context_D=np.array([np.log(rows), constant_C.mean(), *self._outside.at(era)]),
            model_names=STRUCTURE if "structure" in self._inputs else (),
            context_names=("log_rows", "missing", *self._outside.names),
            marginal_KF=marginal_KC,
            cells=self._columns,
        )

    def _structure(self, values_CN: Any, offsets_E1: NDArray[np.int64], missing_M: NDArray[np.float64]) -> Any:
        if "structure" not in self._inputs:
            return np.zeros((len(missing_M), 0))
        found = on_host(self._ops.group_structure(values_CN, offsets_E1, self._thinned))[0]
        groups = len(self._thinned)
        inside_GK, across_GG = found[:, :-groups], np.abs(found[:, -groups:])
        np.fill_diagonal(across_GG, np.nan)
        others_G = np.isfinite(across_GG).sum(axis=1)
        between_G = np.nansum(across_GG, axis=1) / np.maximum(others_G, 1)
        cell_GS = np.column_stack([inside_GK, between_G])
        return np.column_stack([cell_GS[self._cell_of_model], missing_M])


def thinned(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The columns that stand for a cell: all of them, or evenly spaced ones of a wide cell."""
    if len(columns) <= WIDEST_CELL:
        return columns
    return columns[np.linspace(0, len(columns) - 1, WIDEST_CELL).astype(np.int64)]

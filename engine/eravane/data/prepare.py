"""Missing values and outliers of one era: filled and clipped from what is known at that era."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from eravane.calendar.eras import EraFrame, EraIndex
from eravane.core.arrays import on_host
from eravane.core.config import PrepareConfig
from eravane_kernels.arrays import Levels
from eravane_kernels.namespace import Kernels

INDICATOR = "missing_"
MISSING = -1  # code of a missing integer level
TOP_LEVEL = 4
NEIGHBOURS = 5  # rows whose mean fills a cell with impute = "knn"
# Quantiles at which winsorizing cuts: a thousandth of an era's rows at either end, about five of them.
TAILS = (0.001, 0.999)
_Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]


class Preparer:
    """Imputes and clips.

    Fills and bounds come from the era's own cross-section, or from that pooled with the eras of a window before it,
    never from a later one: so a row is prepared alike whenever it is read, and however many eras have come since.

    Args:
        config: the [prepare] section.
        ops: the kernels' namespace (`eravane_kernels.cpu` or another that gives NumPy arrays).
        tails: quantiles at which winsorizing cuts.
    """

    def __init__(self, config: PrepareConfig, ops: Kernels, tails: tuple[float, float] = TAILS) -> None:
        self._config, self._ops, self._tails = config, ops, tails

    @property
    def history(self) -> int:
        """Eras before an era that its preparation reads."""
        return self._config.window if self._config.bounds == "window" else 0

    def keeps(self, dtype: str) -> bool:
        """Whether data of this dtype ("int8" or "float32") stay as they are."""
        if self._config.indicators or self._outliers(dtype) != "none":
            return False
        return self._config.missing_eras == "report" if dtype == "int8" else self._config.impute == "none"

    def columns(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the prepared columns: the features, then one indicator each where those are switched on."""
        return names + tuple(INDICATOR + name for name in names) if self._config.indicators else names

    def apply(self, frame: EraFrame, era: int) -> EraFrame:
        """Prepare one era.

        Args:
            frame: the era, with the `history` eras before it where a window is used; other eras are not looked at.
            era: which era of the frame to return.

        Returns:
            The era in the dtype of the frame; a view where nothing changes. Indicator columns, int8 or float32 as the
            others, come last.

        Raises:
            KeyError: the era is not in the frame.
        """
        own = frame.era(era)
        if self.keeps(str(frame.values.dtype)):
            return own
        pooled = self._marked(_cut(frame, era - self.history, era))
        raw_CN = pooled[:, pooled.shape[1] - own.index.rows :]
        values_CN = self._prepared(raw_CN, pooled)
        if self._config.indicators:
            flags_CN = self._ops.missing_indicators(raw_CN).astype(values_CN.dtype)
            values_CN = np.concatenate([values_CN, flags_CN])
        return EraFrame(values_CN, self.columns(frame.columns), own.index, own.ids)

    def _outliers(self, dtype: str) -> Literal["none", "winsorize", "std", "mad"]:
        if self._config.outliers == "auto":
            return "winsorize" if dtype == "float32" else "none"
        return self._config.outliers

    def _marked(self, frame: EraFrame) -> NDArray[Any]:
        """Values of a frame; where asked for, an (era, column) of levels that is 2 throughout counts as missing."""
        x_CN, offsets_E1 = frame.values, frame.index.offsets
        if x_CN.dtype != np.int8 or self._config.missing_eras == "report":
            return x_CN
        absent_EC = on_host(self._ops.missing_eras(self._ops.level_counts(cast(Levels, x_CN), offsets_E1)))
        if not absent_EC.any():
            return x_CN
        marked_CN = x_CN.copy()
        for era, column in np.argwhere(absent_EC):
            marked_CN[column, offsets_E1[era] : offsets_E1[era + 1]] = MISSING
        return marked_CN

    def _prepared(self, raw_CN: NDArray[Any], pooled_CN: NDArray[Any]) -> NDArray[Any]:
        """The era's values filled and clipped, by statistics of the pooled rows."""
        rows = np.array([0, pooled_CN.shape[1]], dtype=np.int64)
        one = np.array([0, raw_CN.shape[1]], dtype=np.int64)
        value_1C, bounds = self._fills(pooled_CN, rows), self._bounds(pooled_CN, rows)
        if self._config.impute == "knn":
            raw_CN = self._nearest(raw_CN, one)
        if raw_CN.dtype == np.int8:
            table = self._ops.fill_table(value_1C)
            if bounds is not None:
                table = self._ops.compose_tables(table, self._ops.clip_table(*bounds))
            levels_CN: NDArray[Any] = self._ops.apply_table(raw_CN, one, table)
            return levels_CN
        filled_CN: NDArray[Any] = self._ops.fill(raw_CN, one, value_1C)
        clipped_CN: NDArray[Any] = filled_CN if bounds is None else self._ops.clip(filled_CN, one, *bounds)
        return clipped_CN

    def _fills(self, pooled_CN: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Fill values of missing cells, float64 [1, C]; the constant where no value is known."""
        config, shape = self._config, (1, pooled_CN.shape[0])
        if config.impute == "none":
            return np.full(shape, np.nan)
        if config.impute == "constant":
            return np.full(shape, config.constant)
        method = "median" if config.impute == "knn" else config.impute
        value_1C = self._ops.fill_values(pooled_CN, rows, method)
        return np.where(np.isnan(value_1C), config.constant, value_1C)

    def _bounds(self, pooled_CN: NDArray[Any], rows: NDArray[np.int64]) -> _Bounds | None:
        """Bounds to which values are clipped, float64 [1, C] each; None without clipping."""
        method = self._outliers(str(pooled_CN.dtype))
        if method == "none":
            return None
        config = self._config
        low_1C, high_1C = self._ops.clip_bounds(pooled_CN, rows, method, *self._tails, config.k)
        return low_1C, high_1C

    def _nearest(self, raw_CN: NDArray[Any], one: NDArray[np.int64]) -> NDArray[Any]:
        """Missing cells filled from the nearest rows of the era, where there are any."""
        if raw_CN.dtype != np.int8:
            nearest_CN: NDArray[Any] = self._ops.knn_impute(raw_CN, one, NEIGHBOURS)
            return nearest_CN
        known = np.where(raw_CN == MISSING, np.float32(np.nan), raw_CN.astype(np.float32))
        found = self._ops.knn_impute(known, one, NEIGHBOURS)
        return np.where(np.isnan(found), MISSING, np.clip(np.rint(found), 0, TOP_LEVEL)).astype(np.int8)


def joined(before: EraFrame, own: EraFrame, join: Callable[[Sequence[Any]], Any]) -> EraFrame:
    """Two frames of the same columns as one, the earlier eras first; `join` puts matrices side by side."""
    index = EraIndex.from_counts(
        np.concatenate([before.index.labels, own.index.labels]), np.concatenate([before.index.counts, own.index.counts])
    )
    return EraFrame(join([before.values, own.values]), own.columns, index)


def _cut(frame: EraFrame, first: int, last: int) -> EraFrame:
    """Eras first..last of a frame, a view without ids."""
    return EraFrame(frame.values[:, frame.index.span(first, last)], frame.columns, frame.index.select(first, last))

"""Missing values and outliers of one era: filled and clipped from what is known at that era."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.config import PrepareConfig
from eravane.eras import EraFrame, EraIndex

INDICATOR = "missing_"
MISSING = -1  # code of a missing integer level
TOP_LEVEL = 4


class Preparer:
    """Imputes and clips.

    Bounds and fills come from the era's own cross-section, or from a window of the eras up to it, never from a later
    one; so a stored row is prepared alike whenever it is read.

    Args:
        config: the [prepare] section.
        ops: the kernels' namespace (`eravane_kernels.cpu` or another).
    """

    def __init__(self, config: PrepareConfig, ops: Any) -> None:
        self._config, self._ops = config, ops

    @property
    def history(self) -> int:
        """Eras before an era that its preparation reads."""
        return self._config.window if self._config.bounds == "window" else 0

    def keeps(self, dtype: str) -> bool:
        """Whether data of this dtype ("int8" or "float32") stay as they are."""
        if self._config.indicators or self._method(dtype) != "none":
            return False
        return self._config.missing_eras == "report" if dtype == "int8" else self._config.impute == "none"

    def apply(self, frame: EraFrame, era: int) -> EraFrame:
        """Prepare one era.

        Args:
            frame: the era, with the `history` eras before it where a window is used.
            era: which era of the frame to return.

        Returns:
            The era in the dtype of the frame; a view where nothing changes. Indicator columns, named
            `missing_<feature>`, come last.
        """
        own = frame.era(era)
        if self.keeps(str(frame.values.dtype)):
            return own
        raw = self._with_missing(frame.values, frame.index.offsets) if frame.values.dtype == np.int8 else frame.values
        rows, position = frame.index.rows_of(era), frame.index.at(era)
        values = self._prepared(raw, frame.index.offsets, rows, position)
        columns = frame.columns
        if self._config.indicators:
            flags = self._ops.missing_indicators(raw[:, rows]).astype(values.dtype)
            values = np.concatenate([values, flags])
            columns = columns + tuple(INDICATOR + name for name in columns)
        return EraFrame(values, columns, own.index, own.ids)

    def _method(self, dtype: str) -> str:
        if self._config.outliers == "auto":
            return "winsorize" if dtype == "float32" else "none"
        return self._config.outliers

    def _with_missing(self, x_CN: NDArray[Any], offsets_E1: NDArray[np.int64]) -> NDArray[Any]:
        """Levels with every (era, column) that is 2 throughout turned into missing, where that is switched on."""
        if self._config.missing_eras == "report":
            return x_CN
        absent_EC = self._ops.missing_eras(self._ops.level_counts(x_CN, offsets_E1))
        if not absent_EC.any():
            return x_CN
        marked_CN = x_CN.copy()
        for era, column in zip(*np.nonzero(absent_EC), strict=True):
            marked_CN[column, offsets_E1[era] : offsets_E1[era + 1]] = MISSING
        return marked_CN

    def _prepared(
        self, raw_CN: NDArray[Any], offsets_E1: NDArray[np.int64], rows: slice, position: int
    ) -> NDArray[Any]:
        own_CN, one = raw_CN[:, rows], np.array([0, rows.stop - rows.start], dtype=np.int64)
        value_1C = self._fills(raw_CN, offsets_E1)[position : position + 1]
        bounds = self._bounds(raw_CN, offsets_E1)
        low_1C, high_1C = (bound[position : position + 1] for bound in bounds) if bounds else (None, None)
        if self._config.impute == "knn":
            own_CN = self._nearest(own_CN, one)
        if raw_CN.dtype == np.int8:
            table = self._ops.fill_table(value_1C)
            if low_1C is not None:
                table = self._ops.compose_tables(table, self._ops.clip_table(low_1C, high_1C))
            return np.asarray(self._ops.apply_table(own_CN, one, table))
        filled = np.asarray(self._ops.fill(own_CN, one, value_1C))
        return filled if low_1C is None else np.asarray(self._ops.clip(filled, one, low_1C, high_1C))

    def _fills(self, raw_CN: NDArray[Any], offsets_E1: NDArray[np.int64]) -> NDArray[np.float64]:
        config = self._config
        shape = (offsets_E1.size - 1, raw_CN.shape[0])
        if config.impute == "none":
            return np.full(shape, np.nan)
        if config.impute == "constant":
            return np.full(shape, config.constant)
        method = "median" if config.impute == "knn" else config.impute
        value_EC = self._ops.fill_values(raw_CN, offsets_E1, method, window=self.history)
        return np.where(np.isnan(value_EC), config.constant, value_EC)

    def _bounds(
        self, raw_CN: NDArray[Any], offsets_E1: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        method = self._method(str(raw_CN.dtype))
        if method == "none":
            return None
        config = self._config
        low_EC, high_EC = self._ops.clip_bounds(
            raw_CN, offsets_E1, method, config.low, config.high, config.k, window=self.history
        )
        return low_EC, high_EC

    def _nearest(self, own_CN: NDArray[Any], one: NDArray[np.int64]) -> NDArray[Any]:
        if own_CN.dtype != np.int8:
            return np.asarray(self._ops.knn_impute(own_CN, one, self._config.neighbours))
        known = np.where(own_CN == MISSING, np.float32(np.nan), own_CN.astype(np.float32))
        found = self._ops.knn_impute(known, one, self._config.neighbours)
        return np.where(np.isnan(found), MISSING, np.clip(np.rint(found), 0, TOP_LEVEL)).astype(np.int8)


def joined(before: EraFrame, own: EraFrame) -> EraFrame:
    """Two frames of the same columns as one, the earlier eras first."""
    index = EraIndex.from_counts(
        np.concatenate([before.index.labels, own.index.labels]), np.concatenate([before.index.counts, own.index.counts])
    )
    return EraFrame(np.concatenate([before.values, own.values], axis=1), own.columns, index)

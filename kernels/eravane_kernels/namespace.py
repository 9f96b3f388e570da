"""The interface of the three namespaces of kernels: `spec`, `cpu` and `cuda` have these functions under these names.

Arrays of `cuda` lie on the device, or are NumPy's and are uploaded; `spec` documents them: shapes, dtypes, errors.
Letters of shapes: E eras (E1 their E + 1 offsets), N rows, C columns, F features, M predictions, L levels with missing,
K nodes, T trees, B models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Bools, Columns, Counts, Double, Floats, Integers, Levels, Single
from eravane_kernels.stats import QUANTILES, Stats

Groups = Sequence[npt.NDArray[np.integer[Any]]]
Method = Literal["winsorize", "std", "mad"]
FillMethod = Literal["mean", "median", "mode", "constant"]


class Kernels(Protocol):
    """A namespace of kernels."""

    def apply_table(self, x_CN: Levels, offsets_E1: Integers, table_ECL: Levels) -> Levels:
        """Replaces every level by the entry of its era's and column's table."""
        ...

    def clip(self, x_CN: Single, offsets_E1: Integers, low_EC: Double, high_EC: Double) -> Single:
        """Limits float columns to the bounds of their era; NaN stays, a NaN bound limits nothing."""
        ...

    def clip_bounds(
        self,
        x_CN: Columns,
        offsets_E1: Integers,
        method: Method = "winsorize",
        low: float = 0.01,
        high: float = 0.99,
        k: float = 3.0,
        window: int = 0,
    ) -> tuple[Double, Double]:
        """Lower and upper bounds of every (era, column) from that era pooled with the `window` eras before it."""
        ...

    def clip_table(self, low_EC: Double, high_EC: Double) -> Levels:
        """Table that limits levels to bounds; missing stays missing."""
        ...

    def compose_tables(self, first_ECL: Levels, then_ECL: Levels) -> Levels:
        """Table equal to `first_ECL` followed by `then_ECL`."""
        ...

    def contribution(self, p_MN: Floats, reference_N: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
        """Contribution of every prediction beyond a reference: MMC against the meta-model, BMC against a benchmark."""
        ...

    def dispersion(self, p_MN: Floats, offsets_E1: Integers) -> Double:
        """Standard deviation (ddof 0) of every prediction within the era."""
        ...

    def era_stats(self, x_CN: Columns, offsets_E1: Integers, quantiles: Sequence[float] = QUANTILES) -> Stats:
        """Statistics of level columns (int8) or float columns (float32), chosen by dtype."""
        ...

    def exposure(self, p_MN: Floats, f_FN: Columns, offsets_E1: Integers) -> Double:
        """Pearson's correlation of every prediction with every feature in every era."""
        ...

    def feature_neutral_corr(self, p_MN: Floats, f_FN: Columns, y_N: Floats, offsets_E1: Integers) -> Double:
        """CORR of the gaussianised predictions after neutralisation to the features (FNC)."""
        ...

    def fill(self, x_CN: Single, offsets_E1: Integers, value_EC: Double) -> Single:
        """Puts the era's value, rounded to float32, in place of NaN; a NaN value leaves the cell missing."""
        ...

    def fill_table(self, value_EC: Double) -> Levels:
        """Table that fills missing cells and keeps levels."""
        ...

    def fill_values(
        self,
        x_CN: Columns,
        offsets_E1: Integers,
        method: FillMethod = "mean",
        constant: float | None = None,
        window: int = 0,
    ) -> Double:
        """Fill value for missing cells of every (era, column), from the era pooled with the `window` eras before it."""
        ...

    def float_stats(self, x_CN: Single, offsets_E1: Integers, quantiles: Sequence[float] = QUANTILES) -> Stats:
        """Statistics of float columns, accumulated in float64."""
        ...

    def gaussianize(self, p_MN: Floats, offsets_E1: Integers) -> Double:
        """Normal quantile of the tie-kept rank within the era."""
        ...

    def gram(self, z_MN: Floats, offsets_E1: Integers) -> Double:
        """Mean product of every pair of rows, `z z' / n`, per era: with gaussianised predictions, their agreement."""
        ...

    def group_structure(self, x_CN: Columns, offsets_E1: Integers, groups: Groups) -> Double:
        """Common movement of the columns of a group in an era, and of the groups' means."""
        ...

    def knn_impute(self, x_CN: Single, offsets_E1: Integers, k: int = 5) -> Single:
        """Fills every NaN with the mean of the column in the `k` nearest rows of the era that have a value there."""
        ...

    def level_counts(self, x_CN: Levels, offsets_E1: Integers) -> Counts:
        """Rows of every era that hold level 0, 1, 2, 3, 4 and missing (-1)."""
        ...

    def level_stats(self, counts_ECL: Counts, quantiles: Sequence[float] = QUANTILES) -> Stats:
        """Statistics of levels 0..4 from their counts."""
        ...

    def mean_products(self, z_MN: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
        """Mean product of every row with a vector, `z y / n`, per era."""
        ...

    def missing_eras(self, counts_ECL: Counts) -> Bools:
        """Columns that hold level 2 in every row of an era, the mark of an absent feature in Numerai v5 data."""
        ...

    def missing_indicators(self, x_CN: Columns) -> Levels:
        """1 where a cell is missing (-1 or NaN), else 0."""
        ...

    def mix(self, z_MN: Double, weight_KM: Double) -> Double:
        """Weighted sums of gaussianised predictions in one era, rounded, for K sets of weights."""
        ...

    def neutralize(self, p_MN: Floats, f_FN: Columns, offsets_E1: Integers, proportion: float = 1.0) -> Double:
        """Predictions less `proportion` of their least-squares projection on the features and a constant, per era."""
        ...

    def numerai_corr(self, p_MN: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
        """Numerai's CORR of every prediction in every era."""
        ...

    def rank(self, p_MN: Floats, offsets_E1: Integers) -> Double:
        """Tie-kept rank within the era, `(average rank - 0.5) / n`, in (0, 1)."""
        ...

    def renew_leaves(
        self,
        x_CN: Columns,
        node_K4: npt.NDArray[np.int32],
        old_K: Double,
        tree_T2: npt.NDArray[np.int32],
        first_B1: Integers,
        label_BN: Single,
        weight_N: Single,
        margin_BN: Double,
        rate: float,
        ridge: float,
        keep: float,
    ) -> tuple[Single, Double]:
        """Leaves of models of squared error re-estimated on new rows, and the models' outputs for these."""
        ...

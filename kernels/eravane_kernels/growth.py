"""Growing depth-wise regression trees on integer levels: the rules, the tree, and gradients as integers.

The trees are those of XGBoost's `hist` on the same columns (versions 3.2 to 3.4: `src/tree/hist/evaluate_splits.h`,
`split_evaluator.h`, `param.h`, `driver.h`): gains and weights are float32 where it holds float32, and the first of the
best candidates wins, in the order of columns and levels. Sums are of integers, and so depend on neither order nor
threads nor device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import Bools, Integers, Single

Quanta = npt.NDArray[np.int32]
LEAF = -1
LEAST_GAIN = np.float32(1e-6)
"""XGBoost's kRtEps: a split must gain more."""
DEEPEST = 12
"""A level of so deep a tree holds 4,096 nodes; sums of levels are kept for all of them."""
BITS = 29
"""Bits of the integer that the largest gradient of a tree becomes."""
MOST_POWER = 126
_BLOCK = 65_536  # values looked at together
"""Smaller gradients become smaller integers: a float32 holds no greater factor."""


class OutgrownError(ValueError):
    """Outputs have grown beyond what a float32 holds."""


@dataclass(frozen=True)
class Rules:
    """How a tree is grown, in XGBoost's words.

    Attributes:
        max_depth: 1..12.
        eta: factor of the leaf values.
        reg_lambda, reg_alpha: L2 and L1 penalty of leaf weights.
        gamma: least gain of a split.
        min_child_weight: least sum of Hessians in a child.
        learn_missing: whether a split learns where missing values go, as XGBoost does for `missing=-1`; otherwise -1
            is the lowest level.
        gain_from_weight: how a node's gain is rounded. False: G^2 / (H + lambda) of float32 values, as XGBoost 3.2 and
            3.3 do; True: -(2 G w + (H + lambda) w^2 + 2 alpha |w|) for the float32 weight w, as 3.4 does.

    Raises:
        ValueError: a value is outside its range.
    """

    max_depth: int = 5
    eta: float = 0.3
    reg_lambda: float = 1.0
    reg_alpha: float = 0.0
    gamma: float = 0.0
    min_child_weight: float = 1.0
    learn_missing: bool = False
    gain_from_weight: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_depth <= DEEPEST:
            raise ValueError(
                f"max_depth: expected 1..{DEEPEST}, given {self.max_depth}; grow deeper trees with XGBoost"
            )
        for name in ("eta", "reg_lambda", "reg_alpha", "gamma", "min_child_weight"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name}: expected 0 or more, given {value}")


@dataclass(frozen=True)
class Tree:
    """A tree as XGBoost stores it: K nodes, parents before children, level by level.

    Attributes:
        left_K, right_K: children, int32; -1 in a leaf.
        parent_K: int32; -1 at the root.
        column_K: int32, the column of a split, 0 in a leaf.
        below_K: int8; values below it go left. 0 in a leaf.
        missing_left_K: bool, whether missing values go left where that is learned.
        gain_K: float32, of a split; 0 in a leaf.
        hessian_K: float32 sum over the node's rows.
        weight_K: float32, the node's weight; times eta in a leaf, where it is added to the output.
    """

    left_K: Quanta
    right_K: Quanta
    parent_K: Quanta
    column_K: Quanta
    below_K: npt.NDArray[np.int8]
    missing_left_K: Bools
    gain_K: Single
    hessian_K: Single
    weight_K: Single


def exponent(values_N: Single, name: str) -> int:
    """The e for which values times 2**e, rounded, are integers of at most `BITS` bits.

    Raises:
        ValueError: a value is infinite or NaN.
    """
    largest = float(max(-values_N.min(initial=0.0), values_N.max(initial=0.0)))
    if not math.isfinite(largest):
        checks.finite(values_N[None, :], name)
    return power_for(largest)


def power_for(largest: float) -> int:
    """The power of two for values up to `largest`."""
    return min(BITS - math.frexp(largest)[1], MOST_POWER) if largest else 0


class Units(NamedTuple):
    """How gradients and Hessians become integers.

    Attributes:
        gradient, hessian: they are multiplied by 2 to the power of these, and rounded.
        counting: whether every Hessian is 0 or 1; then they are summed as they are.
    """

    gradient: int
    hessian: int
    counting: bool


def units(gradient_N: Single, hessian_N: Single | None) -> Units:
    """The powers of two for a tree.

    Raises:
        ValueError: a value is infinite or NaN.
    """
    counting = hessian_N is None or all(
        ((part_N == 0) | (part_N == 1)).all()
        for part_N in (hessian_N[first : first + _BLOCK] for first in range(0, len(hessian_N), _BLOCK))
    )
    of_hessian = 0 if hessian_N is None or counting else exponent(hessian_N, "hessian_N")
    return Units(exponent(gradient_N, "gradient_N"), of_hessian, counting)


def check_rows(gradient_N: Single, hessian_N: Single | None, rows: int) -> None:
    """float32 [N] each, Hessians not negative.

    Raises:
        ValueError: naming the first row that is wrong.
    """
    checks.vector(gradient_N, "gradient_N", rows, "float32")
    if hessian_N is not None:
        checks.vector(hessian_N, "hessian_N", rows, "float32")
        if rows and hessian_N.min() < 0:
            row = int(np.argmax(hessian_N < 0))
            raise ValueError(f"hessian_N: expected 0 or more, given {hessian_N[row]} at row {row}")


def check_columns(columns_C: Integers, width: int) -> None:
    """Distinct ascending positions within 0..width-1, at least one.

    Raises:
        ValueError: they are not.
    """
    checks.axes(columns_C, "columns_C", 1, "int64")
    if not len(columns_C) or columns_C[0] < 0 or columns_C[-1] >= width or (np.diff(columns_C) <= 0).any():
        raise ValueError(f"columns_C: expected ascending positions within 0..{width - 1}, given {columns_C.tolist()}")


def check_boosting(
    goal_BN: Single, weight_N: Single | None, margin_BN: Single, rows: int, width: int, chosen: int
) -> None:
    """Check what models are boosted from: float32 [B, N] goals and margins, float32 [N] weights, columns of a tree.

    Raises:
        ValueError: an array has the wrong shape or type, a goal is infinite, a margin or weight is not finite, a weight
            is negative, or there are fewer columns.
    """
    for name, array in (("goal_BN", goal_BN), ("margin_BN", margin_BN)):
        checks.shape(array, name, (len(goal_BN), rows), "float32")
    checks.no_infinity(goal_BN, "goal_BN")
    checks.finite(margin_BN, "margin_BN")
    if weight_N is not None:
        checks.vector(weight_N, "weight_N", rows, "float32")
        if not (weight_N >= 0).all() or np.isinf(weight_N).any():
            raise ValueError("weight_N: expected finite weights of 0 or more")
    if not 1 <= chosen <= width:
        raise ValueError(f"chosen: expected 1..{width}, given {chosen}")

"""Depth-wise regression trees on integer levels: what the fast growers must give, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import Bools, Integers, Levels, Single
from eravane_kernels.growth import LEAF, LEAST_GAIN, Rules, Tree, check_columns, check_rows, units
from eravane_kernels.spec.draws import draw_columns, draw_rows

_Split = tuple[np.float32, int, int, bool]


def grow_tree(
    x_CN: Levels, gradient_N: Single, hessian_N: Single | None, columns_K: Integers, rules: Rules
) -> tuple[Tree, Single]:
    """Grow the tree that XGBoost's `hist` grows on some columns from given gradients.

    Sums are of gradients and Hessians times powers of two, rounded to integers; gains and weights are rounded to
    float32 where XGBoost rounds them. Of equal gains the first wins, in the order of columns, and in a column of
    levels, with missing values going right before left.

    Args:
        x_CN: int8, levels 0..4 and -1 for missing.
        gradient_N: float32.
        hessian_N: float32, 0 or more; None for ones. A row with gradient and Hessian 0 counts as absent.
        columns_K: int64, ascending.
        rules: how the tree is grown.

    Returns:
        The tree, and its output float32 [N].

    Raises:
        ValueError: a wrong shape, dtype or position, a value that is no level, a gradient that is infinite or NaN.
    """
    checks.columns(x_CN, "x_CN", "int8")
    checks.levels(x_CN, "x_CN")
    check_rows(gradient_N, hessian_N, x_CN.shape[1])
    check_columns(columns_K, len(x_CN))
    return _Growth(x_CN, gradient_N, hessian_N, columns_K, rules).tree()


def grow_many(
    x_CN: Levels, gradient_BN: Single, hessian_BN: Single | None, columns_K: Integers, rules: Rules
) -> tuple[list[Tree], Single]:
    """Grow B trees on the same columns: each is the tree that `grow_tree` gives.

    Args:
        x_CN: int8, levels 0..4 and -1 for missing.
        gradient_BN: float32 [B, N].
        hessian_BN: float32 [B, N], 0 or more; None for ones.
        columns_K: int64, ascending.
        rules: how trees are grown.

    Returns:
        The trees, and their outputs float32 [B, N].

    Raises:
        ValueError: as `grow_tree` does.
    """
    hessians = [None] * len(gradient_BN) if hessian_BN is None else list(hessian_BN)
    pairs = zip(gradient_BN, hessians, strict=True)
    found = [grow_tree(x_CN, gradient_N, hessian_N, columns_K, rules) for gradient_N, hessian_N in pairs]
    return [tree for tree, _ in found], np.stack([output_N for _, output_N in found])


def boost(
    x_CN: Levels,
    goal_N: Single,
    weight_N: Single | None,
    margin_N: Single,
    rules: Rules,
    *,
    seed: int,
    chosen: int,
    share: float,
    rounds: int,
) -> list[Tree]:
    """Boost squared error: round after round a tree on drawn columns and rows, from gradients margin - goal.

    Args:
        x_CN: int8, levels 0..4 and -1 for missing.
        goal_N: float32, what is to be learned; NaN rows count as absent.
        weight_N: float32, 0 or more, rows of 0 count as absent; None for equal weights.
        margin_N: float32, output of earlier trees; changed in place.
        rules: how trees are grown.
        seed: of the draws, see `spec.draws`.
        chosen: columns of a tree.
        share: of the rows, drawn one by one for each round.
        rounds: trees.
    """
    trees, known_N = [], ~np.isnan(goal_N)
    for turn in range(rounds):
        columns_K = draw_columns(seed, turn, len(x_CN), chosen)
        counts_N = known_N if share == 1 else known_N & draw_rows(seed, turn, len(goal_N), share)
        hessian_N = counts_N.astype(np.float32) * (1 if weight_N is None else weight_N)
        gradient_N = np.where(hessian_N > 0, (margin_N - goal_N) * hessian_N, np.float32(0))
        tree, output_N = grow_tree(x_CN, gradient_N, hessian_N, columns_K, rules)
        margin_N += output_N
        trees.append(tree)
    return trees


class _Growth:
    def __init__(
        self, x_CN: Levels, gradient_N: Single, hessian_N: Single | None, columns_K: Integers, rules: Rules
    ) -> None:
        self._x_CN, self._columns_K, self._rules = x_CN, columns_K, rules
        *powers, _ = units(gradient_N, hessian_N)
        ones_N = np.ones_like(gradient_N) if hessian_N is None else hessian_N
        self._sum_N2 = np.stack([_integers(gradient_N, powers[0]), _integers(ones_N, powers[1])], axis=1)
        self._unit_2 = np.ldexp(1.0, [-power for power in powers])
        # A node: parent, first child, column, highest level on the left, missing to the left, gain, Hessian, weight.
        self._nodes: list[list[Any]] = []
        self._leaf_N = np.zeros(len(gradient_N), dtype=np.int64)

    def tree(self) -> tuple[Tree, Single]:
        """Split level by level."""
        level = [(self._add(LEAF, np.ones(len(self._leaf_N), dtype=bool)), np.ones(len(self._leaf_N), dtype=bool))]
        for _ in range(self._rules.max_depth):
            level = [child for node, rows_N in level for child in self._children(node, rows_N)]
        columns = [np.array(values) for values in zip(*self._nodes, strict=True)]
        parent, child, column, highest, missing_left, gain, hessian, weight = columns
        left_K = child.astype(np.int32)
        tree = Tree(
            left_K,
            np.where(left_K < 0, LEAF, left_K + 1).astype(np.int32),
            parent.astype(np.int32),
            column.astype(np.int32),
            (highest + 1).astype(np.int8),
            missing_left != 0,
            gain.astype(np.float32),
            hessian.astype(np.float32),
            weight.astype(np.float32),
        )
        return tree, tree.weight_K[self._leaf_N]

    def _add(self, parent: int, rows_N: Bools) -> int:
        """A new leaf."""
        gradient, hessian = self._sums(rows_N) * self._unit_2
        weight = self._weight(gradient, hessian) * np.float32(self._rules.eta)
        self._leaf_N[rows_N] = len(self._nodes)
        self._nodes.append([parent, LEAF, 0, LEAF, False, 0.0, np.float32(hessian), weight])
        return len(self._nodes) - 1

    def _children(self, node: int, rows_N: Bools) -> list[tuple[int, Bools]]:
        gain, place, highest, missing_left = self._best(rows_N)
        column = int(self._columns_K[place])
        left_N = rows_N & (self._x_CN[column] <= highest) & ((self._x_CN[column] >= 0) | missing_left)
        here, there = self._sums(rows_N)[1], self._sums(left_N)[1]
        if gain <= LEAST_GAIN or gain < np.float32(self._rules.gamma) or there in (0, here):
            return []
        children = [(self._add(node, side_N), side_N) for side_N in (left_N, rows_N & ~left_N)]
        gradient, hessian = self._sums(rows_N) * self._unit_2
        learned = missing_left and self._rules.learn_missing
        self._nodes[node][1:6] = [children[0][0], column, highest, learned, gain]
        self._nodes[node][7] = self._weight(gradient, hessian)
        return children

    def _best(self, rows_N: Bools) -> _Split:
        """The first of the best splits: gain, place of the column, highest level on the left, missing to the left."""
        learned = self._rules.learn_missing and bool((self._x_CN == -1).any())
        total_2, best = self._sums(rows_N), (np.float32(0), 0, 0, not self._rules.learn_missing)
        for place, column in enumerate(self._columns_K):
            x_N = self._x_CN[column]
            for missing_left, level in self._candidates(learned):
                left_N = rows_N & (x_N <= level) & ((x_N >= 0) | missing_left)
                gain = self._gain(self._sums(left_N), total_2)
                if best[0] < gain < np.inf:
                    best = gain, place, level, missing_left
        return best

    def _candidates(self, learned: bool) -> list[tuple[bool, int]]:
        if learned:
            return [(False, level) for level in range(5)] + [(True, level) for level in range(3, -1, -1)]
        return [(not self._rules.learn_missing, level) for level in range(-1, 4)]

    def _sums(self, rows_N: Bools) -> Integers:
        total_2: Integers = self._sum_N2[rows_N].sum(axis=0)
        return total_2

    def _gain(self, left_2: Integers, total_2: Integers) -> np.float32:
        (left_g, left_h), (right_g, right_h) = left_2 * self._unit_2, (total_2 - left_2) * self._unit_2
        if min(left_h, right_h) < np.float32(self._rules.min_child_weight):
            return np.float32(0)
        if self._rules.gain_from_weight and min(left_h, right_h) <= 0:
            return np.float32(0)
        both = self._worth(left_g, left_h) + self._worth(right_g, right_h)
        return np.float32(both - self._worth(*(total_2 * self._unit_2)))

    def _worth(self, gradient: float, hessian: float) -> np.float32:
        if hessian <= 0:
            return np.float32(0)
        if self._rules.gain_from_weight:
            weight, alpha = self._weight(gradient, hessian), np.float64(np.float32(self._rules.reg_alpha))
            loss = 2.0 * gradient * np.float64(weight) + self._ridged(hessian) * np.float64(weight * weight)
            return np.float32(-(loss + 2.0 * alpha * abs(np.float64(weight))))
        pull = self._shrunk(gradient)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.float32(np.float32(pull * pull) / np.float32(self._ridged(hessian)))

    def _weight(self, gradient: float, hessian: float) -> np.float32:
        least = 0.0 if self._rules.gain_from_weight else np.float32(self._rules.min_child_weight)
        if hessian < least or hessian <= 0:
            return np.float32(0)
        return np.float32(-self._shrunk(gradient) / self._ridged(hessian))

    def _ridged(self, hessian: float) -> float:
        return float(hessian + np.float64(np.float32(self._rules.reg_lambda)))

    def _shrunk(self, gradient: float) -> np.float64:
        alpha = np.float64(np.float32(self._rules.reg_alpha))
        return np.float64(np.sign(gradient) * max(abs(gradient) - alpha, 0.0))


def _integers(value_N: Single, power: int) -> Integers:
    rounded: npt.NDArray[np.float32] = np.rint(value_N * np.float32(2.0**power))
    return rounded.astype(np.int64)

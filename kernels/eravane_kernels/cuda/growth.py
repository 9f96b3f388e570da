"""Depth-wise trees on integer levels on the device, by cu/grow.cu: a level in five launches, without the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import LEVELS, MISSING, SLOTS, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import THREADS, launch
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.growth import LEAF, Rules, Tree, check_columns, power_for

CHUNK = 2048
"""Rows a block takes at once, as in cu/grow.cu."""
PLANES, FIELDS = 5, 8


class Grower:
    """Grows trees on the same columns, one after the other; all memory is taken here.

    Args:
        x_CN: int8, levels 0..4 and -1 for missing, on the device or to be copied there.
        rules: how trees are grown.
        widest: most columns of a tree.

    Raises:
        ValueError: a wrong shape or dtype, or a value that is no level.
    """

    def __init__(self, x_CN: Array, rules: Rules, widest: int) -> None:
        self._x_CN, self._rules = inputs.columns(x_CN, "x_CN", "int8"), rules
        missing = _check_levels(self._x_CN)
        values = rules.reg_alpha, rules.reg_lambda, rules.gamma, rules.min_child_weight, rules.eta, rules.learn_missing
        self._rule = np.array([*np.array(values, dtype=np.float32), 1.0, 1.0, missing], dtype=np.float64)
        xp, rows, nodes = active().xp, self._x_CN.shape[1], 2 ** (rules.max_depth - 1)
        self._order_2N = [xp.empty(rows, dtype=np.uint32) for _ in range(2)]
        self._level_2JF = [xp.zeros((nodes, FIELDS), dtype=np.int64) for _ in range(2)]
        self._sums_2 = [xp.empty(nodes * widest * SLOTS * 2, dtype=np.int64) for _ in range(2)]
        self._counted = xp.empty(max(1, nodes // 2) * widest * PLANES * 2, dtype=np.uint64)
        self._best_JF = xp.zeros((nodes, FIELDS), dtype=np.float64)
        self._cursor_J2 = xp.zeros((nodes, 2), dtype=np.uint64)
        self._task_J1 = xp.zeros(nodes + 1, dtype=np.int64)
        self._tree_T4 = xp.empty((4 * nodes, 4), dtype=np.int64)
        self._fact_T3 = xp.empty((4 * nodes, 3), dtype=np.float64)
        self._state_3 = xp.zeros(3, dtype=np.int64)

    def grow(self, gradient_N: Array, hessian_N: Array | None, columns_K: Integers, margin_N: Array) -> Tree:
        """Grow a tree on some of the columns, and add its output to `margin_N`.

        Args:
            gradient_N: float32 [N].
            hessian_N: float32 [N]; None for ones. Rows with gradient and Hessian 0 count as absent.
            columns_K: ascending positions, on the host.
            margin_N: float32 [N] on the device, changed in place.

        Returns:
            The tree, on the host.

        Raises:
            ValueError: an array has the wrong shape or type, a gradient is infinite or NaN, a Hessian is negative.
        """
        xp, rows = active().xp, self._x_CN.shape[1]
        check_columns(columns_K, len(self._x_CN))
        gradient_N = inputs.shaped(gradient_N, "gradient_N", (rows,), "float32")
        ones_N = xp.ones(rows, dtype=np.float32) if hessian_N is None else hessian_N
        hessian_N = inputs.shaped(ones_N, "hessian_N", (rows,), "float32")
        counting = _check_hessians(hessian_N)
        powers = _power(gradient_N, "gradient_N"), 0 if counting else _power(hessian_N, "hessian_N")
        quanta = tuple(
            xp.rint(values_N.astype(np.float64) * 2.0**power).astype(np.int32)
            for values_N, power in zip((gradient_N, hessian_N), powers, strict=True)
        )
        rule = self._rule.copy()
        rule[6:8] = np.ldexp(1.0, [-power for power in powers])
        self._begin(quanta)
        self._split_levels(
            quanta, upload(columns_K), upload(rule), "grow_count_rows" if counting else "grow_count_weights"
        )
        blocks = -(-rows // THREADS)
        launch(
            "grow",
            "grow_output",
            blocks,
            *self._data(),
            np.int64(rows),
            upload(rule),
            self._tree_T4,
            self._fact_T3,
            margin_N,
        )
        return self._result()

    def _data(self) -> tuple[Array, np.int64]:
        return self._x_CN, inputs.stride(self._x_CN)

    def _begin(self, quanta: tuple[Array, ...]) -> None:
        """All rows in the root."""
        rows = self._x_CN.shape[1]
        totals = [int(active().host(values_N.sum(dtype=np.int64))) for values_N in quanta]
        self._order_2N[0][:] = active().xp.arange(rows, dtype=np.uint32)
        self._level_2JF[0][0] = upload(np.array([0, 0, rows, *totals, 1, 0, 0], dtype=np.int64))
        self._task_J1[:2] = upload(np.array([0, -(-rows // CHUNK)], dtype=np.int64))
        self._state_3[:] = upload(np.array([1, 1, 0], dtype=np.int64))

    def _split_levels(self, quanta: tuple[Array, ...], column_K: Array, rule: Array, count: str) -> None:
        width, depth = np.int64(len(column_K)), self._rules.max_depth
        chunks = -(-self._x_CN.shape[1] // CHUNK)
        for above in range(depth):
            now, after, root, nodes = above % 2, (above + 1) % 2, np.int64(above == 0), 2**above
            order, level, best, state = self._order_2N[now], self._level_2JF[now], self._best_JF, self._state_3
            self._counted[: max(1, nodes // 2) * len(column_K) * PLANES * 2] = 0
            launch(
                "grow", count, chunks + nodes, *self._data(), column_K, width, order, *quanta, level, self._task_J1,
                state, root, self._counted,
            )  # fmt: skip
            launch(
                "grow", "grow_evaluate", nodes, self._counted, width, rule, state, root, level, self._sums_2[after],
                self._sums_2[now], best,
            )  # fmt: skip
            launch(
                "grow", "grow_decide", 1, column_K, rule, root, np.int64(above + 1 == depth), level, best,
                self._level_2JF[after], self._tree_T4, self._fact_T3, self._task_J1, state,
            )  # fmt: skip
            if above + 1 == depth:
                return
            self._cursor_J2[:] = 0
            launch(
                "grow", "grow_part", chunks + nodes, *self._data(), column_K, rule, level, self._level_2JF[after], best,
                self._task_J1, state, order, self._order_2N[after], self._cursor_J2,
            )  # fmt: skip
            launch("grow", "grow_list", 1, level, self._cursor_J2, state, self._level_2JF[after], self._task_J1)

    def _result(self) -> Tree:
        host = active().host
        nodes = int(host(self._state_3)[2])
        tree_K4, fact_K3 = host(self._tree_T4[:nodes]), host(self._fact_T3[:nodes])
        left_K = tree_K4[:, 1].astype(np.int32)
        return Tree(
            left_K,
            np.where(left_K == LEAF, LEAF, left_K + 1).astype(np.int32),
            tree_K4[:, 0].astype(np.int32),
            tree_K4[:, 2].astype(np.int32),
            ((tree_K4[:, 3] >> 1) + 1).astype(np.int8),
            (tree_K4[:, 3] & 1) != 0,
            *(fact_K3[:, which].astype(np.float32) for which in range(3)),
        )


def grow_tree(
    x_CN: Array, gradient_N: Array, hessian_N: Array | None, columns_K: Integers, rules: Rules
) -> tuple[Tree, Array]:
    """See `spec.grow_tree`. The tree lies on the host, its output on the device."""
    grower = Grower(x_CN, rules, len(columns_K))
    margin_N = active().xp.zeros(x_CN.shape[1], dtype=np.float32)
    return grower.grow(gradient_N, hessian_N, columns_K, margin_N), margin_N


def _check_levels(x_CN: Array) -> bool:
    """Whether -1 occurs. Raises: ValueError for a value that is no level."""
    if x_CN.size == 0:
        return False
    host = active().host
    least, most = int(host(x_CN.min())), int(host(x_CN.max()))
    if least < MISSING or most >= LEVELS:
        bad_C = host((x_CN.min(axis=1) < MISSING) | (x_CN.max(axis=1) >= LEVELS))
        column = int(np.argmax(bad_C))
        raise checks.bad_level(host(x_CN[column]), "x_CN", column)
    return least < 0


def _check_hessians(hessian_N: Array) -> bool:
    """Whether all are 0 or 1. Raises: ValueError for a negative one."""
    host = active().host
    if bool(host((hessian_N < 0).any())):
        row = int(np.argmax(host(hessian_N) < 0))
        raise ValueError(f"hessian_N: expected 0 or more, given {host(hessian_N)[row]} at row {row}")
    return bool(host(((hessian_N == 0) | (hessian_N == 1)).all()))


def _power(values_N: Array, name: str) -> int:
    """The power of two for a tree. Raises: ValueError for an infinite value or NaN."""
    host: Any = active().host
    largest = float(host(abs(values_N).max())) if values_N.size else 0.0
    if not math.isfinite(largest):
        checks.finite(host(values_N)[None, :], name)
    return power_for(largest)

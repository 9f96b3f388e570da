"""Depth-wise trees on integer levels, grown from the columns as they lie in memory and on those of the tree alone."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Double, Integers, Levels, Single
from eravane_kernels.cpu.growing import FACTS, NODES, Level, Nodes, Rows, Scratch, Source, Terms, grow
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.cpu.levelsums import MOST_ROWS, SHIFT, SUMS, TOGETHER, WIDE
from eravane_kernels.growth import LEAF, Quanta, Rules, Tree, check_columns, check_rows, units


@kernel
def _quantise(value_N: Single, scale: np.float32, quanta_N: Quanta) -> None:
    """Values times a power of two, rounded; both arrays may be the same memory."""
    for row in range(value_N.shape[0]):
        quanta_N[row] = np.int32(np.rint(value_N[row] * scale))


def _shards(row_S: Integers, threads: int) -> Integers:
    """Segment, first row in it, first row of all, and number of rows of every shard."""
    most = max(1, min(MOST_ROWS, -(-int(row_S.sum()) // threads)))
    found: list[tuple[int, int, int, int]] = []
    start = 0
    for segment, rows in enumerate(row_S.tolist()):
        pieces = -(-rows // most)
        pieces += -pieces % threads if pieces > 1 else 0  # as many for every thread
        edges = [rows * piece // pieces for piece in range(pieces + 1)] if pieces else [0]
        found += [(segment, a, start + a, b - a) for a, b in pairwise(edges)]
        start += rows
    return np.array(found, dtype=np.int64).reshape(-1, 4)


class Grower:
    """Grows trees on the same columns, one after the other; all memory is taken here.

    Per row: 2 bytes, and 4 where Hessians are not all one; per thread 11 bytes per row of a shard; and the sums.
    Gradients are kept in the array that brings them.

    Args:
        columns: the data.
        rules: how trees are grown.
        widest: most columns of a tree.
        threads: of the processor; no result depends on them.
    """

    def __init__(self, columns: LevelColumns, rules: Rules, widest: int, threads: int = 1) -> None:
        self._columns, self._rules, self._threads = columns, rules, threads
        self._rule_6, self._base = _rule_6(rules), 6 if columns.missing else 5
        self._shard_P4 = _shards(columns.row_S, threads)
        nodes, most = self._nodes, int(self._shard_P4[:, 3].max(initial=0))
        self._hessian_N = np.empty(0, dtype=np.int32)
        self._place_N = np.empty(columns.rows, dtype=np.uint16)
        self._edge_P2K = np.zeros((len(self._shard_P4), 2, nodes + 1), dtype=np.int32)
        sums = widest * self._base * 2
        self._counted = np.empty(threads * self._halves * sums, dtype=np.int64)
        self._sums = np.empty(2 * nodes * sums, dtype=np.int64)
        self._scratch = Scratch(
            np.empty((threads, most), dtype=np.uint8),
            np.empty((threads, most), dtype=np.uint16),
            np.empty((threads, most), dtype=np.int64),
            np.zeros((threads, 2, SUMS), dtype=np.int64),
            np.empty((threads, TOGETHER, 6, 2), dtype=np.int64),
        )
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    @property
    def _nodes(self) -> int:
        """Most nodes of a level whose sums are kept."""
        return int(2 ** (self._rules.max_depth - 1))

    @property
    def _halves(self) -> int:
        """Most nodes of a level that are counted."""
        return max(1, self._nodes // 2)

    def grow(self, gradient_N: Single, hessian_N: Single | None, columns_K: Integers, margin_N: Single) -> Tree:
        """Grow a tree on some of the columns, and add its output to `margin_N`.

        Args:
            gradient_N: float32 [N]; overwritten.
            hessian_N: float32 [N]; None for ones. Rows with gradient and Hessian 0 count as absent.
            columns_K: ascending positions.
            margin_N: float32 [N], changed in place.

        Raises:
            ValueError: an array has the wrong shape or type or is read-only, a gradient is infinite or NaN, a Hessian
                is negative.
        """
        check_rows(gradient_N, hessian_N, self._columns.rows)
        check_columns(columns_K, self._columns.width)
        checks.vector(margin_N, "margin_N", self._columns.rows, "float32")
        for name, array in (("gradient_N", gradient_N), ("margin_N", margin_N)):
            if not array.flags.writeable:
                raise ValueError(f"{name}: expected an array that may be written to, given a read-only one")
        *powers, counting = units(gradient_N, hessian_N)
        scale_2 = np.ldexp(1.0, powers)
        quanta_N = gradient_N.view(np.int32)
        _quantise(gradient_N, np.float32(scale_2[0]), quanta_N)
        quanta = quanta_N, self._of_hessians(hessian_N, scale_2[1])
        terms = Terms(self._rule_6, 1.0 / scale_2, self._rules.max_depth, counting, SHIFT if counting else WIDE)
        most = 4 * self._nodes
        nodes = Nodes(
            np.empty((most, NODES), dtype=np.int64),
            np.empty((most, FACTS), dtype=np.float32),
            np.empty(most, dtype=np.int64),
        )
        return _as_tree(nodes, self._run(columns_K, quanta, margin_N, terms, nodes))

    def _of_hessians(self, hessian_N: Single | None, scale: float) -> Quanta:
        """Hessians as integers, empty where all are one."""
        if hessian_N is None:
            return self._hessian_N[:0]
        if not len(self._hessian_N):
            self._hessian_N = np.empty(len(hessian_N), dtype=np.int32)
        _quantise(hessian_N, np.float32(scale), self._hessian_N)
        return self._hessian_N

    def _run(
        self, columns_K: Integers, quanta: tuple[Quanta, Quanta], margin_N: Single, terms: Terms, nodes: Nodes
    ) -> int:
        """Runs all threads; returns the number of nodes."""
        threads, level = self._threads, self._level(len(columns_K))
        everything = (
            threads,
            np.zeros(1 + terms.depth, dtype=np.int64),
            Source(self._columns.address_SC, self._shard_P4, columns_K, self._base),
            Rows(*quanta, self._place_N, self._edge_P2K, margin_N),
            level,
            self._scratch,
            terms,
            nodes,
        )
        others = [self._pool.submit(grow, me, *everything) for me in range(1, threads)] if self._pool else []
        grow(0, *everything)
        for other in others:
            other.result()
        return int(level.state_3[2])

    def _level(self, width: int) -> Level:
        """What is kept per node of a level, for trees on so many columns."""
        counted_shape = self._threads, self._halves, width, self._base, 2
        sum_shape = 2, self._nodes, width, self._base, 2
        counted = self._counted[: math.prod(counted_shape)].reshape(counted_shape)
        counted[:, 0] = 0
        return Level(
            counted,
            self._sums[: math.prod(sum_shape)].reshape(sum_shape),
            np.zeros((2, self._nodes, 2), dtype=np.int64),
            np.zeros((self._nodes, 6)),
            np.zeros(self._nodes, dtype=np.int64),
            np.zeros(self._nodes, dtype=np.int64),
            np.zeros(self._nodes, dtype=np.int64),
            np.zeros(self._nodes, dtype=np.int64),
            np.zeros((self._nodes, 2), dtype=np.float32),
            np.zeros(3, dtype=np.int64),
        )


def _rule_6(rules: Rules) -> Double:
    """The rules as float32, in the order that `splits` names."""
    values = rules.reg_alpha, rules.reg_lambda, rules.gamma, rules.min_child_weight, rules.eta, rules.learn_missing
    return np.array(values, dtype=np.float32).astype(np.float64)


def _as_tree(tree: Nodes, count: int) -> Tree:
    node_K3, fact_K4 = tree.node_K3[:count], tree.fact_K4[:count]
    left_K = node_K3[:, 0].astype(np.int32)
    return Tree(
        left_K,
        np.where(left_K == LEAF, LEAF, left_K + 1).astype(np.int32),
        tree.parent_K[:count].astype(np.int32),
        node_K3[:, 1].astype(np.int32),
        (node_K3[:, 2] + 1).astype(np.int8),
        fact_K4[:, 3] != 0,
        *(np.ascontiguousarray(fact_K4[:, which]) for which in range(3)),
    )


def grow_tree(
    x_CN: Levels, gradient_N: Single, hessian_N: Single | None, columns_K: Integers, rules: Rules
) -> tuple[Tree, Single]:
    """See `spec.grow_tree`. `Grower` grows many trees on the same columns."""
    checks.columns(x_CN, "x_CN", "int8")
    check_columns(columns_K, len(x_CN))
    margin_N = np.zeros(x_CN.shape[1], dtype=np.float32)
    grower = Grower(LevelColumns.of([x_CN]), rules, len(columns_K))
    check_rows(gradient_N, hessian_N, x_CN.shape[1])
    return grower.grow(gradient_N.copy(), hessian_N, columns_K, margin_N), margin_N

"""The memory that trees are grown in, and the threads that grow them."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from eravane_kernels.arrays import Double, Integers, Single
from eravane_kernels.cpu import splits
from eravane_kernels.cpu.growstate import Level, Nodes, Rows, Scratch, Source, Terms
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.cpu.levelsums import GROUPS, MOST_ROWS, PLANE, SHIFT, SUMS, WIDE
from eravane_kernels.growth import Rules, Tree

NO_WEIGHTS = np.empty((0, 0), dtype=np.float32)
"""Weight of rows that all count as one."""
GROUPS_SHARED = 2 * GROUPS
"""Groups of columns that are joined before the trees that share them count: their joint levels stay in the cache."""

DEEP, MOST_ROWS_DEEP = 9, 1 << 16
"""Trees of this many levels are grown in larger shards, as many rows as a place of 16 bits can name: the fixed cost of
a node in every shard is then most of their time (measured: 5 % less of it at depth 9, 7 % at 10)."""

APART = 8
"""Columns that a thread has room for where it needs `TOGETHER`: no two threads write to the same line of the cache."""


class Memory:
    """Memory for trees that grow at the same time on the same columns.

    Per row and tree 2 bytes for its place, and 4 for its Hessian where these are not all one; per thread 3 bytes per
    row of a shard, and 8 per tree; and the sums.

    Args:
        columns: the data.
        rules: how trees are grown.
        widest: most columns of a tree.
        threads: of the processor; no result depends on them.
        models: trees that grow at the same time.
    """

    def __init__(self, columns: LevelColumns, rules: Rules, widest: int, threads: int, models: int) -> None:
        self.columns, self.threads, self.models, self.depth = columns, threads, models, rules.max_depth
        self.rule_7, self._base = rule_7(rules), 6 if columns.missing else 5
        self.shard_P4 = _shards(columns.row_S, threads, MOST_ROWS if rules.max_depth < DEEP else MOST_ROWS_DEEP)
        most, together = int(self.shard_P4[:, 3].max(initial=0)), GROUPS if models == 1 else GROUPS_SHARED
        self._hessian_BN = np.empty((models, 0), dtype=np.int32)
        self._place_BN = np.empty((models, columns.rows), dtype=np.uint16)
        self._edge_BP22K = np.zeros((models, len(self.shard_P4), 2, 2, self._nodes + 1), dtype=np.int32)
        sums = widest * self._base * 2
        self._counted = np.empty(threads * models * self._halves * sums, dtype=np.int64)
        self._sums = np.empty(2 * models * self._nodes * sums, dtype=np.int64)
        self.scratch = Scratch(
            np.empty((threads, together, most), dtype=np.uint8),
            np.empty((threads, most), dtype=np.uint16),
            np.empty((threads, models, most), dtype=np.int64),
            np.zeros((threads, 2 * GROUPS, SUMS), dtype=np.int64),
            np.zeros((threads, PLANE), dtype=np.int64),
            np.zeros((threads, 2, APART, 6), dtype=np.int64),
            np.empty((threads, 2, splits.CANDIDATES * widest + APART), dtype=np.int64),
            np.empty((threads, splits.CANDIDATES * widest + 2 * APART), dtype=np.float32),
        )
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    @property
    def _nodes(self) -> int:
        """Most nodes of a level whose sums are kept."""
        return int(2 ** (self.depth - 1))

    @property
    def _halves(self) -> int:
        """Most nodes of a level that are counted."""
        return max(1, self._nodes // 2)

    def nodes(self, rounds: int) -> Nodes:
        """Room for the trees of some rounds."""
        shape = rounds, self.models, self.most_nodes
        return Nodes(
            np.zeros((4, *shape), dtype=np.int32),
            np.zeros((3, *shape), dtype=np.float32),
            np.zeros(shape, dtype=np.int8),
            np.zeros(shape, dtype=np.bool_),
            np.zeros(shape[:2], dtype=np.int64),
        )

    def terms(self, counting: bool) -> Terms:
        """The rules, with scales and units still to be set."""
        scale_B2, unit_B2 = np.ones((self.models, 2), dtype=np.float32), np.ones((self.models, 2))
        return Terms(self.rule_7, scale_B2, unit_B2, self.depth, counting, SHIFT if counting else WIDE)

    @property
    def most_nodes(self) -> int:
        """Most nodes of a tree."""
        return 4 * self._nodes

    def source(self, columns_K: Integers) -> Source:
        """Addresses of columns, for the compiled functions."""
        return Source(self.columns.address_SC, self.shard_P4, columns_K, self._base)

    def rows(self, value_BN: Single, weight_BN: Single, margin_BN: Single, *, spent: bool = False) -> Rows:
        """Gradients become integers in their own memory, and so do Hessians that are `spent` by the tree."""
        if len(weight_BN) and not self._hessian_BN.size and not spent:
            self._hessian_BN = np.empty((self.models, self.columns.rows), dtype=np.int32)
        hessian_BN = self._hessian_BN if len(weight_BN) else self._hessian_BN[:, :0]
        hessian_BN = weight_BN.view(np.int32) if spent else hessian_BN
        return Rows(
            value_BN, weight_BN, value_BN.view(np.int32), hessian_BN, self._place_BN, self._edge_BP22K, margin_BN
        )

    def level(self, width: int) -> Level:
        """Memory per node of a level, for trees on some columns."""
        nodes, models = self._nodes, self.models
        counted_shape = self.threads, models, self._halves, width, self._base, 2
        sum_shape = models, 2, nodes, width, self._base, 2
        return Level(
            self._counted[: math.prod(counted_shape)].reshape(counted_shape),
            self._sums[: math.prod(sum_shape)].reshape(sum_shape),
            np.zeros((models, 2, nodes, 2), dtype=np.int64),
            np.zeros((models, nodes, 6)),
            np.zeros((models, nodes), dtype=np.int64),
            np.zeros((models, nodes), dtype=np.int64),
            np.zeros((models, nodes), dtype=np.int64),
            np.zeros((models, nodes), dtype=np.int64),
            np.zeros((models, nodes, 2), dtype=np.float32),
            np.zeros((models, 4), dtype=np.int64),
            np.zeros((self.depth, 2), dtype=np.int64),
        )

    def run(self, function: Callable[..., None], *everything: object) -> None:
        """Runs a compiled function in all threads: with the thread's number, their number, and where they meet."""
        shared = self.threads, np.zeros(1, dtype=np.int64), *everything
        others = [self._pool.submit(function, me, *shared) for me in range(1, self.threads)] if self._pool else []
        function(0, *shared)
        for other in others:
            other.result()


def as_tree(nodes: Nodes, turn: int, model: int) -> Tree:
    """The tree that a model got in a round."""
    here = turn, model, slice(int(nodes.count_RB[turn, model]))
    left_K, right_K, parent_K, column_K = nodes.link_4RBK[:, *here].copy()
    below_K, missing_left_K = nodes.below_RBK[here].copy(), nodes.missing_left_RBK[here].copy()
    return Tree(left_K, right_K, parent_K, column_K, below_K, missing_left_K, *nodes.fact_3RBK[:, *here].copy())


def rule_7(rules: Rules) -> Double:
    """The rules as float32, in the order that `splits` names."""
    penalties = rules.reg_alpha, rules.reg_lambda, rules.gamma, rules.min_child_weight
    values = *penalties, rules.eta, rules.learn_missing, rules.gain_from_weight
    return np.array(values, dtype=np.float32).astype(np.float64)


def _shards(row_S: Integers, threads: int, most: int) -> Integers:
    """Segment, first row in it, first row of all, and number of rows of every shard."""
    most = max(1, min(most, -(-int(row_S.sum()) // threads)))
    found: list[tuple[int, int, int, int]] = []
    start = 0
    for segment, rows in enumerate(row_S.tolist()):
        pieces = -(-rows // most)
        pieces += -pieces % threads if pieces > 1 else 0  # as many for every thread
        edges = [rows * piece // pieces for piece in range(pieces + 1)] if pieces else [0]
        found += [(segment, a, start + a, b - a) for a, b in pairwise(edges)]
        start += rows
    return np.array(found, dtype=np.int64).reshape(-1, 4)

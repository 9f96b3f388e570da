"""Depth-wise trees on integer levels on the device, by cu/grow.cu: several at once, a level in five launches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import LEVELS, MISSING, SLOTS, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import THREADS, launch
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.growth import LEAF, Rules, Tree, check_columns

CHUNK, STAGE, TILE = 4096, 512, 32
"""Rows of a node and of its records that a block takes at once, and bytes of a record, as in cu/*.cuh."""
PLANES, FIELDS, NODE, RULES = 5, 8, 7, 10
MOST_PARTS = 512
"""Most blocks that look for the largest gradient."""
WHOLE = 1 << 24
"""A share of rows is rounded to so many parts, as in cu/quanta.cu."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns on the device whose values are known to be levels.

    Attributes:
        x_CN: int8, levels 0..4 and -1 for missing; columns contiguous, any number of bytes apart.
        missing: whether -1 occurs.
    """

    x_CN: Array
    missing: bool

    @classmethod
    def of(cls, x_CN: Array) -> Columns:
        """Columns where they lie, or copied to the device from the host.

        Raises:
            ValueError: a wrong shape or dtype, or a value that is no level.
        """
        x_CN = inputs.columns(x_CN, "x_CN", "int8")
        return cls(x_CN, _check_levels(x_CN))

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.x_CN)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.x_CN.shape[1])


@dataclass(frozen=True, eq=False)
class Gradients:
    """What trees are grown from: given, or of squared error.

    Attributes:
        gradient_BN: float32 [B, N] on the device; with a goal room for the gradients.
        hessian_BN: float32 [B, N], or [1, N] for all trees, on the device; None for ones.
        counting: whether every Hessian is 0 or 1.
        goal_BN: float32 [B, N] on the device, NaN in rows that are absent; None for given gradients.
        stream, share: of the rows that are drawn, as in cu/quanta.cu; with a goal alone.
    """

    gradient_BN: Array
    hessian_BN: Array | None
    counting: bool
    goal_BN: Array | None = None
    stream: int = 0
    share: int = WHOLE


class Grower:
    """Grows trees on the same columns, one or several at a time; all memory is taken here. See `bytes_needed`.

    Args:
        columns: the data; not to be changed.
        rules: how trees are grown.
        widest: most columns of a tree.
        together: most trees that are grown at once, on the same columns from gradients of their own.
        kept: how many times trees are grown before they are fetched.
    """

    def __init__(self, columns: Columns, rules: Rules, widest: int, together: int = 1, kept: int = 1) -> None:
        self._x_CN, self._missing, self._rows = columns.x_CN, columns.missing, columns.rows
        self._rules, self._together = rules, together
        penalties = rules.reg_alpha, rules.reg_lambda, rules.gamma, rules.min_child_weight
        values = np.array([*penalties, rules.eta, rules.learn_missing], dtype=np.float32)
        rule_R = np.array([*values, 1.0, 1.0, self._missing, rules.gain_from_weight], dtype=np.float64)
        xp = active().xp
        self._nodes, trees = 1 << rules.max_depth - 1, together
        self._parts = max(1, min(MOST_PARTS, -(-self._rows // (4 * THREADS))))
        self._halves = max(1, self._nodes // 2)
        self._columns_K, self._column_K = np.empty(0, dtype=np.int64), xp.empty(0, dtype=np.int64)
        self._record = xp.empty(self._rows * stride_of(widest), dtype=np.uint8)
        self._rule_BR = upload(np.tile(rule_R, (trees, 1)))
        self._largest = xp.empty(trees * 2 * self._parts, dtype=np.uint32)
        self._order_2 = [xp.empty(trees * self._rows, dtype=np.uint32) for _ in range(2)]
        self._quanta_2: list[Array] = []
        self._level_2 = [xp.zeros((trees, self._nodes, FIELDS), dtype=np.int64) for _ in range(2)]
        self._sums_2 = [xp.empty(trees * self._nodes * widest * SLOTS * 2, dtype=np.int64) for _ in range(2)]
        self._counted_2 = [xp.empty(trees * self._halves * widest * PLANES * 2, dtype=np.uint64) for _ in range(2)]
        self._best = xp.zeros((trees, self._nodes, FIELDS), dtype=np.int64)
        self._cursor = xp.zeros((trees, self._nodes, 2), dtype=np.uint64)
        self._task = xp.zeros((trees, self._nodes + 1), dtype=np.int64)
        self._state = xp.zeros((trees, 3), dtype=np.int64)
        self._tree_TBM7 = xp.empty((kept, trees, 4 * self._nodes, NODE), dtype=np.int64)
        self._count_TB, self._bad_TB = (xp.zeros((kept, trees), dtype=np.int64) for _ in range(2))

    @property
    def kept(self) -> int:
        """How many times trees can be grown before they must be fetched."""
        return len(self._tree_TBM7)

    def grow(self, gradient_N: Array, hessian_N: Array | None, columns_K: Integers, margin_N: Array) -> Tree:
        """Grow a tree on some of the columns, and add its output to `margin_N`; see `grow_many`.

        Args:
            gradient_N: float32 [N].
            hessian_N: float32 [N]; None for ones. Rows with gradient and Hessian 0 count as absent.
            columns_K: ascending positions, on the host.
            margin_N: float32 [N] on the device, changed in place.
        """
        vectors = [("gradient_N", gradient_N), ("hessian_N", hessian_N), ("margin_N", margin_N)]
        for name, values_N in vectors:
            if values_N is not None:
                inputs.shaped_alike(values_N, name, (self._rows,), "float32")
        gradient_BN, hessian_BN, margin_BN = (None if values_N is None else values_N[None] for _, values_N in vectors)
        return self.grow_many(gradient_BN, hessian_BN, columns_K, margin_BN)[0]

    def grow_many(
        self, gradient_BN: Array, hessian_BN: Array | None, columns_K: Integers, margin_BN: Array
    ) -> list[Tree]:
        """Grow a tree from each of several gradients on the same columns, and add their outputs to `margin_BN`.

        Args:
            gradient_BN: float32 [B, N].
            hessian_BN: float32 [B, N]; None for ones. Rows with gradient and Hessian 0 count as absent.
            columns_K: ascending positions, on the host.
            margin_BN: float32 [B, N] on the device, columns contiguous, changed in place.

        Returns:
            The trees, on the host; to the bit those that `grow` gives one by one.

        Raises:
            ValueError: an array has the wrong shape or type, a gradient is infinite or NaN, a Hessian is infinite, NaN
                or negative; outputs are then as they were, but for those of trees that have no such row.
        """
        shape = len(gradient_BN), self._rows
        gradient_BN = inputs.shaped(gradient_BN, "gradient_BN", shape, "float32")
        inputs.shaped_alike(margin_BN, "margin_BN", shape, "float32")
        if not margin_BN.flags.c_contiguous:
            raise ValueError("margin_BN: expected contiguous rows, given rows with gaps")
        counting = True
        if hessian_BN is not None:
            hessian_BN = inputs.shaped(hessian_BN, "hessian_BN", shape, "float32")
            counting = are_counts(hessian_BN)
        self.enqueue(0, Gradients(gradient_BN, hessian_BN, counting), columns_K, upload(columns_K), margin_BN)
        bad_B = active().host(self._bad_TB[0])[: shape[0]]
        if bad_B.any():
            _name_the_row(int(np.argmax(bad_B != 0)), gradient_BN, hessian_BN)
        return self.fetch(1, shape[0])[0]

    def enqueue(
        self, number: int, gradients: Gradients, columns_K: Integers, device_K: Array, margin_BN: Array
    ) -> None:
        """Launch the growing of trees and return before they are grown; nothing is read back.

        Args:
            number: where the trees are kept, 0..kept-1.
            gradients: what they are grown from.
            columns_K, device_K: ascending positions, on the host and on the device.
            margin_BN: float32 [B, N] on the device, changed in place. All arrays are contiguous.

        Raises:
            ValueError: wrong positions, or more trees than `together`.
        """
        trees = len(gradients.gradient_BN)
        if not 1 <= trees <= self._together:
            raise ValueError(f"gradient_BN: expected 1..{self._together} trees, given {trees}")
        self._pack(columns_K, device_K)
        self._begin(number, gradients, margin_BN)
        self._split_levels(number, trees, gradients.counting)
        launch(
            "grow", "grow_output", -(-self._rows // THREADS), *self._data(), self._rule_BR, self._of_nodes(),
            self._tree_TBM7[number], margin_BN, times=trees,
        )  # fmt: skip

    def fetch(self, rounds: int, trees: int) -> list[list[Tree]]:
        """Trees that were grown, of every number below `rounds` the first so many, copied to the host.

        Raises:
            ValueError: a gradient of one of them is infinite or NaN, or a Hessian is or is negative.
        """
        host = active().host
        bad_TB, count_TB = host(self._bad_TB[:rounds]), host(self._count_TB[:rounds])
        if bad_TB[:, :trees].any():
            number = int(np.argmax(bad_TB[:, :trees].any(axis=1)))
            raise ValueError(f"gradients of tree {number}: expected finite ones, and Hessians of 0 or more")
        tree_TBM7 = host(self._tree_TBM7[:rounds])
        return [
            [_as_tree(tree_TBM7[number, which, : count_TB[number, which]]) for which in range(trees)]
            for number in range(rounds)
        ]

    def _data(self) -> tuple[Array, np.int64, np.int64]:
        return self._x_CN, inputs.stride(self._x_CN), np.int64(self._rows)

    def _of_nodes(self) -> np.int64:
        return np.int64(self._nodes)

    def _pack(self, columns_K: Integers, device_K: Array) -> None:
        """The columns as records, unless those of the last tree were the same."""
        if np.array_equal(columns_K, self._columns_K):
            return
        check_columns(columns_K, len(self._x_CN))
        stride = stride_of(len(columns_K))
        if self._rows * stride > self._record.size:
            raise ValueError(f"columns_K: expected no more columns than was said, given {len(columns_K)}")
        self._columns_K, self._column_K = columns_K.copy(), device_K
        blocks = -(-self._rows // STAGE) * -(-stride // TILE)
        launch(
            "records", "grow_pack", blocks, *self._data(), self._column_K, np.int64(len(columns_K)), self._record,
            np.int64(stride),
        )  # fmt: skip

    def _begin(self, number: int, gradients: Gradients, margin_BN: Array) -> None:
        """Gradients as integers, all rows in the roots."""
        xp, gradient_BN, hessian_BN, goal_BN = (
            active().xp, gradients.gradient_BN, gradients.hessian_BN, gradients.goal_BN,
        )  # fmt: skip
        most = (1 if gradients.counting else 2) * self._together * self._rows
        if not self._quanta_2 or self._quanta_2[0].size < most:
            self._quanta_2 = [xp.empty(most, dtype=np.uint32) for _ in range(2)]
        each = np.int64(self._rows if hessian_BN is not None and len(hessian_BN) == len(gradient_BN) else 0)
        hessians = np.int64(hessian_BN is not None), gradient_BN if hessian_BN is None else hessian_BN, each
        cells, nodes, rows = np.int64(len(self._columns_K) * PLANES * 2), self._of_nodes(), np.int64(self._rows)
        launch(
            "quanta", "grow_measure", self._parts, rows, np.int64(goal_BN is None), margin_BN,
            gradient_BN if goal_BN is None else goal_BN, *hessians, np.uint64(gradients.stream),
            np.uint64(gradients.share), gradient_BN, self._largest, nodes, self._level_2[0], self._task, self._state,
            cells, self._counted_2[0], times=len(gradient_BN),
        )  # fmt: skip
        launch(
            "quanta", "grow_quantise", self._parts, rows, gradient_BN, *hessians, np.int64(gradients.counting),
            self._largest, self._quanta_2[0], self._rule_BR, nodes, self._level_2[0], self._bad_TB[number],
            times=len(gradient_BN),
        )  # fmt: skip

    def _split_levels(self, number: int, trees: int, counting: bool) -> None:
        width, rows, nodes, column_K = len(self._columns_K), np.int64(self._rows), self._of_nodes(), self._column_K
        stride, words, rule, state = stride_of(width), np.int64(1 if counting else 2), self._rule_BR, self._state
        columns, chunks, tiles = np.int64(width), -(-self._rows // CHUNK), -(-stride // TILE)
        count = f"grow_count_{'rows' if counting else 'weights'}{'_missing' if self._missing else ''}"
        for above in range(self._rules.max_depth):
            now, after, root, here = above % 2, (above + 1) % 2, np.int64(above == 0), 2**above
            last, level, following = np.int64(above + 1 == self._rules.max_depth), *self._of(self._level_2, now)
            order, to = self._of(self._order_2, now)
            quanta, to_quanta = self._of(self._quanta_2, now)
            counted, upcoming = self._of(self._counted_2, now)
            launch(
                "grow", count, (chunks + here) * tiles, self._record, np.int64(stride), columns,
                np.int64(_lanes(width)), rows, order, quanta, nodes, level, self._task, state, root, counted,
                times=trees,
            )  # fmt: skip
            launch(
                "grow", "grow_evaluate", here, counted, columns, rule, state, root, last, nodes, level,
                self._sums_2[after], self._sums_2[now], self._best, upcoming, times=trees,
            )  # fmt: skip
            launch(
                "grow", "grow_decide", 1, column_K, rule, root, last, nodes, level, self._best, following,
                self._tree_TBM7[number], self._count_TB[number], self._task, state, self._cursor, times=trees,
            )  # fmt: skip
            if last:
                return
            launch(
                "grow", "grow_part", chunks + here, *self._data(), column_K, rule, root, nodes, level, following,
                self._best, self._task, state, order, to, words, quanta, to_quanta, self._cursor, times=trees,
            )  # fmt: skip
            launch("grow", "grow_list", 1, nodes, level, self._cursor, state, following, self._task, times=trees)

    @staticmethod
    def _of(pair: list[Array], now: int) -> tuple[Array, Array]:
        """The one in use at this level, and the one of the next."""
        return pair[now], pair[1 - now]


def bytes_needed(rows: int, widest: int, depth: int, together: int = 1, kept: int = 1, *, weighed: bool = False) -> int:
    """Bytes on the device that a `Grower` takes, beside the columns."""
    nodes = 1 << depth - 1
    per_row = 8 + (16 if weighed else 8)
    per_column = 2 * 8 * (nodes * SLOTS * 2 + max(1, nodes // 2) * PLANES * 2)
    return rows * stride_of(widest) + together * (rows * per_row + widest * per_column + kept * 4 * nodes * NODE * 8)


def stride_of(width: int) -> int:
    """Bytes of a record of so many columns: half a sector, or whole ones."""
    return 16 if width <= 32 else -(-width // (2 * TILE)) * TILE


def grow_tree(
    x_CN: Array, gradient_N: Array, hessian_N: Array | None, columns_K: Integers, rules: Rules
) -> tuple[Tree, Array]:
    """See `spec.grow_tree`. The tree lies on the host, its output on the device."""
    grower = Grower(Columns.of(x_CN), rules, len(columns_K))
    margin_N = active().xp.zeros(x_CN.shape[1], dtype=np.float32)
    return grower.grow(gradient_N, hessian_N, columns_K, margin_N), margin_N


def are_counts(hessian_BN: Array) -> bool:
    """Whether all Hessians are 0 or 1."""
    return bool(active().host(((hessian_BN == 0) | (hessian_BN == 1)).all()))


def _lanes(width: int) -> int:
    """Lanes of a warp that add up a record, a byte each: a power of two."""
    return min(TILE, 1 << ((width + 1) // 2 - 1).bit_length())


def _as_tree(node_K7: Integers) -> Tree:
    left_K = node_K7[:, 1].astype(np.int32)
    fact_K3 = np.ascontiguousarray(node_K7[:, 4:]).view(np.float64)
    return Tree(
        left_K,
        np.where(left_K == LEAF, LEAF, left_K + 1).astype(np.int32),
        node_K7[:, 0].astype(np.int32),
        node_K7[:, 2].astype(np.int32),
        ((node_K7[:, 3] >> 1) + 1).astype(np.int8),
        (node_K7[:, 3] & 1) != 0,
        *(fact_K3[:, which].astype(np.float32) for which in range(3)),
    )


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


def _name_the_row(tree: int, gradient_BN: Array, hessian_BN: Array | None) -> None:
    """Raises: ValueError for the first gradient or Hessian of a tree that is wrong."""
    host = active().host
    if hessian_BN is not None:
        hessian_N = host(hessian_BN[tree])
        if (hessian_N < 0).any():
            row = int(np.argmax(hessian_N < 0))
            raise ValueError(f"hessian_N: expected 0 or more, given {hessian_N[row]} at row {row}")
        checks.finite(hessian_N[None, :], "hessian_N")
    checks.finite(host(gradient_BN[tree])[None, :], "gradient_N")

"""Depth-wise trees on integer levels on the device, by cu/grow.cu: several at once, a level in five launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import SLOTS, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import THREADS, launch
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.growth import LEAF, Rules, Tree, check_columns

CHUNK, TILE, HALVED = 4096, 32, 32
"""Rows of a node that a block takes at once, bytes of a record, rows of a halved vector, as in cu/*.cuh."""
ALIGNMENT = 128
PLANES, FIELDS, NODE, RULES = 5, 8, 7, 10
MOST_PARTS = 512
"""Most blocks that look for the largest gradient."""
WHOLE = 1 << 24
"""Parts that a share of rows is rounded to, as in cu/quanta.cu."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns on the device at four bits a cell, their values known to be levels.

    Attributes:
        half_CB: uint8, two rows a byte, columns a multiple of 128 bytes apart.
        rows: number of rows.
        missing: whether -1 occurs.
    """

    half_CB: Array
    rows: int
    missing: bool

    @classmethod
    def of(cls, x_CN: Array) -> Columns:
        """Columns halved on the device, by cu/records.cu; x_CN may go afterwards.

        Args:
            x_CN: int8, levels 0..4 and -1 for missing, contiguous columns any number of bytes apart; on the host it is
                copied to the device.

        Raises:
            ValueError: a wrong shape or dtype, or a value that is no level.
        """
        x_CN = inputs.columns(x_CN, "x_CN", "int8")
        width, rows = (int(size) for size in x_CN.shape)
        xp, step = active().xp, half_step(rows)
        half_CB = xp.zeros((width, step), dtype=np.uint8)
        wrong_C, missing_C = (xp.zeros(width, dtype=np.uint32) for _ in range(2))
        launch(
            "records", "grow_halve", -(-width * -(-rows // HALVED) // THREADS), x_CN, inputs.stride(x_CN),
            np.int64(rows), np.int64(width), half_CB, np.int64(step), wrong_C, missing_C,
        )  # fmt: skip
        host = active().host
        if (bad_C := host(wrong_C)).any():
            column = int(np.argmax(bad_C != 0))
            raise checks.bad_level(host(x_CN[column]), "x_CN", column)
        return cls(half_CB, rows, bool(host(missing_C).any()))

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.half_CB.shape[0])


def half_step(rows: int) -> int:
    """Bytes from one halved column to the next."""
    return max(1, -(-rows // (2 * ALIGNMENT))) * ALIGNMENT


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients from which trees are grown: given, or of squared error.

    Attributes:
        gradient_BN: float32 [B, N] on the device; with a goal room for the gradients.
        hessian_BN: float32 [B, N], or [1, N] for all trees, on the device; None for ones.
        counting: whether every Hessian is 0 or 1.
        goal_BN: float32 [B, N] on the device, NaN in rows that are absent; None for given gradients.
        share: of the rows that are drawn, as in cu/quanta.cu; with a goal alone.
    """

    gradient_BN: Array
    hessian_BN: Array | None
    counting: bool
    goal_BN: Array | None = None
    share: int = WHOLE


class Grower:
    """Grows trees on the same columns, one or several at a time; all memory is taken here. See `bytes_needed`.

    Args:
        columns: the data; not to be changed.
        rules: how trees are grown.
        widest: most columns of a tree.
        together: most trees that are grown at once, on the same columns from gradients of their own.
        kept: how many times trees are grown before they are fetched.

    Attributes:
        record: uint8 [N x stride], the columns of the newest tree packed by row.
        quanta_2: rounded gradients of all trees' rows, uint32, and as much room for the next level's order.
    """

    def __init__(self, columns: Columns, rules: Rules, widest: int, together: int = 1, kept: int = 1) -> None:
        self._columns, self._missing, self._rows = columns, columns.missing, columns.rows
        self._rules, self._together, self._widest = rules, together, widest
        penalties = rules.reg_alpha, rules.reg_lambda, rules.gamma, rules.min_child_weight
        values = np.array([*penalties, rules.eta, rules.learn_missing], dtype=np.float32)
        rule_R = np.array([*values, 1.0, 1.0, self._missing, rules.gain_from_weight], dtype=np.float64)
        xp = active().xp
        self._nodes, trees = 1 << rules.max_depth - 1, together
        self._parts = max(1, min(MOST_PARTS, -(-self._rows // (4 * THREADS))))
        self._halves = max(1, self._nodes // 2)
        self._column_RK = np.empty((0, 0), dtype=np.int64)
        self._packed_K = np.empty(0, dtype=np.int64)
        # What differs from round to round, and which round it is.
        self._columns_there, self._streams = xp.zeros(kept * widest, dtype=np.int64), xp.zeros(kept, dtype=np.uint64)
        self._turn, self._next = xp.zeros(1, dtype=np.int64), 0
        self.record = xp.empty(self._rows * stride_of(widest), dtype=np.uint8)
        self._rule_BR = upload(np.tile(rule_R, (trees, 1)))
        self._largest = xp.empty(trees * 2 * self._parts, dtype=np.uint32)
        self._order_2 = [xp.empty(trees * self._rows, dtype=np.uint32) for _ in range(2)]
        self.quanta_2: list[Array] = []
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
        self.begin(columns_K[None], [0])
        self.enqueue(Gradients(gradient_BN, hessian_BN, counting), margin_BN)
        bad_B = active().host(self._bad_TB[0])[: shape[0]]
        if bad_B.any():
            _name_the_row(int(np.argmax(bad_B != 0)), gradient_BN, hessian_BN)
        return self.fetch(1, shape[0])[0]

    def begin(self, column_RK: Integers, streams: Sequence[int]) -> None:
        """Set what the next rounds are grown on; the first of them is the next one.

        Args:
            column_RK: ascending positions, on the host; the same number for every round.
            streams: of the draws of rows, one a round.

        Raises:
            ValueError: wrong positions, more columns than announced, or more rounds than are kept.
        """
        rounds, width = column_RK.shape
        if rounds > self.kept or width > self._widest:
            raise ValueError(f"columns_K: expected no more columns than announced, given {width}")
        for columns_K in column_RK:
            check_columns(columns_K, self._columns.width)
        self._column_RK, self._next = column_RK.copy(), 0
        self._columns_there[: rounds * width] = upload(self._column_RK.reshape(-1))
        self._streams[:rounds] = upload(np.array(streams, dtype=np.uint64))
        self._turn[:] = 0

    @property
    def packs(self) -> bool:
        """Whether the next round's columns are other ones than those that lie packed."""
        return not np.array_equal(self._column_RK[self._next], self._packed_K)

    def enqueue(self, gradients: Gradients, margin_BN: Array) -> None:
        """Launch the growing of the next round's trees and return before they are grown; nothing is read back.

        Args:
            gradients: what they are grown from.
            margin_BN: float32 [B, N] on the device, changed in place. All arrays are contiguous.

        Raises:
            ValueError: more trees than `together`.
        """
        trees = len(gradients.gradient_BN)
        if not 1 <= trees <= self._together:
            raise ValueError(f"gradient_BN: expected 1..{self._together} trees, given {trees}")
        packs = self.packs
        self.launch_round(gradients, margin_BN, packs)
        self.passed()

    def passed(self) -> None:
        """The next round has been launched."""
        self._packed_K = self._column_RK[self._next]
        self._next += 1

    def launch_round(self, gradients: Gradients, margin_BN: Array, packs: bool) -> None:
        """The launches of a round, the same ones for every round that packs its columns, or that does not."""
        trees = len(gradients.gradient_BN)
        self._quantise(gradients, margin_BN)
        self._count_roots(trees, gradients.counting, packs)
        self._split_levels(trees, gradients.counting, margin_BN)
        launch("grow", "grow_turn", 1, self._turn)

    def fetch(self, rounds: int, trees: int) -> list[list[Tree]]:
        """Trees that were grown, the first ones of every number below `rounds`, copied to the host.

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

    @property
    def _width(self) -> int:
        return int(self._column_RK.shape[1])

    def _quantise(self, gradients: Gradients, margin_BN: Array) -> None:
        """Gradients as integers, all rows in the roots."""
        xp, gradient_BN, hessian_BN, goal_BN = (
            active().xp, gradients.gradient_BN, gradients.hessian_BN, gradients.goal_BN,
        )  # fmt: skip
        most = (1 if gradients.counting else 2) * self._together * self._rows
        if not self.quanta_2 or self.quanta_2[0].size < most:
            self.quanta_2 = [xp.empty(most, dtype=np.uint32) for _ in range(2)]
        each = np.int64(self._rows if hessian_BN is not None and len(hessian_BN) == len(gradient_BN) else 0)
        hessians = np.int64(hessian_BN is not None), gradient_BN if hessian_BN is None else hessian_BN, each
        cells, nodes, rows = np.int64(self._width * PLANES * 2), np.int64(self._nodes), np.int64(self._rows)
        launch(
            "quanta", "grow_measure", self._parts, rows, np.int64(goal_BN is None), margin_BN,
            gradient_BN if goal_BN is None else goal_BN, *hessians, self._turn, self._streams,
            np.uint64(gradients.share), gradient_BN, self._largest, nodes, self._level_2[0], self._task, self._state,
            cells, self._counted_2[0], times=len(gradient_BN),
        )  # fmt: skip
        launch(
            "quanta", "grow_quantise", self._parts, rows, gradient_BN, *hessians, np.int64(gradients.counting),
            self._largest, self.quanta_2[0], self._rule_BR, nodes, self._level_2[0], self._turn,
            np.int64(self._together), self._bad_TB, times=len(gradient_BN),
        )  # fmt: skip

    def _kind(self, counting: bool) -> str:
        return f"{'rows' if counting else 'weights'}{'_missing' if self._missing else ''}"

    def _count_roots(self, trees: int, counting: bool, packs: bool) -> None:
        """The columns as records, and on the way the first tree's root; other roots from the records."""
        width = self._width
        stride = stride_of(width)
        if packs:
            blocks = -(-self._rows // CHUNK) * -(-stride // TILE)
            launch(
                "records", f"grow_pack_{self._kind(counting)}", blocks, *self._half(), np.int64(self._rows),
                self._columns_there, self._turn, np.int64(width), self.record, np.int64(stride),
                np.int64(_lanes(width)), self.quanta_2[0], self._counted_2[0],
            )  # fmt: skip
        if not packs or trees > 1:
            self._count(0, trees, counting, first=1 if packs else 0)

    def _count(self, above: int, trees: int, counting: bool, first: int = 0) -> None:
        """Sums of a level's rows from the records, of trees from the first on."""
        now, width, words = above % 2, self._width, 1 if counting else 2
        stride, tiles, chunks = stride_of(width), -(-stride_of(width) // TILE), -(-self._rows // CHUNK)
        each = self._halves * width * PLANES * 2
        launch(
            "grow", f"grow_count_{self._kind(counting)}", (chunks + 2**above) * tiles, self.record, np.int64(stride),
            np.int64(width), np.int64(_lanes(width)), np.int64(self._rows), self._order_2[now][first * self._rows :],
            self.quanta_2[now][first * words * self._rows :], np.int64(self._nodes), self._level_2[now][first:],
            self._task[first:], self._state[first:], np.int64(above == 0), self._counted_2[now][first * each :],
            times=trees - first,
        )  # fmt: skip

    def _half(self) -> tuple[Array, np.int64]:
        return self._columns.half_CB, np.int64(self._columns.half_CB.shape[1])

    def _split_levels(self, trees: int, counting: bool, margin_BN: Array) -> None:
        rows, nodes, width = np.int64(self._rows), np.int64(self._nodes), np.int64(self._width)
        words, rule, state = np.int64(1 if counting else 2), self._rule_BR, self._state
        of_round = self._columns_there, self._turn, width, np.int64(self._together)
        for above in range(self._rules.max_depth):
            now, after, root, here = above % 2, (above + 1) % 2, np.int64(above == 0), 2**above
            last, level, following = np.int64(above + 1 == self._rules.max_depth), *self._of(self._level_2, now)
            order, to = self._of(self._order_2, now)
            quanta, to_quanta = self._of(self.quanta_2, now)
            counted, upcoming = self._of(self._counted_2, now)
            if above:
                self._count(above, trees, counting)
            launch(
                "grow", "grow_evaluate", here, counted, width, rule, state, root, last, nodes, level,
                self._sums_2[after], self._sums_2[now], self._best, upcoming, times=trees,
            )  # fmt: skip
            launch(
                "grow", "grow_decide", 1, *of_round, rule, root, last, nodes, level, self._best, following,
                self._tree_TBM7, self._count_TB, self._task, state, self._cursor, times=trees,
            )  # fmt: skip
            launch(
                "grow", "grow_part", -(-self._rows // CHUNK) + here, *self._half(), rows, *of_round, rule, root, last,
                nodes, level, self._best, self._task, state, self._tree_TBM7, order, to, words, quanta, to_quanta,
                self._cursor, margin_BN, times=trees,
            )  # fmt: skip
            if not last:
                launch("grow", "grow_list", 1, nodes, level, self._cursor, state, following, self._task, times=trees)

    @staticmethod
    def _of(pair: list[Array], now: int) -> tuple[Array, Array]:
        """The one in use at this level, and the one of the next."""
        return pair[now], pair[1 - now]


def bytes_needed(rows: int, widest: int, depth: int, together: int = 1, kept: int = 1, *, weighed: bool = False) -> int:
    """Bytes on the device that a `Grower` takes, without the columns."""
    nodes = 1 << depth - 1
    per_row = 8 + (16 if weighed else 8)
    per_column = 2 * 8 * (nodes * SLOTS * 2 + max(1, nodes // 2) * PLANES * 2)
    of_round = 8 * kept * (widest + 1)
    trees = kept * 4 * nodes * NODE * 8
    return rows * stride_of(widest) + together * (rows * per_row + widest * per_column + trees) + of_round


def stride_of(width: int) -> int:
    """Bytes of a record of some columns: half a sector, or whole ones."""
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

"""Depth-wise trees on integer levels, grown from the columns as they lie in memory and on those of the tree alone.

Rows are cut into shards that fit the second-level cache. A thread takes a shard, moves its rows down one level of the
tree, and sums gradients per level for the smaller child of every split; the larger child is the rest. Then sums of all
threads are added, nodes are evaluated, and the next level begins: two meetings of the threads per level, none of which
can change a sum of integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import Double, Integers, Levels, Single
from eravane_kernels.cpu import splits
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.levelsums import (
    JOINT,
    MOST_ROWS,
    SHIFT,
    TOGETHER,
    WIDE,
    Codes,
    Places,
    add_all,
    add_pairs,
    add_rows,
    gather,
    join,
    share_out,
    share_out_pairs,
)
from eravane_kernels.cpu.pointers import levels_at, meet, taken
from eravane_kernels.growth import (
    LEAF,
    LEAST_GAIN,
    Rules,
    Tree,
    check_columns,
    check_rows,
    counts_rows,
    exponent,
)

NODES = 3  # int64 per node of the tree: first child, or LEAF; column; highest level on the left
FACTS = 4  # float32 per node: gain, Hessian, weight, whether missing values go left


class _Source(NamedTuple):
    """Where columns lie. shard_P4: segment, first row in it, first row of all, rows. column_K: those of the tree."""

    address_SC: Integers
    shard_P4: Integers
    column_K: Integers
    base: int


class _Rows(NamedTuple):
    """What is kept per row: summand, place in the shard by node, output. edge_P2K: where nodes begin, two levels."""

    summand_N: Integers
    place_N: Places
    edge_P2K: npt.NDArray[np.int32]
    margin_N: Single


class _Level(NamedTuple):
    """What is kept per node of a level; two levels of sums. state: splits, nodes so far, nodes of the tree."""

    counted_TJKB2: Integers
    sum_2JKB2: Integers
    total_2J2: Integers
    best_J6: Double
    node_J: Integers
    slot_J: Integers
    smaller_J: Integers
    parent_J: Integers
    output_J2: Single
    state_3: Integers


class _Scratch(NamedTuple):
    """What a thread needs for itself."""

    code_TN: Codes
    spare_TN: Places
    summand_TN: Integers
    joint_T2J: Integers
    single_T3B2: Integers


class _Rules(NamedTuple):
    """The rules, what 1 is worth in sums of gradients and Hessians, and whether Hessians are 0 or 1."""

    rule_6: Double
    unit_2: Double
    depth: int
    counting: bool


class _Nodes(NamedTuple):
    """The tree so far."""

    node_K3: Integers
    fact_K4: Single
    parent_K: Integers


@kernel
def _grow(
    me: int,
    threads: int,
    shared_2: Integers,
    source: _Source,
    rows: _Rows,
    level: _Level,
    scratch: _Scratch,
    rules: _Rules,
    nodes: _Nodes,
) -> None:
    """Grows one tree; run by every thread at once."""
    shards = source.shard_P4.shape[0]
    for depth in range(rules.depth):
        begin = depth * shards
        while True:
            shard = taken(shared_2[1 + depth :]) if threads > 1 else begin - depth * shards
            begin += 1
            if shard >= shards:
                break
            if depth == 0:
                _count_root(me, shard, source, rows, level, scratch, rules)
            else:
                _descend(me, shard, depth, source, rows, level, scratch, False)
                _count(me, shard, depth, source, rows, level, scratch, rules)
        meet(shared_2, threads)
        for node in range(me, max(1, 2 * level.state_3[0]), threads):
            _evaluate(node, depth, source, level, rules)
        meet(shared_2, threads)
        if me == 0:
            _decide(depth, level, rules, nodes, source)
        meet(shared_2, threads)
        if level.state_3[0] == 0 or depth + 1 == rules.depth:
            for shard in range(me, shards, threads):
                _descend(me, shard, depth + 1, source, rows, level, scratch, True)
            return
        level.counted_TJKB2[me, : level.state_3[0]] = 0


@kernel
def _column(source: _Source, shard: int, place: int) -> Levels:
    """A column of the tree in a shard; beyond the last one, the first again."""
    segment, first, _, rows = source.shard_P4[shard]
    place = 0 if place >= source.column_K.shape[0] else place
    return levels_at(source.address_SC[segment, source.column_K[place]] + first, rows)


@kernel
def _joined(me: int, shard: int, group: int, source: _Source, scratch: _Scratch) -> Codes:
    """Joint levels of a group of columns."""
    code_N = scratch.code_TN[me, : source.shard_P4[shard, 3]]
    first = group * TOGETHER
    a, b, c = _column(source, shard, first), _column(source, shard, first + 1), _column(source, shard, first + 2)
    join(a, b, c, source.base, code_N)
    return code_N


@kernel
def _keep(me: int, node: int, group: int, source: _Source, level: _Level, scratch: _Scratch, rules: _Rules) -> None:
    """Adds sums of joint levels to the node's sums of a group of columns."""
    single_3B2 = scratch.single_T3B2[me]
    if rules.counting:
        share_out(scratch.joint_T2J[me], source.base, single_3B2)
    else:
        share_out_pairs(scratch.joint_T2J[me], source.base, single_3B2)
    first = group * TOGETHER
    for which in range(min(TOGETHER, source.column_K.shape[0] - first)):
        sum_B2 = level.counted_TJKB2[me, node, first + which]
        for digit in range(source.base):
            sum_B2[digit, 0] += single_3B2[which, digit, 0]
            sum_B2[digit, 1] += single_3B2[which, digit, 1]


@kernel
def _groups(source: _Source) -> int:
    return (source.column_K.shape[0] + TOGETHER - 1) // TOGETHER


@kernel
def _count_root(
    me: int, shard: int, source: _Source, rows: _Rows, level: _Level, scratch: _Scratch, rules: _Rules
) -> None:
    """Sums over all rows of a shard, which all belong to the root."""
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N = rows.place_N[first : first + count]
    for place in range(count):
        place_N[place] = place
    rows.edge_P2K[shard, 0, 0], rows.edge_P2K[shard, 0, 1] = 0, count
    summand_N = rows.summand_N[first : first + count]
    for group in range(_groups(source)):
        code_N = _joined(me, shard, group, source, scratch)
        if rules.counting:
            add_all(code_N, summand_N, scratch.joint_T2J[me])
        else:
            add_pairs(code_N, place_N, summand_N, scratch.joint_T2J[me])
        _keep(me, 0, group, source, level, scratch, rules)


@kernel
def _count(
    me: int, shard: int, depth: int, source: _Source, rows: _Rows, level: _Level, scratch: _Scratch, rules: _Rules
) -> None:
    """Sums over the rows of a shard that went to the smaller child of their node."""
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N, summand_N = rows.place_N[first : first + count], rows.summand_N[first : first + count]
    edge_K, picked_N = rows.edge_P2K[shard, depth % 2], scratch.summand_TN[me]
    found = 0
    for slot in range(level.state_3[0]):
        child = 2 * slot + level.smaller_J[slot]
        own_n = place_N[edge_K[child] : edge_K[child + 1]]
        gather(summand_N, own_n, picked_N[found : found + own_n.shape[0]])
        found += own_n.shape[0]
    for group in range(_groups(source)):
        code_N = _joined(me, shard, group, source, scratch)
        found = 0
        for slot in range(level.state_3[0]):
            child = 2 * slot + level.smaller_J[slot]
            own_n = place_N[edge_K[child] : edge_K[child + 1]]
            picked_n = picked_N[found : found + own_n.shape[0]]
            found += own_n.shape[0]
            if own_n.shape[0] == 0:
                continue
            if rules.counting:
                add_rows(code_N, own_n, picked_n, scratch.joint_T2J[me])
            else:
                add_pairs(code_N, own_n, picked_n, scratch.joint_T2J[me])
            _keep(me, slot, group, source, level, scratch, rules)


@kernel
def _descend(
    me: int, shard: int, depth: int, source: _Source, rows: _Rows, level: _Level, scratch: _Scratch, last: bool
) -> None:
    """Moves the rows of a shard from the nodes of the level above `depth` to their children.

    Rows of a leaf get its value and are left behind; with `last` children are leaves too.
    """
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N, margin_N = rows.place_N[first : first + count], rows.margin_N[first : first + count]
    old_K, new_K = rows.edge_P2K[shard, (depth - 1) % 2], rows.edge_P2K[shard, depth % 2]
    end = 0
    for node in range(level.state_3[1]):
        own_n = place_N[old_K[node] : old_K[node + 1]]
        slot = level.slot_J[node]
        if slot == LEAF:
            for row in own_n:
                margin_N[row] += level.output_J2[node, 0]
            continue
        best_6 = level.best_J6[node]
        x_N = _column(source, shard, int(best_6[splits.COLUMN]))
        shift = np.uint8(best_6[splits.MISSING_LEFT])
        highest = np.uint8(np.int64(best_6[splits.LEVEL]) + np.int64(shift))
        if last:
            left, right = level.output_J2[node, 0], level.output_J2[node, 1]
            for row in own_n:
                margin_N[row] += left if np.uint8(np.uint8(x_N[row]) + shift) <= highest else right
            continue
        new_K[2 * slot] = end
        begin, end = end, _part(x_N, own_n, place_N[end:], scratch.spare_TN[me], shift, highest)
        new_K[2 * slot + 1] = begin + end
        end = begin + own_n.shape[0]
        new_K[2 * slot + 2] = end


@kernel
def _part(x_N: Levels, own_n: Places, to_n: Places, spare_N: Places, shift: np.uint8, highest: np.uint8) -> int:
    """Writes rows that go left to the front of `to_n`, in order, the others behind them; returns how many go left.

    `to_n` begins at or before `own_n` in the same memory. A value goes left if, as unsigned byte after adding `shift`,
    it is at most `highest`: -1 is the largest byte with a shift of 0, the smallest with 1.
    """
    lefts, rights = 0, 0
    for place in range(own_n.shape[0]):
        row = own_n[place]
        left = np.uint8(np.uint8(x_N[row]) + shift) <= highest
        to_n[lefts] = row
        spare_N[rights] = row
        lefts += left
        rights += not left
    for place in range(rights):
        to_n[lefts + place] = spare_N[place]
    return lefts


@kernel
def _evaluate(node: int, depth: int, source: _Source, level: _Level, rules: _Rules) -> None:
    """Completes the sums of a node, and finds its best split."""
    sum_KB2 = level.sum_2JKB2[depth % 2, node]
    slot = node // 2
    counted_TKB2 = level.counted_TJKB2[:, slot]
    sum_KB2[:] = counted_TKB2[0]
    for thread in range(1, counted_TKB2.shape[0]):
        sum_KB2 += counted_TKB2[thread]
    if depth == 0:
        level.total_2J2[0, 0, 0], level.total_2J2[0, 0, 1] = sum_KB2[0, :, 0].sum(), sum_KB2[0, :, 1].sum()
    elif node % 2 != level.smaller_J[slot]:
        sum_KB2[:] = level.sum_2JKB2[(depth - 1) % 2, level.parent_J[slot]] - sum_KB2
    gradient, hessian = level.total_2J2[depth % 2, node]
    splits.best_split(sum_KB2, gradient, hessian, rules.unit_2, rules.rule_6, level.best_J6[node])


@kernel
def _decide(depth: int, level: _Level, rules: _Rules, nodes: _Nodes, source: _Source) -> None:
    """Writes the nodes of a level into the tree, and prepares the next one."""
    many, found = max(1, 2 * level.state_3[0]), 0
    state_3, rule_6 = level.state_3, rules.rule_6
    if depth == 0:
        level.node_J[0] = 0
        state_3[2] = 1
        _note(nodes, 0, LEAF, level.total_2J2[0, 0, 0], level.total_2J2[0, 0, 1], rules)
    first = state_3[2]
    for node in range(many):
        best_6, own = level.best_J6[node], level.node_J[node]
        gradient, hessian = level.total_2J2[depth % 2, node]
        left_g, left_h = np.int64(best_6[splits.LEFT_GRADIENT]), np.int64(best_6[splits.LEFT_HESSIAN])
        gain = np.float32(best_6[splits.GAIN])
        if gain <= LEAST_GAIN or gain < rule_6[splits.GAMMA] or left_h == 0 or left_h == hessian:
            level.slot_J[node] = LEAF
            level.output_J2[node, 0] = nodes.fact_K4[own, 2]
            continue
        child = state_3[2]
        nodes.node_K3[own, 0], nodes.node_K3[own, 1] = child, source.column_K[np.int64(best_6[splits.COLUMN])]
        nodes.node_K3[own, 2] = np.int64(best_6[splits.LEVEL])
        nodes.fact_K4[own, 0], nodes.fact_K4[own, 3] = gain, best_6[splits.MISSING_LEFT]
        nodes.fact_K4[own, 2] = splits.weight(gradient * rules.unit_2[0], hessian * rules.unit_2[1], rule_6)
        _note(nodes, child, own, left_g, left_h, rules)
        _note(nodes, child + 1, own, gradient - left_g, hessian - left_h, rules)
        level.output_J2[node, 0], level.output_J2[node, 1] = nodes.fact_K4[child, 2], nodes.fact_K4[child + 1, 2]
        if depth + 1 < rules.depth:
            total_J2 = level.total_2J2[(depth + 1) % 2]
            total_J2[2 * found, 0], total_J2[2 * found, 1] = left_g, left_h
            total_J2[2 * found + 1, 0], total_J2[2 * found + 1, 1] = gradient - left_g, hessian - left_h
        level.slot_J[node], level.parent_J[found] = found, node
        level.smaller_J[found] = 0 if 2 * left_h <= hessian else 1
        found += 1
        state_3[2] += 2
    state_3[0], state_3[1] = found, many
    for place in range(2 * found if depth + 1 < rules.depth else 0):
        level.node_J[place] = first + place


@kernel
def _note(nodes: _Nodes, node: int, parent: int, gradient: int, hessian: int, rules: _Rules) -> None:
    """Writes a node that is a leaf until it is split."""
    total = hessian * rules.unit_2[1]
    value = splits.weight(gradient * rules.unit_2[0], total, rules.rule_6)
    nodes.parent_K[node], nodes.node_K3[node, 0], nodes.node_K3[node, 1], nodes.node_K3[node, 2] = parent, LEAF, 0, -1
    nodes.fact_K4[node, 0], nodes.fact_K4[node, 1] = 0.0, total
    nodes.fact_K4[node, 2], nodes.fact_K4[node, 3] = value * np.float32(rules.rule_6[splits.ETA]), 0.0


@kernel
def _summands(gradient_N: Single, hessian_N: Single, scale_2: Double, width: int, summand_N: Integers) -> None:
    """Gradients and Hessians as integers, in one summand; an empty hessian_N stands for ones."""
    ones = hessian_N.shape[0] == 0
    for row in range(gradient_N.shape[0]):
        hessian = np.int64(1) if ones else np.int64(np.rint(np.float64(hessian_N[row]) * scale_2[1]))
        gradient = np.int64(np.rint(np.float64(gradient_N[row]) * scale_2[0]))
        summand_N[row] = (gradient << width) | hessian


@kernel
def _extremes(address_SC: Integers, row_S: Integers, extreme_SC2: npt.NDArray[np.int8]) -> None:
    """Least and greatest value of every column in every segment."""
    for segment in range(address_SC.shape[0]):
        for column in range(address_SC.shape[1]):
            x_N = levels_at(address_SC[segment, column], row_S[segment])
            least, most = np.int8(0), np.int8(0)
            for row in range(x_N.shape[0]):
                least, most = min(least, x_N[row]), max(most, x_N[row])
            extreme_SC2[segment, column, 0], extreme_SC2[segment, column, 1] = least, most


@dataclass(frozen=True)
class LevelColumns:
    """Columns of levels 0..4 and -1 for missing as they lie in memory, in one or more segments of rows.

    Attributes:
        address_SC: int64, where each column begins in each segment.
        row_S: int64, rows of the segments.
        owner: what keeps the memory alive.
        missing: whether -1 occurs.
    """

    address_SC: Integers
    row_S: Integers
    owner: Any
    missing: bool

    @classmethod
    def of(cls, parts: Sequence[Levels]) -> LevelColumns:
        """Segments int8 [C, n] of contiguous columns, in the order of their rows.

        Raises:
            ValueError: a segment has another shape or dtype, or a value is no level.
        """
        for part in parts:
            checks.columns(part, "x_CN", "int8")
        starts = [part.ctypes.data + np.arange(len(part), dtype=np.int64) * part.strides[0] for part in parts]
        return cls.at(np.stack(starts), np.array([part.shape[1] for part in parts], dtype=np.int64), tuple(parts))

    @classmethod
    def at(cls, address_SC: Integers, row_S: Integers, owner: Any) -> LevelColumns:
        """Columns by address.

        Raises:
            ValueError: a value is no level.
        """
        extreme_SC2 = np.empty((*address_SC.shape, 2), dtype=np.int8)
        _extremes(address_SC, row_S, extreme_SC2)
        bad_SC = (extreme_SC2[..., 0] < -1) | (extreme_SC2[..., 1] > 4)
        if bad_SC.any():
            segment, column = (int(place) for place in np.argwhere(bad_SC)[0])
            values_N = levels_at(int(address_SC[segment, column]), int(row_S[segment]))
            error = checks.bad_level(values_N, "x_CN", column)
            raise ValueError(f"{error}, segment {segment}; XGBoost grows trees on features with more levels")
        return cls(address_SC, row_S, owner, bool((extreme_SC2[..., 0] < 0).any()))

    @property
    def rows(self) -> int:
        """Rows of all segments."""
        return int(self.row_S.sum())

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.address_SC.shape[1])


def _shards(row_S: Integers, threads: int) -> Integers:
    """Segment, first row in it, first row of all, and number of rows of every shard."""
    most = max(1, min(MOST_ROWS, -(-int(row_S.sum()) // threads)))
    found: list[tuple[int, int, int, int]] = []
    start = 0
    for segment, rows in enumerate(row_S.tolist()):
        pieces = -(-rows // most)
        edges = [rows * piece // pieces for piece in range(pieces + 1)] if pieces else [0]
        found += [(segment, a, start + a, b - a) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        start += rows
    return np.array(found, dtype=np.int64).reshape(-1, 4)


class Grower:
    """Grows trees on the same columns, one after the other; all memory is taken here.

    Args:
        columns: the data.
        rules: how trees are grown.
        widest: most columns of a tree.
        threads: of the processor; no result depends on them.
    """

    def __init__(self, columns: LevelColumns, rules: Rules, widest: int, threads: int = 1) -> None:
        self._columns, self._rules, self._threads = columns, rules, threads
        rows, shard_P4 = columns.rows, _shards(columns.row_S, threads)
        self._shard_P4, self._base = shard_P4, 6 if columns.missing else 5
        levels, most = 2 ** (rules.max_depth - 1), int(shard_P4[:, 3].max(initial=0))
        self._summand_N = np.empty(rows, dtype=np.int64)
        self._place_N = np.empty(rows, dtype=np.uint16)
        self._edge_P2K = np.zeros((len(shard_P4), 2, levels + 1), dtype=np.int32)
        sums = (levels, widest, self._base, 2)
        self._counted = np.empty((threads, max(1, levels // 2), *sums[1:]), dtype=np.int64)
        self._sums = np.empty((2, *sums), dtype=np.int64)
        self._facts = (
            np.zeros((2, levels, 2), dtype=np.int64), np.zeros((levels, 6)), *np.zeros((4, levels), dtype=np.int64),
            np.zeros((levels, 2), dtype=np.float32),
        )  # fmt: skip
        self._scratch = _Scratch(
            np.empty((threads, most), dtype=np.uint8),
            np.empty((threads, most), dtype=np.uint16),
            np.empty((threads, most), dtype=np.int64),
            np.zeros((threads, 2, JOINT), dtype=np.int64),
            np.empty((threads, TOGETHER, 6, 2), dtype=np.int64),
        )
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def grow(self, gradient_N: Single, hessian_N: Single | None, columns_K: Integers, margin_N: Single) -> Tree:
        """Grow a tree on some of the columns, and add its output to `margin_N`.

        Args:
            gradient_N: float32 [N].
            hessian_N: float32 [N]; None for ones. Rows with gradient and Hessian 0 count as absent.
            columns_K: ascending positions.
            margin_N: float32 [N], changed in place.

        Raises:
            ValueError: an array has the wrong shape or type, a gradient is infinite or NaN, a Hessian is negative.
        """
        check_rows(gradient_N, hessian_N, self._columns.rows)
        check_columns(columns_K, self._columns.width)
        units = exponent(gradient_N, "gradient_N"), 0
        counting = hessian_N is None or counts_rows(hessian_N)
        if hessian_N is not None and not counting:
            units = units[0], exponent(hessian_N, "hessian_N")
        scale_2 = np.ldexp(1.0, units)
        ones = np.empty(0, dtype=np.float32)
        _summands(gradient_N, ones if hessian_N is None else hessian_N, scale_2, SHIFT if counting else WIDE, self._summand_N)
        nodes = 2 ** (self._rules.max_depth + 1)
        tree = _Nodes(
            np.empty((nodes, NODES), dtype=np.int64), np.empty((nodes, FACTS), dtype=np.float32),
            np.empty(nodes, dtype=np.int64),
        )  # fmt: skip
        count = self._run(columns_K, margin_N, _Rules(self._rule_6(), 1.0 / scale_2, self._rules.max_depth, counting), tree)
        return _as_tree(tree, count)

    def _rule_6(self) -> Double:
        rules = self._rules
        values = rules.reg_alpha, rules.reg_lambda, rules.gamma, rules.min_child_weight, rules.eta
        return np.array([*np.array(values, dtype=np.float32), rules.learn_missing], dtype=np.float64)

    def _run(self, columns_K: Integers, margin_N: Single, rules: _Rules, tree: _Nodes) -> int:
        """Runs all threads; returns the number of nodes."""
        width, threads = len(columns_K), self._threads
        state_3 = np.zeros(3, dtype=np.int64)
        counted, sums = self._counted[:, :, :width], self._sums[:, :, :width]
        counted[:, 0] = 0
        everything = (
            threads,
            np.zeros(1 + rules.depth, dtype=np.int64),
            _Source(self._columns.address_SC, self._shard_P4, columns_K, self._base),
            _Rows(self._summand_N, self._place_N, self._edge_P2K, margin_N),
            _Level(counted, sums, *self._facts, state_3),
            self._scratch,
            rules,
            tree,
        )
        others = [self._pool.submit(_grow, me, *everything) for me in range(1, threads)] if self._pool else []
        _grow(0, *everything)
        for other in others:
            other.result()
        return int(state_3[2])


def _as_tree(tree: _Nodes, count: int) -> Tree:
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

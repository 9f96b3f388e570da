"""What a thread does while a tree grows: moves rows down a level, sums gradients, evaluates nodes, writes the tree.

Rows are cut into shards that fit the second-level cache. A thread takes a shard, moves its rows down one level of the
tree, and sums gradients per level of a column for the smaller child of every split; the larger child is the rest. Then
the sums of all threads are added and nodes are evaluated. Threads meet three times per level, and as all sums are of
integers nothing depends on which of them took what.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Double, Integers, Levels, Single
from eravane_kernels.cpu import splits
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.levelsums import (
    TOGETHER,
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
from eravane_kernels.growth import LEAF, LEAST_GAIN, Quanta

NODES = 3  # int64 per node of the tree: first child, or LEAF; column; highest level on the left
FACTS = 4  # float32 per node: gain, Hessian, weight, whether missing values go left


class Source(NamedTuple):
    """Where columns lie. shard_P4: segment, first row in it, first row of all, rows. column_K: those of the tree."""

    address_SC: Integers
    shard_P4: Integers
    column_K: Integers
    base: int


class Rows(NamedTuple):
    """What is kept per row: gradient and Hessian as integers, place in the shard by node, output.

    edge_P2K: where the nodes of two levels begin. An empty hessian_N stands for ones.
    """

    gradient_N: Quanta
    hessian_N: Quanta
    place_N: Places
    edge_P2K: npt.NDArray[np.int32]
    margin_N: Single


class Level(NamedTuple):
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


class Scratch(NamedTuple):
    """What a thread needs for itself."""

    code_TN: Codes
    spare_TN: Places
    packed_TN: Integers
    joint_T2J: Integers
    single_T3B2: Integers


class Terms(NamedTuple):
    """The rules, what 1 is worth in sums of gradients and Hessians, and whether Hessians are 0 or 1.

    width: bits of a summand that hold the Hessian.
    """

    rule_6: Double
    unit_2: Double
    depth: int
    counting: bool
    width: int


class Nodes(NamedTuple):
    """The tree so far."""

    node_K3: Integers
    fact_K4: Single
    parent_K: Integers


@kernel
def grow(
    me: int,
    threads: int,
    shared_D2: Integers,
    source: Source,
    rows: Rows,
    level: Level,
    scratch: Scratch,
    terms: Terms,
    nodes: Nodes,
) -> None:
    """Grows one tree; run by every thread at once.

    shared_D2: int64, zero: who has arrived, then per level how many shards are taken.
    """
    shards = source.shard_P4.shape[0]
    for depth in range(terms.depth):
        shard = taken(shared_D2[1 + depth :])
        while shard < shards:
            if depth == 0:
                _count_root(me, shard, source, rows, level, scratch, terms)
            else:
                _descend(me, shard, depth, source, rows, level, scratch, False)
                _count(me, shard, depth, source, rows, level, scratch, terms)
            shard = taken(shared_D2[1 + depth :])
        meet(shared_D2, threads)
        for node in range(me, max(1, 2 * level.state_3[0]), threads):
            _evaluate(node, depth, level, terms)
        meet(shared_D2, threads)
        if me == 0:
            _decide(depth, source, level, terms, nodes)
        meet(shared_D2, threads)
        if level.state_3[0] == 0 or depth + 1 == terms.depth:
            for rest in range(me, shards, threads):
                _descend(me, rest, depth + 1, source, rows, level, scratch, True)
            return
        level.counted_TJKB2[me, : level.state_3[0]] = 0


@kernel
def _column(source: Source, shard: int, place: int) -> Levels:
    """A column of the tree in a shard; beyond the last one, the first again."""
    segment, first, _, rows = source.shard_P4[shard]
    place = 0 if place >= source.column_K.shape[0] else place
    return levels_at(source.address_SC[segment, source.column_K[place]] + first, rows)


@kernel
def _joined(me: int, shard: int, group: int, source: Source, scratch: Scratch) -> Codes:
    """Joint levels of a group of columns."""
    code_N = scratch.code_TN[me, : source.shard_P4[shard, 3]]
    first = group * TOGETHER
    a, b, c = _column(source, shard, first), _column(source, shard, first + 1), _column(source, shard, first + 2)
    join(a, b, c, source.base, code_N)
    return code_N


@kernel
def _keep(me: int, node: int, group: int, source: Source, level: Level, scratch: Scratch, terms: Terms) -> None:
    """Adds sums of joint levels to the node's sums of a group of columns."""
    single_3B2 = scratch.single_T3B2[me]
    if terms.counting:
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
def _groups(source: Source) -> int:
    return int(source.column_K.shape[0] + TOGETHER - 1) // TOGETHER


@kernel
def _pick(shard: int, source: Source, rows: Rows, row_n: Places, terms: Terms, packed_n: Integers) -> None:
    """Summands of some rows of a shard."""
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    hessian_N = rows.hessian_N
    if hessian_N.shape[0] != 0:
        hessian_N = hessian_N[first : first + count]
    gather(rows.gradient_N[first : first + count], hessian_N, row_n, terms.width, packed_n)


@kernel
def _count_root(me: int, shard: int, source: Source, rows: Rows, level: Level, scratch: Scratch, terms: Terms) -> None:
    """Sums over all rows of a shard, which all belong to the root."""
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N = rows.place_N[first : first + count]
    for place in range(count):
        place_N[place] = place
    rows.edge_P2K[shard, 0, 0], rows.edge_P2K[shard, 0, 1] = 0, count
    packed_N = scratch.packed_TN[me, :count]
    _pick(shard, source, rows, place_N, terms, packed_N)
    for group in range(_groups(source)):
        code_N = _joined(me, shard, group, source, scratch)
        if terms.counting:
            add_all(code_N, packed_N, scratch.joint_T2J[me])
        else:
            add_pairs(code_N, place_N, packed_N, scratch.joint_T2J[me])
        _keep(me, 0, group, source, level, scratch, terms)


@kernel
def _count(
    me: int, shard: int, depth: int, source: Source, rows: Rows, level: Level, scratch: Scratch, terms: Terms
) -> None:
    """Sums over the rows of a shard that went to the smaller child of their node."""
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N = rows.place_N[first : first + count]
    edge_K, packed_N = rows.edge_P2K[shard, depth % 2], scratch.packed_TN[me]
    found = 0
    for slot in range(level.state_3[0]):
        child = 2 * slot + level.smaller_J[slot]
        own_n = place_N[edge_K[child] : edge_K[child + 1]]
        _pick(shard, source, rows, own_n, terms, packed_N[found : found + own_n.shape[0]])
        found += own_n.shape[0]
    for group in range(_groups(source)):
        code_N = _joined(me, shard, group, source, scratch)
        found = 0
        for slot in range(level.state_3[0]):
            child = 2 * slot + level.smaller_J[slot]
            own_n = place_N[edge_K[child] : edge_K[child + 1]]
            packed_n = packed_N[found : found + own_n.shape[0]]
            found += own_n.shape[0]
            if own_n.shape[0] == 0:
                continue
            if terms.counting:
                add_rows(code_N, own_n, packed_n, scratch.joint_T2J[me])
            else:
                add_pairs(code_N, own_n, packed_n, scratch.joint_T2J[me])
            _keep(me, slot, group, source, level, scratch, terms)


@kernel
def _descend(
    me: int, shard: int, depth: int, source: Source, rows: Rows, level: Level, scratch: Scratch, last: bool
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
        highest = np.uint8(int(best_6[splits.LEVEL]) + int(best_6[splits.MISSING_LEFT]))
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
        lefts += 1 if left else 0
        rights += 0 if left else 1
    for place in range(rights):
        to_n[lefts + place] = spare_N[place]
    return lefts


@kernel
def _evaluate(node: int, depth: int, level: Level, terms: Terms) -> None:
    """Completes the sums of a node, and finds its best split."""
    sum_KB2, slot = level.sum_2JKB2[depth % 2, node], node // 2
    counted_TKB2 = level.counted_TJKB2[:, slot]
    larger = depth > 0 and node % 2 != level.smaller_J[slot]
    above_KB2 = level.sum_2JKB2[(depth - 1) % 2, level.parent_J[slot]]
    for column in range(sum_KB2.shape[0]):
        for digit in range(sum_KB2.shape[1]):
            for part in range(2):
                total = counted_TKB2[0, column, digit, part]
                for thread in range(1, counted_TKB2.shape[0]):
                    total += counted_TKB2[thread, column, digit, part]
                sum_KB2[column, digit, part] = above_KB2[column, digit, part] - total if larger else total
    total_2 = level.total_2J2[depth % 2, node]
    if depth == 0:
        total_2[:] = 0
        for digit in range(sum_KB2.shape[1]):
            total_2[0] += sum_KB2[0, digit, 0]
            total_2[1] += sum_KB2[0, digit, 1]
    splits.best_split(sum_KB2, total_2[0], total_2[1], terms.unit_2, terms.rule_6, level.best_J6[node])


@kernel
def _decide(depth: int, source: Source, level: Level, terms: Terms, nodes: Nodes) -> None:
    """Writes the nodes of a level into the tree, and prepares the next one."""
    many, found = max(1, 2 * level.state_3[0]), 0
    state_3, rule_6 = level.state_3, terms.rule_6
    if depth == 0:
        level.node_J[0] = 0
        state_3[2] = 1
        _note(nodes, 0, LEAF, level.total_2J2[0, 0, 0], level.total_2J2[0, 0, 1], terms)
    first = state_3[2]
    for node in range(many):
        best_6, own = level.best_J6[node], level.node_J[node]
        gradient, hessian = level.total_2J2[depth % 2, node]
        left_g, left_h = int(best_6[splits.LEFT_GRADIENT]), int(best_6[splits.LEFT_HESSIAN])
        gain = np.float32(best_6[splits.GAIN])
        if gain <= LEAST_GAIN or gain < rule_6[splits.GAMMA] or left_h == 0 or left_h == hessian:
            level.slot_J[node] = LEAF
            level.output_J2[node, 0] = nodes.fact_K4[own, 2]
            continue
        child = state_3[2]
        nodes.node_K3[own, 0], nodes.node_K3[own, 1] = child, source.column_K[int(best_6[splits.COLUMN])]
        nodes.node_K3[own, 2] = int(best_6[splits.LEVEL])
        nodes.fact_K4[own, 0], nodes.fact_K4[own, 3] = gain, best_6[splits.MISSING_LEFT] * rule_6[splits.LEARNED]
        nodes.fact_K4[own, 2] = splits.weight(gradient * terms.unit_2[0], hessian * terms.unit_2[1], rule_6)
        _note(nodes, child, own, left_g, left_h, terms)
        _note(nodes, child + 1, own, gradient - left_g, hessian - left_h, terms)
        level.output_J2[node, 0], level.output_J2[node, 1] = nodes.fact_K4[child, 2], nodes.fact_K4[child + 1, 2]
        if depth + 1 < terms.depth:
            total_J2 = level.total_2J2[(depth + 1) % 2]
            total_J2[2 * found, 0], total_J2[2 * found, 1] = left_g, left_h
            total_J2[2 * found + 1, 0], total_J2[2 * found + 1, 1] = gradient - left_g, hessian - left_h
        level.slot_J[node], level.parent_J[found] = found, node
        level.smaller_J[found] = 0 if 2 * left_h <= hessian else 1
        found += 1
        state_3[2] += 2
    state_3[0], state_3[1] = found, many
    for place in range(2 * found if depth + 1 < terms.depth else 0):
        level.node_J[place] = first + place


@kernel
def _note(nodes: Nodes, node: int, parent: int, gradient: int, hessian: int, terms: Terms) -> None:
    """Writes a node that is a leaf until it is split."""
    total = hessian * terms.unit_2[1]
    value = splits.weight(gradient * terms.unit_2[0], total, terms.rule_6)
    nodes.parent_K[node], nodes.node_K3[node, 0], nodes.node_K3[node, 1], nodes.node_K3[node, 2] = parent, LEAF, 0, -1
    nodes.fact_K4[node, 0], nodes.fact_K4[node, 1] = 0.0, total
    nodes.fact_K4[node, 2], nodes.fact_K4[node, 3] = value * np.float32(terms.rule_6[splits.ETA]), 0.0

"""Rows on their way down the trees: which belong to which node, and sums of those that are counted."""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Levels
from eravane_kernels.cpu import splits
from eravane_kernels.cpu.growstate import ABOVE, SPLITS, Level, Rows, Scratch, Source, Terms
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.levelsums import (
    FEW,
    GROUPS,
    SHIFT,
    TOGETHER,
    Places,
    add,
    add_all,
    add_few,
    add_pairs,
    gather,
    join,
    merge,
    share_out,
)
from eravane_kernels.cpu.pointers import levels_at
from eravane_kernels.growth import LEAF


@kernel
def _slots(depth: int, level: Level, model: int) -> int:
    """Nodes of a level of a tree that are counted."""
    return 1 if depth == 0 else int(level.state_B4[model, SPLITS])


@kernel
def _column(source: Source, shard: int, place: int) -> Levels:
    """A column of the trees in a shard; beyond the last one, the first again."""
    segment, first, _, rows = source.shard_P4[shard]
    place = 0 if place >= source.column_K.shape[0] else place
    return levels_at(source.address_SC[segment, source.column_K[place]] + first, rows)


@kernel
def sort(
    me: int, shard: int, depth: int, source: Source, rows: Rows, level: Level, scratch: Scratch, terms: Terms
) -> None:
    """Brings the rows of a shard into the order of the nodes of a level of every tree."""
    for model in range(rows.margin_BN.shape[0]):
        if depth == 0:
            _start(me, shard, model, source, rows, scratch, terms)
        elif level.state_B4[model, SPLITS] != 0:
            descend(me, shard, depth, model, source, rows, level, scratch, False)


@kernel
def count(
    me: int, shard: int, depth: int, source: Source, rows: Rows, level: Level, scratch: Scratch, terms: Terms
) -> None:
    """Sums over the rows of a shard that belong to the root, or went to the smaller child of their node."""
    for model in range(rows.margin_BN.shape[0]):
        _pick(me, shard, depth, model, source, rows, level, scratch, terms)
    width, together = source.column_K.shape[0], scratch.code_TGN.shape[1]
    groups = (width + TOGETHER - 1) // TOGETHER
    for first in range(0, groups, together):
        here = min(together, groups - first)
        for which in range(here):
            column = (first + which) * TOGETHER
            join(
                _column(source, shard, column),
                _column(source, shard, column + 1),
                _column(source, shard, column + 2),
                source.base,
                scratch.code_TGN[me, which, : source.shard_P4[shard, 3]],
            )
        for model in range(rows.margin_BN.shape[0]):
            for which in range(0, here, GROUPS):
                _add(
                    me,
                    shard,
                    depth,
                    model,
                    first,
                    which,
                    min(GROUPS, here - which),
                    source,
                    rows,
                    level,
                    scratch,
                    terms,
                )


@kernel
def _pick(
    me: int,
    shard: int,
    depth: int,
    model: int,
    source: Source,
    rows: Rows,
    level: Level,
    scratch: Scratch,
    terms: Terms,
) -> None:
    """Summands of the rows of a shard that are counted, side by side."""
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N, gradient_N = rows.place_BN[model, first : first + count], rows.gradient_BN[model, first : first + count]
    hessian_N = rows.hessian_BN[model]
    if hessian_N.shape[0] != 0:
        hessian_N = hessian_N[first : first + count]
    edge_K, packed_N = rows.edge_BP22K[model, shard, depth % 2, 0], scratch.packed_TBN[me, model]
    found = 0
    for slot in range(_slots(depth, level, model)):
        child = 2 * slot + level.smaller_BJ[model, slot]
        own_n = place_N[edge_K[child] : edge_K[child + 1]]
        gather(gradient_N, hessian_N, own_n, terms.width, packed_N[found : found + own_n.shape[0]])
        found += own_n.shape[0]


@kernel
def _add(
    me: int,
    shard: int,
    depth: int,
    model: int,
    first: int,
    which: int,
    groups: int,
    source: Source,
    rows: Rows,
    level: Level,
    scratch: Scratch,
    terms: Terms,
) -> None:
    """Adds the summands of a tree to its sums of some groups of columns, first + which and those behind it."""
    start, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N, code_GN = rows.place_BN[model, start : start + count], scratch.code_TGN[me, which : which + groups]
    edge_K, packed_N = rows.edge_BP22K[model, shard, depth % 2, 0], scratch.packed_TBN[me, model]
    found, sum_SJ = 0, scratch.joint_TSJ[me]
    for slot in range(_slots(depth, level, model)):
        child = 2 * slot + level.smaller_BJ[model, slot]
        own_n = place_N[edge_K[child] : edge_K[child + 1]]
        packed_n = packed_N[found : found + own_n.shape[0]]
        found += own_n.shape[0]
        if own_n.shape[0] == 0:
            continue
        few = terms.counting and own_n.shape[0] <= FEW
        if few:
            pass
        elif not terms.counting:
            for group in range(groups):
                add_pairs(code_GN[group], own_n, packed_n, sum_SJ[2 * group], sum_SJ[2 * group + 1])
        elif own_n.shape[0] == count:
            add_all(groups, code_GN, packed_n, sum_SJ)
        else:
            add(groups, code_GN, own_n, packed_n, sum_SJ)
        if terms.counting and groups == 1 and not few:
            merge(sum_SJ[0], sum_SJ[1])
        for group in range(groups):
            column = (first + which + group) * TOGETHER
            if few:
                a_N, b_N, c_N = (
                    _column(source, shard, column),
                    _column(source, shard, column + 1),
                    _column(source, shard, column + 2),
                )
                add_few(a_N, b_N, c_N, source.base, own_n, packed_n, scratch.single_TS3D[me, 0])
            else:
                _draw(me, group, source, scratch, terms)
            _keep(me, model, slot, column, source, level, scratch, terms)


@kernel
def _draw(me: int, place: int, source: Source, scratch: Scratch, terms: Terms) -> None:
    """Draws sums of single columns from those of joint levels that lie at a place of the pass."""
    single_S3D, plane_J, sum_SJ = scratch.single_TS3D[me], scratch.plane_TJ[me], scratch.joint_TSJ[me]
    if terms.counting:
        share_out(sum_SJ[place], source.base, plane_J, single_S3D[0])
    else:
        share_out(sum_SJ[2 * place], source.base, plane_J, single_S3D[0])
        share_out(sum_SJ[2 * place + 1], source.base, plane_J, single_S3D[1])


@kernel
def _keep(
    me: int, model: int, node: int, first: int, source: Source, level: Level, scratch: Scratch, terms: Terms
) -> None:
    """Adds sums of single columns, `first` and those behind it, to the node's."""
    single_S3D = scratch.single_TS3D[me]
    for which in range(min(TOGETHER, source.column_K.shape[0] - first)):
        sum_D2 = level.counted_TBJKD2[me, model, node, first + which]
        for digit in range(source.base):
            value = single_S3D[0, which, digit]
            if terms.counting:
                sum_D2[digit, 0] += value >> SHIFT
                sum_D2[digit, 1] += value & ((1 << SHIFT) - 1)
            else:
                sum_D2[digit, 0] += value
                sum_D2[digit, 1] += single_S3D[1, which, digit]


@kernel
def _start(me: int, shard: int, model: int, source: Source, rows: Rows, scratch: Scratch, terms: Terms) -> None:
    """Makes gradients and Hessians of a shard integers, and puts the rows that count first, the others behind them."""
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N, spare_N = rows.place_BN[model, first : first + count], scratch.spare_TN[me]
    gradient_N, edge_2K = rows.gradient_BN[model, first : first + count], rows.edge_BP22K[model, shard, 0]
    value_N, scale_2 = rows.value_BN[model, first : first + count], terms.scale_B2[model]
    hessian_N = rows.hessian_BN[model, first : first + count] if rows.weight_BN.shape[0] else rows.hessian_BN[model]
    if rows.weight_BN.shape[0]:
        weight_N = rows.weight_BN[min(model, rows.weight_BN.shape[0] - 1), first : first + count]
        for row in range(count):
            none = value_N[row] == 0 and weight_N[row] == 0
            value_N[row] = np.float32(np.nan) if none else value_N[row]
            hessian_N[row] = np.int32(np.rint(weight_N[row] * scale_2[1]))
    present, absent = 0, 0
    for row in range(count):
        present += 1 if value_N[row] == value_N[row] else 0
    if present == count:
        for row in range(count):
            place_N[row] = row
    else:
        present = 0
        for row in range(count):
            place_N[present], spare_N[absent] = row, row
            counts = value_N[row] == value_N[row]
            present += 1 if counts else 0
            absent += 0 if counts else 1
        for place in range(absent):
            place_N[present + place] = spare_N[place]
    for row in range(count):
        value = value_N[row] * scale_2[0]
        gradient_N[row] = np.int32(np.rint(value)) if value == value else np.int32(0)
    edge_2K[0, 0], edge_2K[0, 1], edge_2K[1, 0], edge_2K[1, 1] = 0, present, present, count


@kernel
def descend(
    me: int,
    shard: int,
    depth: int,
    model: int,
    source: Source,
    rows: Rows,
    level: Level,
    scratch: Scratch,
    last: bool,
) -> None:
    """Moves the rows of a shard from the nodes of the level above `depth` to their children.

    Rows of a leaf get its value and are left behind; with `last` children are leaves too.
    """
    first, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
    place_N, margin_N = rows.place_BN[model, first : first + count], rows.margin_BN[model, first : first + count]
    output_J2 = level.output_BJ2[model]
    for part in range(2):
        old_K = rows.edge_BP22K[model, shard, (depth - 1) % 2, part]
        new_K = rows.edge_BP22K[model, shard, depth % 2, part]
        end = old_K[0]
        for node in range(level.state_B4[model, ABOVE]):
            own_n = place_N[old_K[node] : old_K[node + 1]]
            slot = level.slot_BJ[model, node]
            if slot == LEAF:
                for row in own_n:
                    margin_N[row] += output_J2[node, 0]
                continue
            best_6 = level.best_BJ6[model, node]
            x_N = _column(source, shard, int(best_6[splits.COLUMN]))
            shift = np.uint8(best_6[splits.MISSING_LEFT])
            highest = np.uint8(int(best_6[splits.LEVEL]) + int(best_6[splits.MISSING_LEFT]))
            if last:
                left, right = output_J2[node, 0], output_J2[node, 1]
                for row in own_n:
                    margin_N[row] += left if np.uint8(np.uint8(x_N[row]) + shift) <= highest else right
                continue
            new_K[2 * slot] = end
            middle = end + _part(x_N, own_n, place_N[end:], scratch.spare_TN[me], shift, highest)
            end += own_n.shape[0]
            new_K[2 * slot + 1], new_K[2 * slot + 2] = middle, end


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

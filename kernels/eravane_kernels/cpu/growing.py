"""Work of a thread while trees grow: moves rows down a level, sums gradients, evaluates nodes, writes the trees.

Rows are cut into shards that fit the second-level cache. A thread takes a shard, moves its rows down one level of every
tree, and sums gradients per level of a column for the smaller child of every split; the larger child is the rest. Then
the sums of all threads are added and nodes are evaluated. Threads meet twice per level, and as all sums are of integers
nothing depends on which of them took what.

B trees that grow on the same columns share the reading of these and their joint levels; nothing else depends on B.
"""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Double, Integers, Single
from eravane_kernels.cpu import splits
from eravane_kernels.cpu.growrows import count, descend, sort
from eravane_kernels.cpu.growstate import (
    ABOVE,
    COLUMN,
    ENDED,
    GAIN,
    HESSIAN,
    LEFT,
    NODES_SO_FAR,
    PARENT,
    RIGHT,
    SPLITS,
    WEIGHT,
    Level,
    Nodes,
    Rows,
    Scratch,
    Source,
    Terms,
)
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.pointers import borrowed, meet, taken
from eravane_kernels.growth import LEAF, LEAST_GAIN, Quanta


@kernel
def grow(
    me: int,
    threads: int,
    arrived: Integers,
    source: Source,
    rows: Rows,
    level: Level,
    scratch: Scratch,
    terms: Terms,
    nodes: Nodes,
    turn: int,
) -> None:
    """Grows a tree of every model, those of round `turn`; run by every thread at once.

    arrived: int64 [1], where threads meet. `level.done_D2` is zero, as all states are.
    """
    source, rows, level = borrowed(source), borrowed(rows), borrowed(level)
    scratch, terms, nodes = borrowed(scratch), borrowed(terms), borrowed(nodes)
    shards, models = source.shard_P4.shape[0], rows.margin_BN.shape[0]
    level.counted_TBJKD2[me, :, 0] = 0
    for depth in range(terms.depth):
        shard = taken(level.done_D2[depth])
        while shard < shards:
            sort(me, shard, depth, source, rows, level, scratch, terms)
            count(me, shard, depth, source, rows, level, scratch, terms)
            shard = taken(level.done_D2[depth])
        meet(arrived, threads)
        for model in range(models):
            for node in range((me + model) % threads, _at(depth, level, model), threads):
                _evaluate(me, model, node, depth, level, scratch, terms)
        if taken(level.done_D2[depth, 1:]) == threads - 1:
            for model in range(models):
                if level.state_B4[model, ENDED] == 0:
                    _decide(turn, model, depth, source, level, terms, nodes)
        meet(arrived, threads)
        going = 0
        for model in range(models):
            splits_here = level.state_B4[model, SPLITS]
            going += splits_here
            level.counted_TBJKD2[me, model, :splits_here] = 0
            if level.state_B4[model, ENDED] == depth + 1:
                for rest in range(me, shards, threads):
                    descend(me, rest, depth + 1, model, source, rows, level, scratch, True)
        if going == 0:
            return


@kernel
def _at(depth: int, level: Level, model: int) -> int:
    """Nodes of a level of a tree."""
    return 1 if depth == 0 else int(2 * level.state_B4[model, SPLITS])


@kernel
def _evaluate(me: int, model: int, node: int, depth: int, level: Level, scratch: Scratch, terms: Terms) -> None:
    """Completes the sums of a node, and finds its best split."""
    sum_KD2, slot = level.sum_B2JKD2[model, depth % 2, node], node // 2
    counted_TBJKD2 = level.counted_TBJKD2
    own_S = sum_KD2.reshape(sum_KD2.size)
    own_S[:] = counted_TBJKD2[0, model, slot].reshape(own_S.size)
    for thread in range(1, counted_TBJKD2.shape[0]):
        other_S = counted_TBJKD2[thread, model, slot].reshape(own_S.size)
        for place in range(own_S.size):
            own_S[place] += other_S[place]
    if depth > 0 and node % 2 != level.smaller_BJ[model, slot]:
        above_S = level.sum_B2JKD2[model, (depth - 1) % 2, level.parent_BJ[model, slot]].reshape(own_S.size)
        for place in range(own_S.size):
            own_S[place] = above_S[place] - own_S[place]
    total_2 = level.total_B2J2[model, depth % 2, node]
    if depth == 0:
        total_2[:] = 0
        for digit in range(sum_KD2.shape[1]):
            total_2[0] += sum_KD2[0, digit, 0]
            total_2[1] += sum_KD2[0, digit, 1]
    best_6, unit_2 = level.best_BJ6[model, node], terms.unit_B2[model]
    left_2K, gain_K = scratch.left_T2K[me], scratch.gain_TK[me]
    splits.best_split(sum_KD2, total_2[0], total_2[1], unit_2, terms.rule_7, left_2K, gain_K, best_6)


@kernel
def _decide(turn: int, model: int, depth: int, source: Source, level: Level, terms: Terms, nodes: Nodes) -> None:
    """Writes the nodes of a level into a tree, and prepares the next one."""
    many, found = _at(depth, level, model), 0
    state_4, rule_7, unit_2 = level.state_B4[model], terms.rule_7, terms.unit_B2[model]
    link_4K, fact_3K = nodes.link_4RBK[:, turn, model], nodes.fact_3RBK[:, turn, model]
    below_K, missing_left_K = nodes.below_RBK[turn, model], nodes.missing_left_RBK[turn, model]
    node_J, output_J2 = level.node_BJ[model], level.output_BJ2[model]
    total_J2, below_J2 = level.total_B2J2[model, depth % 2], level.total_B2J2[model, (depth + 1) % 2]
    deepest = depth + 1 == terms.depth
    if depth == 0:
        state_4[NODES_SO_FAR] = 1
        _note(link_4K, fact_3K, 0, LEAF, total_J2[0, 0], total_J2[0, 1], unit_2, rule_7)
    first = state_4[NODES_SO_FAR]
    for node in range(many):
        best_6, own = level.best_BJ6[model, node], node_J[node]
        gradient, hessian = total_J2[node]
        left_g, left_h = int(best_6[splits.LEFT_GRADIENT]), int(best_6[splits.LEFT_HESSIAN])
        gain = np.float32(best_6[splits.GAIN])
        if gain <= LEAST_GAIN or gain < rule_7[splits.GAMMA] or left_h == 0 or left_h == hessian:
            level.slot_BJ[model, node] = LEAF
            output_J2[node, 0] = fact_3K[WEIGHT, own]
            continue
        child = state_4[NODES_SO_FAR]
        link_4K[LEFT, own], link_4K[RIGHT, own] = child, child + 1
        link_4K[COLUMN, own] = source.column_K[int(best_6[splits.COLUMN])]
        below_K[own] = int(best_6[splits.LEVEL]) + 1
        missing_left_K[own] = best_6[splits.MISSING_LEFT] * rule_7[splits.LEARNED] != 0
        fact_3K[GAIN, own] = gain
        fact_3K[WEIGHT, own] = splits.weight(gradient * unit_2[0], hessian * unit_2[1], rule_7)
        _note(link_4K, fact_3K, child, own, left_g, left_h, unit_2, rule_7)
        _note(link_4K, fact_3K, child + 1, own, gradient - left_g, hessian - left_h, unit_2, rule_7)
        output_J2[node, 0], output_J2[node, 1] = fact_3K[WEIGHT, child], fact_3K[WEIGHT, child + 1]
        if not deepest:
            below_J2[2 * found, 0], below_J2[2 * found, 1] = left_g, left_h
            below_J2[2 * found + 1, 0], below_J2[2 * found + 1, 1] = gradient - left_g, hessian - left_h
        level.slot_BJ[model, node], level.parent_BJ[model, found] = found, node
        level.smaller_BJ[model, found] = 0 if 2 * left_h <= hessian else 1
        found += 1
        state_4[NODES_SO_FAR] += 2
    state_4[ABOVE], state_4[ENDED] = many, depth + 1 if deepest or found == 0 else 0
    state_4[SPLITS], nodes.count_RB[turn, model] = 0 if deepest else found, state_4[NODES_SO_FAR]
    for place in range(2 * state_4[SPLITS]):
        node_J[place] = first + place


@kernel
def _note(
    link_4K: Quanta,
    fact_3K: Single,
    node: int,
    parent: int,
    gradient: int,
    hessian: int,
    unit_2: Double,
    rule_7: Double,
) -> None:
    """Writes a node that is a leaf until it is split."""
    total = hessian * unit_2[1]
    value = splits.weight(gradient * unit_2[0], total, rule_7)
    link_4K[LEFT, node], link_4K[RIGHT, node], link_4K[PARENT, node] = LEAF, LEAF, parent
    fact_3K[HESSIAN, node], fact_3K[WEIGHT, node] = total, value * np.float32(rule_7[splits.ETA])

"""Rounds of boosting for squared error in one compiled call, which holds no interpreter lock.

Between two trees nothing is left to Python: gradients, draws of rows, and their way into integers are the threads'
work.
"""

from __future__ import annotations

import math

import numpy as np

from eravane_kernels.arrays import Integers, Single
from eravane_kernels.cpu import splits
from eravane_kernels.cpu.draws import WHOLE, draw_columns, drawn, stream_of
from eravane_kernels.cpu.growing import grow
from eravane_kernels.cpu.growmemory import NO_WEIGHTS, Memory, as_tree
from eravane_kernels.cpu.growstate import Level, Nodes, Rows, Scratch, Source, Terms
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.cpu.pointers import meet
from eravane_kernels.growth import BITS, MOST_POWER, OutgrownError, Quanta, Rules, Tree, check_boosting

_SIZE, _INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)  # bits of a float32 without its sign, and of infinity
MOST_NODES = 2**15
"""Nodes that the trees of a call may have; more rounds take more calls."""


class Boosting:
    """Boosts B models of squared error at the same time, on the same draws of columns and rows.

    No model depends on which others there are. What is kept per row and model: goal, output, gradient and place, 14
    bytes; and with weights 4 for each, and 4 per row.

    Args:
        columns: the data.
        rules: how trees are grown.
        goal_BN: float32 [B, N], what is to be learned; NaN rows count as absent.
        weight_N: float32 [N], 0 or more; None for equal weights.
        margin_BN: float32 [B, N], output of earlier trees; changed in place.
        seed: of the draws, 0..2^63-1.
        chosen: columns of a tree.
        share: of the rows, drawn one by one for each round.
        threads: of the processor; no result depends on them.
        turn: number of the first round; draws go on where those of earlier rounds ended.

    Raises:
        ValueError: an array has the wrong shape or type, a goal is infinite, a margin or weight is not finite, or a
            weight negative.
    """

    def __init__(
        self,
        columns: LevelColumns,
        rules: Rules,
        goal_BN: Single,
        weight_N: Single | None,
        margin_BN: Single,
        *,
        seed: int,
        chosen: int,
        share: float = 1.0,
        threads: int = 1,
        turn: int = 0,
    ) -> None:
        check_boosting(goal_BN, weight_N, margin_BN, columns.rows, columns.width, chosen)
        for name, array in (("goal_BN", goal_BN), ("margin_BN", margin_BN)):
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise ValueError(f"{name}: expected contiguous memory that may be written to")
        weight_1N, counting = NO_WEIGHTS, True
        if weight_N is not None:
            weight_1N = np.require(weight_N, requirements="W")[None]
            counting = bool(((weight_N == 0) | (weight_N == 1)).all())
        self._memory = memory = Memory(columns, rules, chosen, threads, len(goal_BN))
        self._goal_BN, self._seed, self._parts = goal_BN, seed, round(share * WHOLE)
        self._width, self._chosen, self._turn = columns.width, chosen, turn
        self._rows = memory.rows(np.empty(goal_BN.shape, dtype=np.float32), weight_1N, margin_BN)
        self._terms = memory.terms(counting)
        self._level = memory.level(chosen)

    def learn_at(self, eta: float) -> None:
        """Change the factor of the leaf values for the trees that are still to grow."""
        self._terms.rule_7[splits.ETA] = np.float32(eta)

    def grow(self, rounds: int) -> list[list[Tree]]:
        """Grow the next trees: [rounds][B]. Fewer rounds than asked for where their trees may have too many nodes.

        Raises:
            OutgrownError: outputs have grown beyond what a float32 holds.
        """
        memory = self._memory
        nodes = memory.nodes(max(1, min(rounds, MOST_NODES // (memory.most_nodes * memory.models))))
        column_RK = np.empty((len(nodes.count_RB), self._chosen), dtype=np.int64)
        for turn, column_K in enumerate(column_RK, self._turn):
            draw_columns(self._seed, turn, self._width, column_K)
        bits_TB2 = np.zeros((memory.threads, memory.models, 2), dtype=np.int32)
        draws = self._seed, self._turn, np.uint64(self._parts)
        memory.run(
            _boost, memory.source(column_RK[0]), column_RK, draws, self._goal_BN, self._rows, self._level,
            memory.scratch, self._terms, nodes, bits_TB2,
        )  # fmt: skip
        if not np.isfinite(bits_TB2.view(np.float32)).all():
            raise OutgrownError("gradients are infinite or NaN; choose a smaller eta")
        self._turn += len(column_RK)
        return [[as_tree(nodes, turn, model) for model in range(memory.models)] for turn in range(len(nodes.count_RB))]


@kernel
def _boost(
    me: int,
    threads: int,
    arrived: Integers,
    source: Source,
    column_RK: Integers,
    draws: tuple[int, int, np.uint64],
    goal_BN: Single,
    rows: Rows,
    level: Level,
    scratch: Scratch,
    terms: Terms,
    nodes: Nodes,
    bits_TB2: Quanta,
) -> None:
    """Grows the trees of some rounds; run by every thread at once.

    draws: seed, number of the first round, share of the rows.
    bits_TB2: where threads note the bits of their largest gradients and Hessians.
    """
    seed, first, parts = draws
    largest_TB2 = bits_TB2.view(np.float32)
    for turn in range(column_RK.shape[0]):
        stream = stream_of(seed, first + turn, 1)
        for model in range(rows.margin_BN.shape[0]):
            bits_TB2[me, model] = 0
            for shard in range(me, source.shard_P4.shape[0], threads):
                start, count = source.shard_P4[shard, 2], source.shard_P4[shard, 3]
                _differ(model, start, start + count, stream, parts, goal_BN, rows, bits_TB2[me, model])
        meet(arrived, threads)
        if not np.isfinite(largest_TB2).all():
            return
        if me == 0:
            level.state_B4[:] = 0
            level.done_D2[:] = 0
            level.smaller_BJ[:, 0] = 0
            level.node_BJ[:, 0] = 0
            for model in range(rows.margin_BN.shape[0]):
                for part in range(1 if terms.counting else 2):
                    power = _power(float(largest_TB2[:, model, part].max()))
                    terms.scale_B2[model, part] = math.ldexp(1.0, power)
                    terms.unit_B2[model, part] = math.ldexp(1.0, -power)
        meet(arrived, threads)
        here = Source(source.address_SC, source.shard_P4, column_RK[turn], source.base)
        grow(me, threads, arrived, here, rows, level, scratch, terms, nodes, turn)


@kernel
def _differ(
    model: int,
    start: int,
    end: int,
    stream: np.uint64,
    parts: np.uint64,
    goal_BN: Single,
    rows: Rows,
    largest_2: Quanta,
) -> None:
    """Gradients of squared error in a range of rows, NaN where a row is not drawn, and the largest ones.

    largest_2: their bits, which order floats of 0 and more as these are ordered, and vectors can take the maximum of.
    """
    value_N, margin_N = rows.value_BN[model, start:end], rows.margin_BN[model, start:end]
    goal_N, bits_N = goal_BN[model, start:end], rows.gradient_BN[model, start:end]
    for row in range(value_N.shape[0]):
        value_N[row] = margin_N[row] - goal_N[row]
    if parts != np.uint64(WHOLE):
        for row in range(value_N.shape[0]):
            bits_N[row] |= np.int32(drawn(stream, start + row, parts)) - np.int32(1)
    if rows.weight_BN.shape[0]:
        weight_N = rows.weight_BN[0, start:end]
        for row in range(value_N.shape[0]):
            value_N[row] *= weight_N[row]
        of_weight_N, most = weight_N.view(np.int32), np.int32(0)
        for row in range(value_N.shape[0]):
            most = max(most, of_weight_N[row] if bits_N[row] & _SIZE <= _INFINITE else np.int32(0))
        largest_2[1] = max(largest_2[1], most)
    most = np.int32(0)
    for row in range(value_N.shape[0]):
        size = bits_N[row] & _SIZE
        most = max(most, size if size <= _INFINITE else np.int32(0))
    largest_2[0] = max(largest_2[0], most)


@kernel
def _power(largest: float) -> int:
    """See `growth.power_for`."""
    return min(BITS - math.frexp(largest)[1], MOST_POWER) if largest else 0

"""Memory of trees that grow, under the names by which the compiled functions use it.

Axes: B trees that grow at the same time, T threads, P shards of rows, J nodes of a level, K nodes of a tree or columns
of the trees, D digits of a level, N rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eravane_kernels.arrays import Bools, Double, Integers, Single
from eravane_kernels.cpu.levelsums import Codes, Places
from eravane_kernels.growth import Quanta

# What `Nodes` holds.
LEFT, RIGHT, PARENT, COLUMN = range(4)
GAIN, HESSIAN, WEIGHT = range(3)
# What `state_B4` holds: splits of the level, nodes of the level above, nodes of the tree, the depth at which it ended.
SPLITS, ABOVE, NODES_SO_FAR, ENDED = range(4)


class Source(NamedTuple):
    """Addresses of columns. shard_P4: segment, first row in it, first row of all, rows. column_K: of the trees."""

    address_SC: Integers
    shard_P4: Integers
    column_K: Integers
    base: int


class Rows(NamedTuple):
    """Memory per row and tree.

    value_BN: gradient; NaN in rows that no sum counts, and it becomes NaN where gradient and weight are 0.
    weight_BN: Hessian; [0, 0] means ones, [1, N] the same in all trees.
    gradient_BN, hessian_BN: both as integers. gradient_BN may be the memory of value_BN.
    place_BN: rows of the shard by node.
    edge_BP22K: where the nodes of two levels begin, among the rows that count and among the others behind them.
    margin_BN: output.
    """

    value_BN: Single
    weight_BN: Single
    gradient_BN: Quanta
    hessian_BN: Quanta
    place_BN: Places
    edge_BP22K: npt.NDArray[np.int32]
    margin_BN: Single


class Level(NamedTuple):
    """Memory per node of a level; two levels of sums. done_D2: shards taken, and threads that have evaluated."""

    counted_TBJKD2: Integers
    sum_B2JKD2: Integers
    total_B2J2: Integers
    best_BJ6: Double
    node_BJ: Integers
    slot_BJ: Integers
    smaller_BJ: Integers
    parent_BJ: Integers
    output_BJ2: Single
    state_B4: Integers
    done_D2: Integers


class Scratch(NamedTuple):
    """Memory of a thread of its own.

    code_TGN: joint levels of as many groups of columns as are joined at a time.
    joint_TSJ: sums of joint levels, of as many groups as a pass serves; two for each where rows are weighed.
    plane_TJ, single_TS3D: sums of two columns, and of single ones, while they are drawn from these.
    left_T2K, gain_TK: candidates of a node, `CANDIDATES` a column: sums on their left, and gains.
    """

    code_TGN: Codes
    spare_TN: Places
    packed_TBN: Integers
    joint_TSJ: Integers
    plane_TJ: Integers
    single_TS3D: Integers
    left_T2K: Integers
    gain_TK: Single


class Terms(NamedTuple):
    """The rules, and how gradients and Hessians become integers.

    scale_B2: what they are multiplied by. unit_B2: what 1 is worth in their sums.
    counting: whether all Hessians are 0 or 1.
    width: bits of a summand that hold the Hessian.
    """

    rule_7: Double
    scale_B2: Single
    unit_B2: Double
    depth: int
    counting: bool
    width: int


class Nodes(NamedTuple):
    """The trees of R rounds so far, as `Tree` has them, and how many nodes each has.

    link_4RBK: left and right child, parent, column. fact_3RBK: gain, Hessian, weight.
    """

    link_4RBK: Quanta
    fact_3RBK: Single
    below_RBK: npt.NDArray[np.int8]
    missing_left_RBK: Bools
    count_RB: Integers

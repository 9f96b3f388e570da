"""The best split of a node from its sums per level, in the arithmetic of XGBoost's `hist`.

Gains of all candidates of a node are computed first, without a branch, and then the first of the best is looked for:
deep trees have so many nodes that a branch per candidate, which no processor foresees in small nodes, took a fifth of
their time at 300,000 x 780 and a third at 96,000 x 480. Bound, per candidate: two divisions of four floats at a time,
3 to 4 cycles; with its sums, 2 to 3 ns (measured 62 before, 6 now, on a busy machine).
"""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Double, Integers, Single
from eravane_kernels.cpu.jit import dividing

# What `rule_7` holds: the rules as float32, 1 where splits learn where missing values go, and 1 where gains are taken
# from weights.
ALPHA, LAMBDA, GAMMA, LEAST_CHILD, ETA, LEARNED, FROM_WEIGHT = range(7)
# What `best_6` holds: gain, place of the column, highest level on the left, whether missing values go left, and the
# sums of gradients and of Hessians of the left child.
GAIN, COLUMN, LEVEL, MISSING_LEFT, LEFT_GRADIENT, LEFT_HESSIAN = range(6)

CANDIDATES = 9
"""Splits of a column of five levels where missing values go either way."""


@dividing
def shrunk(gradient: float, alpha: float) -> float:
    """Soft threshold of a sum of gradients."""
    return gradient - alpha if gradient > alpha else gradient + alpha if gradient < -alpha else 0.0


@dividing
def weight(gradient: float, hessian: float, rule_7: Double) -> np.float32:
    """Weight of a node."""
    if hessian <= 0.0 or (hessian < rule_7[LEAST_CHILD] and rule_7[FROM_WEIGHT] == 0.0):
        return np.float32(0.0)
    return np.float32(-shrunk(gradient, rule_7[ALPHA]) / (hessian + rule_7[LAMBDA]))


@dividing
def _squared(gradient: float, hessian: float, alpha: float, penalty: float) -> np.float32:
    """Gain of a node over no output at all, from the square of its sum of gradients."""
    pull = shrunk(gradient, alpha)
    gain = np.float32(pull * pull) / np.float32(hessian + penalty)
    return gain if hessian > 0.0 else np.float32(0.0)


@dividing
def _weighed(gradient: float, hessian: float, alpha: float, penalty: float) -> np.float32:
    """The same from its weight."""
    own = np.float32(-shrunk(gradient, alpha) / (hessian + penalty))
    square = np.float32(own * own)
    loss = 2.0 * gradient * float(own) + (hessian + penalty) * float(square)
    gain = np.float32(-(loss + 2.0 * alpha * abs(float(own))))
    return gain if hessian > 0.0 else np.float32(0.0)


@dividing
def best_split(
    sum_CB2: Integers,
    gradient: int,
    hessian: int,
    unit_2: Double,
    rule_7: Double,
    left_2K: Integers,
    gain_K: Single,
    best_6: Double,
) -> None:
    """Finds the first best split of a node; gain 0 where there is none.

    sum_CB2: sums of its rows per column and level. gradient, hessian: of all its rows. unit_2: what 1 is worth in each.
    left_2K, gain_K: room for `CANDIDATES` of every column: the sums on their left, and their gains.
    """
    base, learned = sum_CB2.shape[1], sum_CB2.shape[1] == 6 and rule_7[LEARNED] != 0.0
    each = CANDIDATES if learned else base - 1
    many = each * sum_CB2.shape[0]
    _candidates(sum_CB2, gradient, hessian, learned, each, left_2K)
    _gains(left_2K[0, :many], left_2K[1, :many], gradient, hessian, unit_2, rule_7, gain_K[:many])
    best, found = np.float32(0.0), -1
    for place in range(many):
        if gain_K[place] > best:
            best, found = gain_K[place], place
    best_6[:] = 0.0
    if found < 0:
        return
    column, way = found // each, found % each
    best_6[GAIN], best_6[COLUMN] = best, column
    best_6[LEVEL] = way + 5 - base if not learned else way if way < 5 else 8 - way
    best_6[MISSING_LEFT] = 1 if rule_7[LEARNED] == 0.0 or way >= 5 else 0
    best_6[LEFT_GRADIENT], best_6[LEFT_HESSIAN] = left_2K[0, found], left_2K[1, found]


@dividing
def _candidates(sum_CB2: Integers, gradient: int, hessian: int, learned: bool, each: int, left_2K: Integers) -> None:
    """Sums on the left of every candidate, in the order in which the first of the best is taken.

    Where missing values are learned, the five of a column that send them right, and, if there are any, four that send
    them left, from the highest level down; else nothing is on the left of these, and they gain nothing.
    """
    place, base, first = 0, sum_CB2.shape[1], 1 if learned else 0
    for column in range(sum_CB2.shape[0]):
        sum_B2 = sum_CB2[column]
        left_g, left_h = np.int64(0), np.int64(0)
        for digit in range(first, base if learned else base - 1):
            left_g += sum_B2[digit, 0]
            left_h += sum_B2[digit, 1]
            left_2K[0, place], left_2K[1, place] = left_g, left_h
            place += 1
        if learned:
            none = left_g == gradient and left_h == hessian
            right_g, right_h = np.int64(0), np.int64(0)
            for digit in range(base - 1, 1, -1):
                right_g += sum_B2[digit, 0]
                right_h += sum_B2[digit, 1]
                left_2K[0, place] = 0 if none else gradient - right_g
                left_2K[1, place] = 0 if none else hessian - right_h
                place += 1


@dividing
def _gains(
    left_g_K: Integers, left_h_K: Integers, gradient: int, hessian: int, unit_2: Double, rule_7: Double, gain_K: Single
) -> None:
    """Gains of candidates, 0 where a child is too small or a gain infinite; loops without branches, for vectors."""
    of_g, of_h, alpha, penalty = unit_2[0], unit_2[1], rule_7[ALPHA], rule_7[LAMBDA]
    least = rule_7[LEAST_CHILD]
    if rule_7[FROM_WEIGHT] != 0.0:
        own = _weighed(gradient * of_g, hessian * of_h, alpha, penalty)
        for place in range(gain_K.shape[0]):
            left, right = left_h_K[place] * of_h, (hessian - left_h_K[place]) * of_h
            both = _weighed(left_g_K[place] * of_g, left, alpha, penalty)
            both += _weighed((gradient - left_g_K[place]) * of_g, right, alpha, penalty)
            gain = np.float32(both - own)
            allowed = (left >= least) & (right >= least) & (left > 0.0) & (right > 0.0) & (gain < np.inf)
            gain_K[place] = gain if allowed else np.float32(0.0)
    else:
        own = _squared(gradient * of_g, hessian * of_h, alpha, penalty)
        for place in range(gain_K.shape[0]):
            left, right = left_h_K[place] * of_h, (hessian - left_h_K[place]) * of_h
            both = _squared(left_g_K[place] * of_g, left, alpha, penalty)
            both += _squared((gradient - left_g_K[place]) * of_g, right, alpha, penalty)
            gain = np.float32(both - own)
            allowed = (left >= least) & (right >= least) & (gain < np.inf)
            gain_K[place] = gain if allowed else np.float32(0.0)

"""The best split of a node from its sums per level, in the arithmetic of XGBoost's `hist`."""

from __future__ import annotations

import numpy as np

from eravane_kernels.arrays import Double, Integers
from eravane_kernels.cpu.jit import kernel

# What `rule_7` holds: the rules as float32, 1 where splits learn where missing values go, and 1 where gains are taken
# from weights.
ALPHA, LAMBDA, GAMMA, LEAST_CHILD, ETA, LEARNED, FROM_WEIGHT = range(7)
# What `best_6` holds: gain, place of the column, highest level on the left, whether missing values go left, and the
# sums of gradients and of Hessians of the left child.
GAIN, COLUMN, LEVEL, MISSING_LEFT, LEFT_GRADIENT, LEFT_HESSIAN = range(6)


@kernel
def shrunk(gradient: float, rule_7: Double) -> float:
    """Soft threshold of a sum of gradients."""
    alpha = float(rule_7[ALPHA])
    if gradient > alpha:
        return gradient - alpha
    if gradient < -alpha:
        return gradient + alpha
    return 0.0


@kernel
def weight(gradient: float, hessian: float, rule_7: Double) -> np.float32:
    """Weight of a node."""
    if hessian <= 0.0 or (hessian < rule_7[LEAST_CHILD] and rule_7[FROM_WEIGHT] == 0.0):
        return np.float32(0.0)
    return np.float32(-shrunk(gradient, rule_7) / (hessian + rule_7[LAMBDA]))


@kernel
def worth(gradient: float, hessian: float, rule_7: Double) -> np.float32:
    """What a node gains over no output at all."""
    if hessian <= 0.0:
        return np.float32(0.0)
    if rule_7[FROM_WEIGHT] != 0.0:
        own = weight(gradient, hessian, rule_7)
        square = np.float32(own * own)
        loss = 2.0 * gradient * float(own) + (hessian + rule_7[LAMBDA]) * float(square)
        return np.float32(-(loss + 2.0 * rule_7[ALPHA] * abs(float(own))))
    pull = shrunk(gradient, rule_7)
    return np.float32(pull * pull) / np.float32(hessian + rule_7[LAMBDA])


@kernel
def best_split(sum_CB2: Integers, gradient: int, hessian: int, unit_2: Double, rule_7: Double, best_6: Double) -> None:
    """Finds the first best split of a node; gain 0 where there is none.

    sum_CB2: sums of its rows per column and level. gradient, hessian: of all its rows. unit_2: what 1 is worth in each.
    """
    base = sum_CB2.shape[1]
    missing = base - 5
    learned = missing == 1 and rule_7[LEARNED] != 0.0
    lowest = 1 if rule_7[LEARNED] == 0.0 else 0
    own = worth(gradient * unit_2[0], hessian * unit_2[1], rule_7)
    best_6[:] = 0.0
    for column in range(sum_CB2.shape[0]):
        sum_B2 = sum_CB2[column]
        left_g, left_h = np.int64(0), np.int64(0)
        for digit in range(missing if learned else 0, base if learned else base - 1):
            left_g += sum_B2[digit, 0]
            left_h += sum_B2[digit, 1]
            _try(left_g, left_h, gradient, hessian, unit_2, rule_7, own, column, digit - missing, lowest, best_6)
        if learned and (left_g != gradient or left_h != hessian):
            right_g, right_h = np.int64(0), np.int64(0)
            for digit in range(base - 1, 1, -1):
                right_g += sum_B2[digit, 0]
                right_h += sum_B2[digit, 1]
                left_g, left_h = gradient - right_g, hessian - right_h
                _try(left_g, left_h, gradient, hessian, unit_2, rule_7, own, column, digit - 2, 1, best_6)


@kernel
def _try(
    left_g: int,
    left_h: int,
    gradient: int,
    hessian: int,
    unit_2: Double,
    rule_7: Double,
    own: np.float32,
    column: int,
    level: int,
    missing_left: int,
    best_6: Double,
) -> None:
    """Takes a candidate that gains more than the best before it."""
    left, right = left_h * unit_2[1], (hessian - left_h) * unit_2[1]
    if left < rule_7[LEAST_CHILD] or right < rule_7[LEAST_CHILD]:
        return
    if rule_7[FROM_WEIGHT] != 0.0 and (left <= 0.0 or right <= 0.0):
        return
    both = worth(left_g * unit_2[0], left, rule_7) + worth((gradient - left_g) * unit_2[0], right, rule_7)
    gain = np.float32(both - own)
    if gain > best_6[GAIN] and gain < np.inf:
        best_6[GAIN], best_6[COLUMN], best_6[LEVEL], best_6[MISSING_LEFT] = gain, column, level, missing_left
        best_6[LEFT_GRADIENT], best_6[LEFT_HESSIAN] = left_g, left_h

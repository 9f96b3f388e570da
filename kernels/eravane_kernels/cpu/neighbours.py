"""Missing values from the nearest rows of the era."""

from __future__ import annotations

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Bools, Double, Integers, Single
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.eras import spans
from eravane_kernels.spec.missing import check_knn


def knn_impute(x_CN: Single, offsets_E1: Integers, k: int = 5) -> Single:
    """See `spec.knn_impute`: distances of one row to all others at a time, sums in the order of the columns."""
    check_knn(x_CN, offsets_E1, k)
    checks.no_infinity(x_CN, "x_CN")
    result_CN = x_CN.copy()
    for rows in spans(offsets_E1):
        value_CN = x_CN[:, rows].astype(np.float64)
        held_CN = ~np.isnan(value_CN)
        value_CN[~held_CN] = 0.0
        receiver_R = np.flatnonzero(~held_CN.all(axis=0))
        _impute(value_CN, held_CN, held_CN.astype(np.float64), receiver_R, k, result_CN[:, rows])
    return result_CN


@kernel
def _impute(
    value_CN: Double, held_CN: Bools, share_CN: Double, receiver_R: Integers, k: int, result_CN: Single
) -> None:
    """Fills the missing cells of the receiving rows; share_CN is held_CN as 0 and 1."""
    distance_N = np.empty(value_CN.shape[1])
    near_K, gap_K = np.empty(k, dtype=np.int64), np.empty(k)
    for row in receiver_R:
        _distances(value_CN, held_CN, share_CN, row, distance_N)
        for column in range(value_CN.shape[0]):
            if not held_CN[column, row]:
                found = _nearest(held_CN[column], distance_N, near_K, gap_K)
                result_CN[column, row] = _mean(value_CN[column], held_CN[column], near_K[:found])


@kernel
def _distances(value_CN: Double, held_CN: Bools, share_CN: Double, row: int, distance_N: Double) -> None:
    """Mean squared gaps to a row over the columns that both hold, infinite where there is none."""
    shared_N = np.zeros(distance_N.shape[0])
    distance_N[:] = 0.0
    for column in range(value_CN.shape[0]):
        if held_CN[column, row]:
            value_N, share_N, own = value_CN[column], share_CN[column], value_CN[column, row]
            for other in range(distance_N.shape[0]):
                gap = value_N[other] - own
                distance_N[other] += share_N[other] * (gap * gap)
                shared_N[other] += share_N[other]
    for other in range(distance_N.shape[0]):
        distance_N[other] = distance_N[other] / shared_N[other] if shared_N[other] > 0.0 else np.inf


@kernel
def _nearest(held_N: Bools, distance_N: Double, near_K: Integers, gap_K: Double) -> int:
    """Fills in up to K rows that hold a value, nearest first, the lower of equal ones first; returns how many."""
    found, k = 0, near_K.shape[0]
    worst = np.inf
    for other in range(distance_N.shape[0]):
        if held_N[other] and distance_N[other] < worst:
            place = min(found, k - 1)
            while place > 0 and gap_K[place - 1] > distance_N[other]:
                near_K[place], gap_K[place] = near_K[place - 1], gap_K[place - 1]
                place -= 1
            near_K[place], gap_K[place] = other, distance_N[other]
            found = min(found + 1, k)
            worst = gap_K[k - 1] if found == k else np.inf
    return found


@kernel
def _mean(value_N: Double, held_N: Bools, near_K: Integers) -> float:
    """Mean over the rows given; over all rows that hold a value if none is given; NaN if none holds one."""
    total, count = 0.0, near_K.shape[0]
    for other in near_K:
        total += value_N[other]
    if count == 0:
        for other in range(value_N.shape[0]):
            total += value_N[other]
            count += held_N[other]
    return total / count if count > 0 else np.nan

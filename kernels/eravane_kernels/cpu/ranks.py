"""Tie-kept ranks by one vectorised sort of 64-bit keys that carry the value's leading bits and its row.

Twice an average rank is an integer, so a function of the rank alone is a table over 0..2n.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from eravane_kernels.arrays import Double, Floats
from eravane_kernels.cpu.jit import kernel, summing

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int32]

BLOCK = 1 << 16
"""Values ranked at a time: their keys stay in the second-level cache."""
SINGLE_BITS = 32
"""Low bits of a float32's key that hold the row; the others hold all of the value. A float64's key has fewer."""

_SIGN = np.uint64(1 << 63)


@lru_cache(maxsize=64)
def rank_table(rows: int) -> Double:
    """`(average rank - 0.5) / rows` by twice the average rank, float64 [2 * rows + 1], read-only."""
    table = (np.arange(2 * rows + 1) / 2.0 - 0.5) / rows
    table.setflags(write=False)
    return table


@lru_cache(maxsize=64)
def gauss_table(rows: int) -> Double:
    """Normal quantile of `rank_table`; the entry for rank 0, which does not occur, is NaN."""
    table = np.asarray(ndtri(rank_table(rows)))
    table.setflags(write=False)
    return table


@lru_cache(maxsize=64)
def power_table(rows: int) -> Double:
    """`gauss_table` to the power 1.5, sign kept."""
    gauss = gauss_table(rows)
    table = np.asarray(np.sign(gauss) * np.abs(gauss) ** 1.5)
    table.setflags(write=False)
    return table


def placed(p_MN: Floats, table: Double, result_MN: Double) -> None:
    """Fills in the table's entry for twice the average rank of every prediction.

    p_MN: float32 or float64, finite, N >= 1; table float64 [2N + 1]; result_MN float64 [M, N].
    """
    untied = table[2::2].copy()
    for block, key_MN, bits in _sorted_keys(p_MN):
        _place(key_MN, p_MN[block], bits, table, untied, result_MN[block])


def summed(p_MN: Floats, table: Double, against_TN: Double) -> Double:
    """Sums of z, z squared and z times every row of against_TN, z the table's entry; float64 [M, 2 + T].

    Arguments as of `placed`.
    """
    untied, sums_MS = table[2::2].copy(), np.empty((len(p_MN), 2 + len(against_TN)))
    for block, key_MN, bits in _sorted_keys(p_MN):
        _sum(key_MN, p_MN[block], bits, table, untied, against_TN, sums_MS[block])
    return sums_MS


def _sorted_keys(p_MN: Floats) -> Iterator[tuple[slice, Keys, int]]:
    """A block of models at a time: its slice, keys in ascending order, and how many of their low bits are the row.

    The next block overwrites the keys.
    """
    models, rows = p_MN.shape
    height = max(1, min(models, BLOCK // rows))
    keys = np.empty((height, rows), dtype=np.uint64)
    single = p_MN.dtype == np.float32
    bits = SINGLE_BITS if single else max(1, (rows - 1).bit_length())
    for first in range(0, models, height):
        block = slice(first, min(first + height, models))
        key_MN = keys[: block.stop - first]
        if single:
            _pack_single(p_MN[block], bits, key_MN)
        else:
            np.copyto(key_MN.view(np.float64), p_MN[block])
            _pack_double(key_MN, bits)
        key_MN.sort(axis=1)
        yield block, key_MN, bits


@kernel
def _pack_single(p_MN: Floats, bits: int, key_MN: Keys) -> None:
    """Keys of float32: the whole value in ascending order, then the row."""
    for model in range(p_MN.shape[0]):
        value_N, key_N = p_MN[model], key_MN[model]
        for row in range(value_N.shape[0]):
            value = value_N[row] + np.float32(0.0)
            raw = np.float32(value).view(np.int32)
            ordered = np.uint32(raw ^ ((raw >> 31) & 0x7FFFFFFF)) ^ np.uint32(0x80000000)
            key_N[row] = (np.uint64(ordered) << np.uint64(bits)) | np.uint64(row)


@kernel
def _pack_double(key_MN: Keys, bits: int) -> None:
    """Keys of float64 in place of their bits: the leading bits in ascending order, then the row.

    The values are copied before they are packed, which reads memory faster than packing does.
    """
    kept = ~((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
    for model in range(key_MN.shape[0]):
        key_N = key_MN[model]
        value_N = key_N.view(np.float64)
        for row in range(key_N.shape[0]):
            raw = np.float64(value_N[row] + 0.0).view(np.int64)
            ordered = np.uint64(raw ^ ((raw >> 63) & 0x7FFFFFFFFFFFFFFF)) ^ _SIGN
            key_N[row] = (ordered & kept) | np.uint64(row)


@kernel
def _place(key_MN: Keys, p_MN: Floats, bits: int, table: Double, untied: Double, result_MN: Double) -> None:
    """Scatters table entries by row; `untied` holds those of the ranks 1, 2, 3 and so on.

    They go to near_N first, which stays in the cache, where a scatter over the result would miss it.
    """
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    row_N, twice_N = np.empty(key_MN.shape[1], dtype=np.int32), np.empty(key_MN.shape[1], dtype=np.int32)
    near_N = np.empty(key_MN.shape[1])
    for model in range(key_MN.shape[0]):
        key_N = key_MN[model]
        if _tied(key_N, np.uint64(bits)):
            _resolve(key_N, p_MN[model], bits, row_N, twice_N)
            for place in range(key_N.shape[0]):
                near_N[np.uint32(row_N[place])] = table[np.uint32(twice_N[place])]
        else:
            for place in range(key_N.shape[0]):
                near_N[key_N[place] & mask] = untied[place]
        result_MN[model] = near_N


@summing
def _sum(
    key_MN: Keys, p_MN: Floats, bits: int, table: Double, untied: Double, against_TN: Double, sums_MS: Double
) -> None:
    """Adds up table entries, their squares, and their products with rows of against_TN."""
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    row_N, twice_N = np.empty(key_MN.shape[1], dtype=np.int32), np.empty(key_MN.shape[1], dtype=np.int32)
    total = square = 0.0
    for place in range(untied.shape[0]):
        total += untied[place]
        square += untied[place] * untied[place]
    for model in range(key_MN.shape[0]):
        key_N = key_MN[model]
        if _tied(key_N, np.uint64(bits)):
            _resolve(key_N, p_MN[model], bits, row_N, twice_N)
            _sum_tied(row_N, twice_N, table, against_TN, sums_MS[model])
        else:
            sums_MS[model, 0], sums_MS[model, 1] = total, square
            for target in range(against_TN.shape[0]):
                against_N, dot = against_TN[target], 0.0
                for place in range(key_N.shape[0]):
                    dot += untied[place] * against_N[key_N[place] & mask]
                sums_MS[model, 2 + target] = dot


@summing
def _sum_tied(row_N: Places, twice_N: Places, table: Double, against_TN: Double, sums_S: Double) -> None:
    total = square = 0.0
    for place in range(twice_N.shape[0]):
        z = table[np.uint32(twice_N[place])]
        total += z
        square += z * z
    sums_S[0], sums_S[1] = total, square
    for target in range(against_TN.shape[0]):
        against_N, dot = against_TN[target], 0.0
        for place in range(row_N.shape[0]):
            dot += table[np.uint32(twice_N[place])] * against_N[np.uint32(row_N[place])]
        sums_S[2 + target] = dot


@kernel
def _tied(key_N: Keys, shift: np.uint64) -> bool:
    """Whether any two neighbours agree in all bits except the row's."""
    tied = False
    for place in range(key_N.shape[0] - 1):
        tied |= (key_N[place] >> shift) == (key_N[place + 1] >> shift)
    return tied


@kernel
def _resolve(key_N: Keys, value_N: Floats, bits: int, row_N: Places, twice_N: Places) -> None:
    """Rows in ascending order of value and twice their average ranks."""
    shift = np.uint64(bits)
    for place in range(key_N.shape[0]):
        row_N[place] = np.int32(key_N[place] & ((np.uint64(1) << shift) - np.uint64(1)))
        twice_N[place] = np.int32(2 * place + 2)
    first, count = 0, key_N.shape[0]
    while first < count:
        last = first + 1
        while last < count and key_N[last] >> shift == key_N[first] >> shift:
            last += 1
        if last > first + 1:
            if bits == SINGLE_BITS:
                twice_N[first:last] = first + last + 1
            else:
                _resolve_run(value_N, first, row_N[first:last], twice_N[first:last])
        first = last


@kernel
def _resolve_run(value_N: Floats, first: int, row_R: Places, twice_R: Places) -> None:
    """Orders a run of rows by their values and averages the ranks of equal ones."""
    count, alike = row_R.shape[0], True
    for place in range(count):
        alike &= value_N[np.uint32(row_R[place])] == value_N[np.uint32(row_R[0])]
    if alike:
        twice_R[:] = 2 * first + count + 1
        return
    value_R = np.empty(count)
    for place in range(count):
        value_R[place] = value_N[row_R[place]]
    order = np.argsort(value_R, kind="mergesort")
    row_R[:] = row_R[order]
    value_R = value_R[order]
    start = 0
    while start < count:
        stop = start + 1
        while stop < count and value_R[stop] == value_R[start]:
            stop += 1
        twice_R[start:stop] = 2 * first + start + stop + 1
        start = stop

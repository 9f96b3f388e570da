"""Tie-kept ranks by one vectorised sort of 64-bit keys that carry the value's leading bits and its row.

Twice an average rank is an integer, so whatever is a function of the rank alone is a table over 0..2n.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from eravane_kernels.arrays import Double, Floats
from eravane_kernels.cpu.jit import kernel

Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int32]

BLOCK = 1 << 16
"""Values ranked at a time: their keys stay in the second-level cache."""

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


def sorted_rows(p_MN: Floats) -> Iterator[tuple[slice, Places, Places]]:
    """A block of models at a time: its slice, rows in ascending order of prediction, and twice their average ranks.

    p_MN: float32 or float64, finite, N >= 1. Yields two int32 [models, N] that the next block overwrites.
    """
    models, rows = p_MN.shape
    height = max(1, min(models, BLOCK // rows))
    keys, row, twice = (np.empty((height, rows), dtype=kind) for kind in (np.uint64, np.int32, np.int32))
    whole = p_MN.dtype == np.float32
    pack, bits = (_pack_single, 32) if whole else (_pack_double, max(1, (rows - 1).bit_length()))
    for first in range(0, models, height):
        block = slice(first, min(first + height, models))
        part = slice(0, block.stop - first)
        pack(p_MN[block], bits, keys[part])
        keys[part].sort(axis=1)
        _resolve(keys[part], p_MN[block], bits, whole, row[part], twice[part])
        yield block, row[part], twice[part]


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
def _pack_double(p_MN: Floats, bits: int, key_MN: Keys) -> None:
    """Keys of float64: the value's leading bits in ascending order, then the row."""
    kept = ~((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
    for model in range(p_MN.shape[0]):
        value_N, key_N = p_MN[model], key_MN[model]
        for row in range(value_N.shape[0]):
            value = value_N[row] + 0.0
            raw = np.float64(value).view(np.int64)
            ordered = np.uint64(raw ^ ((raw >> 63) & 0x7FFFFFFFFFFFFFFF)) ^ _SIGN
            key_N[row] = (ordered & kept) | np.uint64(row)


@kernel
def _resolve(key_MN: Keys, p_MN: Floats, bits: int, whole: bool, row_MN: Places, twice_MN: Places) -> None:
    """Rows and twice the average ranks from sorted keys; `whole` says that equal keys are equal values."""
    shift = np.uint64(bits)
    for model in range(key_MN.shape[0]):
        key_N, row_N, twice_N = key_MN[model], row_MN[model], twice_MN[model]
        repeats = 0
        for place in range(key_N.shape[0] - 1):
            repeats += (key_N[place] >> shift) == (key_N[place + 1] >> shift)
        for place in range(key_N.shape[0]):
            row_N[place] = np.int32(key_N[place] & ((np.uint64(1) << shift) - np.uint64(1)))
            twice_N[place] = np.int32(2 * place + 2)
        if repeats > 0:
            _resolve_ties(key_N, p_MN[model], shift, whole, row_N, twice_N)


@kernel
def _resolve_ties(key_N: Keys, value_N: Floats, shift: np.uint64, whole: bool, row_N: Places, twice_N: Places) -> None:
    """Gives equal values their average rank, and puts values that only their last bits tell apart in order."""
    first, count = 0, key_N.shape[0]
    while first < count:
        last = first + 1
        while last < count and key_N[last] >> shift == key_N[first] >> shift:
            last += 1
        if last > first + 1:
            if whole:
                twice_N[first:last] = first + last + 1
            else:
                _resolve_run(value_N, first, row_N[first:last], twice_N[first:last])
        first = last


@kernel
def _resolve_run(value_N: Floats, first: int, row_R: Places, twice_R: Places) -> None:
    """Orders a run of rows by their values and averages the ranks of equal ones."""
    value_R = np.empty(row_R.shape[0])
    for place in range(row_R.shape[0]):
        value_R[place] = value_N[row_R[place]]
    if value_R.min() < value_R.max():
        order = np.argsort(value_R, kind="mergesort")
        row_R[:] = row_R[order]
        value_R = value_R[order]
    start = 0
    while start < value_R.shape[0]:
        stop = start + 1
        while stop < value_R.shape[0] and value_R[stop] == value_R[start]:
            stop += 1
        twice_R[start:stop] = 2 * first + start + stop + 1
        start = stop

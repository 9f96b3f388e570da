"""Checksums of columns, era by era, and the scans that go with them: compiled, at memory speed.

A digest is 64 bits over the bytes of one (era, column) run: four lanes of xor, multiply and shift over little-endian
words, so that a flipped bit changes it, and equal content has an equal digest at any place of a file. It guards
against damage and detects changed content; it is no defence against forgery.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.vectors import prefetch

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_CHUNK = 16 << 20
# Bytes ahead of the words for which memory is asked: two runs take 21 GB/s with it and 9 without (2.6 GHz, one core).
_AHEAD = 8192


@nb.njit(inline="always")  # type: ignore[untyped-decorator]
def _word(x: Any, at: Any) -> Any:
    """Eight bytes from `at` as a little-endian word; written out so, the compiler makes one unaligned load of it."""
    low = (
        np.uint64(x[at])
        | np.uint64(x[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(x[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(x[at + np.uint64(3)]) << np.uint64(24)
    )
    return (
        low
        | np.uint64(x[at + np.uint64(4)]) << np.uint64(32)
        | np.uint64(x[at + np.uint64(5)]) << np.uint64(40)
        | np.uint64(x[at + np.uint64(6)]) << np.uint64(48)
        | np.uint64(x[at + np.uint64(7)]) << np.uint64(56)
    )


@kernel
def _digest(x: Any) -> Any:
    a, b, c, d = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    whole = x.size - x.size % 32
    for at in range(np.uint64(0), np.uint64(whole), np.uint64(32)):
        a = (a ^ _word(x, at)) * _PRIME
        b = (b ^ _word(x, at + np.uint64(8))) * _PRIME
        c = (c ^ _word(x, at + np.uint64(16))) * _PRIME
        d = (d ^ _word(x, at + np.uint64(24))) * _PRIME
        a ^= a >> np.uint64(29)
        b ^= b >> np.uint64(29)
        c ^= c >> np.uint64(29)
        d ^= d >> np.uint64(29)
    for at in range(whole, x.size):
        a = (a ^ np.uint64(x[at])) * _PRIME
        a ^= a >> np.uint64(29)
    for lane in (b, c, d, np.uint64(x.size)):
        a = (a ^ lane) * _PRIME
        a ^= a >> np.uint64(32)
    return a


@kernel
def _digest_both(x: Any, one: int, other: int, size: int) -> Any:
    """Digests of two runs of one length, side by side: products of one fill the waits for those of the other."""
    a, b, c, d = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    e, f, g, h = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    whole = size - size % 32
    for step in range(np.uint64(0), np.uint64(whole), np.uint64(32)):
        at, to = np.uint64(one) + step, np.uint64(other) + step
        prefetch(x, np.int64(at) + _AHEAD)
        prefetch(x, np.int64(to) + _AHEAD)
        a = (a ^ _word(x, at)) * _PRIME
        e = (e ^ _word(x, to)) * _PRIME
        b = (b ^ _word(x, at + np.uint64(8))) * _PRIME
        f = (f ^ _word(x, to + np.uint64(8))) * _PRIME
        c = (c ^ _word(x, at + np.uint64(16))) * _PRIME
        g = (g ^ _word(x, to + np.uint64(16))) * _PRIME
        d = (d ^ _word(x, at + np.uint64(24))) * _PRIME
        h = (h ^ _word(x, to + np.uint64(24))) * _PRIME
        a ^= a >> np.uint64(29)
        e ^= e >> np.uint64(29)
        b ^= b >> np.uint64(29)
        f ^= f >> np.uint64(29)
        c ^= c >> np.uint64(29)
        g ^= g >> np.uint64(29)
        d ^= d >> np.uint64(29)
        h ^= h >> np.uint64(29)
    for step in range(whole, size):
        a = (a ^ np.uint64(x[one + step])) * _PRIME
        e = (e ^ np.uint64(x[other + step])) * _PRIME
        a ^= a >> np.uint64(29)
        e ^= e >> np.uint64(29)
    for lane, twin in ((b, f), (c, g), (d, h), (np.uint64(size), np.uint64(size))):
        a = (a ^ lane) * _PRIME
        e = (e ^ twin) * _PRIME
        a ^= a >> np.uint64(32)
        e ^= e >> np.uint64(32)
    return a, e


@kernel
def _digest_runs(flat: Any, stride: int, offsets_E1: Any, out_EC: Any) -> None:
    columns = out_EC.shape[1]
    for column in range(0, columns, 2):
        start = column * stride
        for era in range(out_EC.shape[0]):
            first, last = start + offsets_E1[era], start + offsets_E1[era + 1]
            if column + 1 < columns:
                both = _digest_both(flat, first, first + stride, last - first)
                out_EC[era, column], out_EC[era, column + 1] = both
            else:
                out_EC[era, column] = _digest(flat[first:last])


@kernel
def _hash_strings(data: Any, offsets: Any, out_N: Any) -> None:
    for row in range(out_N.size):
        out_N[row] = _digest(data[offsets[row] : offsets[row + 1]])


@kernel
def _columns_above(flat: Any, stride: int, rows: int, most: Any, out_C: Any) -> None:
    for column in range(out_C.size):
        value_N = flat[column * stride : column * stride + rows]
        greatest = np.uint8(0)
        for row in range(value_N.size):  # by number: an iterator over an array gives no vectors
            greatest = max(greatest, value_N[row])
        out_C[column] = greatest > most


def digest_runs(values_CN: NDArray[Any], offsets_E1: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Digest every (era, column) run.

    Args:
        values_CN: [C, N] of any dtype, columns contiguous.
        offsets_E1: int64 [E+1], row offsets of the eras.

    Returns:
        uint64 [E, C].
    """
    out_EC = np.empty((offsets_E1.size - 1, values_CN.shape[0]), dtype=np.uint64)
    flat, stride = _flat_bytes(values_CN)
    _digest_runs(flat, stride, offsets_E1 * values_CN.itemsize, out_EC)
    return out_EC


def digest_file(path: Path) -> str:
    """Digest a whole file, read in chunks: 32 hex digits."""
    whole = hashlib.sha256()
    buffer = np.empty(_CHUNK, dtype=np.uint8)
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(buffer.data):
            whole.update(int(_digest(buffer[:read])).to_bytes(8, "little"))
            whole.update(read.to_bytes(8, "little"))
    return whole.hexdigest()[:32]


def digest_text(*parts: bytes) -> str:
    """Digest a few small byte strings: 32 hex digits of SHA-256."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.hexdigest()[:32]


def hash_ids(ids: pa.StringArray | pa.LargeStringArray) -> NDArray[np.uint64]:
    """Hash every string of an array without nulls, uint64 [N]; equal strings have equal hashes."""
    wide = pa.types.is_large_string(ids.type)
    _, offsets, data = ids.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64 if wide else np.int32)[ids.offset : ids.offset + len(ids) + 1]
    text = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    out_N = np.empty(len(ids), dtype=np.uint64)
    _hash_strings(text, bounds.astype(np.int64), out_N)
    return out_N


def first_level_fault(levels_CN: NDArray[np.int8], most: int = 4) -> tuple[int, int] | None:
    """Position (column, row) of the first value outside 0..most, by column then row; None where there is none."""
    above_C = np.empty(levels_CN.shape[0], dtype=np.bool_)
    flat, stride = _flat_bytes(levels_CN)
    _columns_above(flat, stride, levels_CN.shape[1], np.uint8(most), above_C)
    if not above_C.any():
        return None
    column = int(above_C.argmax())
    return column, int((levels_CN[column].view(np.uint8) > most).argmax())


def _flat_bytes(values_CN: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
    """The memory of a matrix as one flat run of bytes and the column stride in bytes; compiled code loads it faster."""
    columns, rows = values_CN.shape
    width = rows * values_CN.itemsize
    if columns == 0 or values_CN.strides[0] < width:
        values_CN = np.ascontiguousarray(values_CN)
    stride = values_CN.strides[0]
    size = (columns - 1) * stride + width if values_CN.size else 0
    flat = np.lib.stride_tricks.as_strided(values_CN.view(np.uint8), (size,), (1,), writeable=False)
    return flat, stride

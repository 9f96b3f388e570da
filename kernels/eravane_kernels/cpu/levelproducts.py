"""Products of columns of levels, as whole numbers: by bytes, 64 rows to an instruction, where the processor can."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eravane_kernels.arrays import Double, Integers, Levels, Single
from eravane_kernels.cpu.jit import kernel
from eravane_kernels.cpu.vectors import WORD, function

# Numba may have been asked for code of another processor.
BY_BYTES = not (numba.config.CPU_NAME or numba.config.CPU_FEATURES) and bool(
    llvm.get_host_cpu_features().get("avx512vnni", False)
)
"""Whether the processor adds up products of bytes (AVX-512 VNNI)."""
VECTOR, SIDE = 64, 4
"""Rows of an instruction; columns of a tile on either side, whose sums stay in registers."""
BLOCK = 2048
"""Rows of a tile at a time: they fit into the first cache."""
_SUMS = ir.VectorType(ir.IntType(32), VECTOR // 4)

Whole = npt.NDArray[np.int32]
Products = Whole | Single


def level_products(x_S: Levels, start_U: Integers, rows: int) -> tuple[Products, Double] | None:
    """Products of all pairs of columns, [U, U] or more with zeros, and sums of columns [U]; None if a value is missing.

    Columns begin at start_U in x_S and hold levels. Products are below 2^24, so that float32 holds them exactly.
    """
    total_U = np.empty(len(start_U))
    if not BY_BYTES:
        single_UN = np.empty((len(start_U), rows), dtype=np.float32)
        return (single_UN @ single_UN.T, total_U) if _copy(x_S, start_U, rows, single_UN, total_U) else None
    padded, width = -(-len(start_U) // SIDE) * SIDE, -(-rows // VECTOR) * VECTOR
    memory = np.empty(padded * width + VECTOR, dtype=np.int8)  # loads that straddle two cache lines take twice the time
    byte_UP = memory[-memory.ctypes.data % VECTOR :][: padded * width].reshape(padded, width)
    if not _copy(x_S, start_U, rows, byte_UP, total_U):
        return None
    product_UU = np.zeros((padded, padded), dtype=np.int32)
    _multiply(byte_UP.ravel(), width, product_UU)
    return product_UU, total_U


@kernel
def _copy(x_S: Levels, start_U: Integers, rows: int, copy_UP: Levels | Single, total_U: Double) -> bool:
    """Fills in columns, followed by zeros, and their sums; returns whether no value is missing."""
    least = np.int8(0)
    copy_UP[start_U.shape[0] :] = 0
    for column in range(start_U.shape[0]):
        copy_P, value_N = copy_UP[column], x_S[start_U[column] : start_U[column] + rows]
        copy_P[rows:] = 0
        total = np.int32(0)
        for row in range(rows):
            value = value_N[row]
            copy_P[row] = value
            total += np.int32(value)
            least = min(least, value)
        total_U[column] = total
    return bool(least >= 0)


@kernel
def _multiply(byte_S: Levels, width: int, product_UU: Whole) -> None:
    """Adds the products of columns of `width` bytes, which follow each other."""
    columns, tile_SS = product_UU.shape[0], np.empty((SIDE, SIDE), dtype=np.int32)
    for first in range(0, width, BLOCK):
        rows = min(BLOCK, width - first)
        for left in range(0, columns, SIDE):
            for right in range(0, left + 1, SIDE):
                _tile(byte_S, left * width + first, right * width + first, width, rows, tile_SS)
                for one in range(SIDE):
                    for other in range(SIDE):
                        product_UU[left + one, right + other] += tile_SS[one, other]
    for left in range(columns):
        for right in range(left):
            product_UU[right, left] = product_UU[left, right]


@intrinsic  # type: ignore[untyped-decorator]
def _tile(_: Any, array: Any, left: Any, right: Any, width: Any, rows: Any, tile: Any) -> Any:
    """Fills in products of four columns with four others: where the first of either begin, bytes to the next, rows.

    Bytes of the left columns are read as unsigned, those of the right ones as signed.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data, found = (context.make_array(signature.args[at])(context, builder, args[at]).data for at in (0, 5))
        sums = [cgutils.alloca_once_value(builder, ir.Constant(_SUMS, None)) for _ in range(SIDE * SIDE)]
        add = function(builder, "llvm.x86.avx512.vpdpbusd.512", _SUMS, _SUMS, _SUMS, _SUMS)
        starts = [builder.add(side, builder.mul(args[3], WORD(place))) for side in args[1:3] for place in range(SIDE)]
        with cgutils.for_range(builder, builder.udiv(args[4], WORD(VECTOR))) as loop:
            row = builder.mul(loop.index, WORD(VECTOR))
            places = [builder.gep(data, [builder.add(start, row)]) for start in starts]
            vectors = [builder.load(builder.bitcast(place, _SUMS.as_pointer()), align=1) for place in places]
            for number, total in enumerate(sums):
                pair = vectors[number // SIDE], vectors[SIDE + number % SIDE]
                builder.store(builder.call(add, [builder.load(total), *pair]), total)
        reduce = function(builder, "llvm.vector.reduce.add.v16i32", ir.IntType(32), _SUMS)
        for number, total in enumerate(sums):
            builder.store(builder.call(reduce, [builder.load(total)]), builder.gep(found, [WORD(number)]))
        return context.get_dummy_value()

    return types.none(array, *[types.intp] * 4, tile), generate

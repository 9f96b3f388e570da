"""Bit planes of levels, counted two vectors at a time: the one loop that is written in LLVM's own terms.

Numba's vectoriser does not keep counters in vector registers while it asks for memory ahead, and has to add its vectors
up at the end of every short loop: 70 % of the speed of a plain read against 95 % (5,000 rows an era, one core).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 128
"""Bytes counted per turn of the loop."""
AHEAD = 8192
"""How far ahead of the counting cache lines are asked for, in bytes; measured. Past the array's end it is harmless."""

_WORD, _BYTE, _INTEGER = ir.IntType(64), ir.IntType(8), ir.IntType(32)
_VECTOR = ir.VectorType(_WORD, 8)
_LANES = 0x11


@intrinsic  # type: ignore[untyped-decorator]
def count_planes(_: Any, array: Any, start: Any, blocks: Any) -> Any:
    """Bit counts over blocks of 128 bytes from byte `start` of an int8 array, at any alignment.

    Returns six uint64: the bytes with bit 0, with bit 1, with bit 2, with bits 0 and 1, with bits 1 and 2, and a mask
    that is zero if every byte is one of 0..4 and -1.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        first = builder.gep(builder.bitcast(data, _BYTE.as_pointer()), [args[1]])
        totals = [cgutils.alloca_once_value(builder, _splat(0)) for _ in range(7)]
        with cgutils.for_range(builder, args[2]) as loop:
            block = builder.gep(first, [builder.mul(loop.index, _WORD(BLOCK))])
            _prefetch(builder, block)
            _count_block(builder, _load(builder, block), totals)
        *counts, unequal, broken = (builder.load(total) for total in totals)
        bad = builder.or_(builder.and_(unequal, _splat(0x78)), builder.and_(broken, _splat(_LANES)))
        results = [_reduce(builder, "add", count) for count in counts] + [_reduce(builder, "or", bad)]
        return context.make_tuple(builder, signature.return_type, results)

    return types.UniTuple(types.uint64, 6)(array, types.intp, types.intp), generate


def _count_block(builder: Any, vectors: tuple[Any, Any], totals: list[Any]) -> None:
    """Packs two vectors of bytes into one of half bytes, and adds the bit counts of its planes to the totals.

    Half a byte tells 0..4 and -1 apart: 0000, 0001, 0010, 0011, 0100, 1111. A byte is valid if its bits 3..7 are
    equal, and equal to (bit 0 and bit 2) and to (bit 1 and bit 2).
    """
    left, right = vectors
    low = builder.and_(left, _splat(0x0F))
    bit0 = builder.or_(low, builder.and_(builder.shl(right, _each(4)), _splat(0xF0)))
    bit1, bit2, bit3 = (builder.lshr(bit0, _each(places)) for places in (1, 2, 3))
    top = builder.and_(bit1, bit2)
    popcount = _function(builder, "llvm.ctpop.v8i64", _VECTOR, _VECTOR)
    planes = [bit0, bit1, bit2, builder.and_(bit0, bit1), top]
    for total, plane in zip(totals, planes, strict=False):
        count = builder.call(popcount, [builder.and_(plane, _splat(_LANES))])
        builder.store(builder.add(builder.load(total), count), total)
    steps = [builder.xor(vector, builder.lshr(vector, _each(1))) for vector in vectors]
    gaps = [builder.xor(part, bit3) for part in (builder.and_(bit0, bit2), top)]
    for total, (one, other) in zip(totals[len(planes) :], (steps, gaps), strict=True):
        builder.store(builder.or_(builder.load(total), builder.or_(one, other)), total)


def _load(builder: Any, block: Any) -> tuple[Any, Any]:
    """The two vectors of a block."""
    vectors = builder.bitcast(block, _VECTOR.as_pointer())
    left, right = (builder.load(builder.gep(vectors, [_WORD(place)]), align=1) for place in (0, 1))
    return left, right


def _prefetch(builder: Any, block: Any) -> None:
    """Asks for the two cache lines that lie AHEAD of a block, for reading, to keep."""
    function = _function(builder, "llvm.prefetch.p0", ir.VoidType(), block.type, _INTEGER, _INTEGER, _INTEGER)
    for offset in (AHEAD, AHEAD + BLOCK // 2):
        builder.call(function, [builder.gep(block, [_WORD(offset)]), _INTEGER(0), _INTEGER(3), _INTEGER(1)])


def _reduce(builder: Any, how: str, vector: Any) -> Any:
    return builder.call(_function(builder, f"llvm.vector.reduce.{how}.v8i64", _WORD, _VECTOR), [vector])


def _function(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _each(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * 8)


def _splat(byte: int) -> Any:
    return _each(byte * 0x0101010101010101)

"""Bit planes of levels, counted two vectors at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eravane_kernels.cpu.vectors import WORD, add_to, for_blocks, function, splat

_WORDS = ir.VectorType(WORD, 8)
_LANES = 0x11


@intrinsic  # type: ignore[untyped-decorator]
def count_planes(_: Any, array: Any, start: Any, blocks: Any, ahead: Any) -> Any:
    """Bit counts over blocks of 128 bytes from byte `start` of an int8 array, at any alignment.

    Memory is asked for `ahead` bytes before its use. Returns six uint64: the bytes with bit 0, with bit 1, with bit 2,
    with bits 0 and 1, with bits 1 and 2, and a mask that is zero if every byte is one of 0..4 and -1.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        totals = [cgutils.alloca_once_value(builder, _bytes(0)) for _ in range(7)]
        for_blocks(context, builder, signature.args[0], args, _WORDS, partial(_count, builder, totals))
        *counts, unequal, broken = (builder.load(total) for total in totals)
        bad = builder.or_(builder.and_(unequal, _bytes(0x78)), builder.and_(broken, _bytes(_LANES)))
        results = [_reduce(builder, "add", count) for count in counts] + [_reduce(builder, "or", bad)]
        return context.make_tuple(builder, signature.return_type, results)

    return types.UniTuple(types.uint64, 6)(array, types.intp, types.intp, types.intp), generate


def _count(builder: Any, totals: list[Any], vectors: list[Any]) -> None:
    """Packs two vectors of bytes into one of half bytes, and adds the bit counts of its planes to the totals.

    Half a byte distinguishes 0..4 and -1: 0000, 0001, 0010, 0011, 0100, 1111. A byte is valid if its bits 3..7 are
    equal, and equal to (bit 0 and bit 2) and to (bit 1 and bit 2).
    """
    left, right = vectors
    low, high = builder.and_(left, _bytes(0x0F)), builder.and_(builder.shl(right, splat(_WORDS, 4)), _bytes(0xF0))
    bit0 = builder.or_(low, high)
    bit1, bit2, bit3 = (builder.lshr(bit0, splat(_WORDS, places)) for places in (1, 2, 3))
    top = builder.and_(bit1, bit2)
    popcount = function(builder, "llvm.ctpop.v8i64", _WORDS, _WORDS)
    planes = [bit0, bit1, bit2, builder.and_(bit0, bit1), top]
    for total, plane in zip(totals, planes, strict=False):
        add_to(builder, total, builder.call(popcount, [builder.and_(plane, _bytes(_LANES))]), "add")
    for vector in vectors:
        add_to(builder, totals[-2], builder.xor(vector, builder.lshr(vector, splat(_WORDS, 1))), "or_")
    for part in (builder.and_(bit0, bit2), top):
        add_to(builder, totals[-1], builder.xor(part, bit3), "or_")


def _reduce(builder: Any, how: str, vector: Any) -> Any:
    return builder.call(function(builder, f"llvm.vector.reduce.{how}.v8i64", WORD, _WORDS), [vector])


def _bytes(value: int) -> ir.Constant:
    return splat(_WORDS, value * 0x0101010101010101)

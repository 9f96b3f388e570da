"""Sums of the gaps between float32 values and a shift, in the same order on every machine."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eravane_kernels.cpu.vectors import WORD, add_to, for_blocks, function, splat

_LANES, _CHAINS = 8, 4
_SINGLES, _DOUBLES = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(ir.DoubleType(), _LANES)
_INTEGER = ir.IntType(32)


@intrinsic  # type: ignore[untyped-decorator]
def sum_gaps(_: Any, array: Any, start: Any, blocks: Any, ahead: Any, shift: Any) -> Any:
    """Number, sum and sum of squares of value - shift over blocks of 32 float32 from byte `start`, NaN left out.

    Memory is asked for `ahead` bytes before its use. Returns three float64. Sums run in 32 lanes, four chains of
    eight, which are added up last.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = cgutils.alloca_once_value(builder, WORD(0))
        totals = [[cgutils.alloca_once_value(builder, splat(_DOUBLES, 0.0)) for _ in range(_CHAINS)] for _ in range(2)]
        shifts = _everywhere(builder, args[4])

        def add(vectors: list[Any]) -> None:
            for vector, *chain in zip(vectors, *totals, strict=True):
                _add(builder, builder.fsub(builder.fpext(vector, _DOUBLES), shifts), count, *chain)

        for_blocks(context, builder, signature.args[0], args, _SINGLES, add)
        counted = builder.uitofp(builder.load(count), ir.DoubleType())
        results = [_reduce(builder, [builder.load(chain) for chain in chains]) for chains in totals]
        return context.make_tuple(builder, signature.return_type, [counted, *results])

    return types.UniTuple(types.float64, 3)(array, types.intp, types.intp, types.intp, types.float64), generate


def _add(builder: Any, gap: Any, count: Any, total: Any, squares: Any) -> None:
    """Adds a vector of gaps to the number, the sum and the sum of squares; NaN adds nothing."""
    held = builder.fcmp_ordered("==", gap, gap)
    known = builder.select(held, gap, splat(_DOUBLES, 0.0))
    lanes = builder.zext(builder.bitcast(held, ir.IntType(_LANES)), WORD)
    add_to(builder, count, builder.call(function(builder, "llvm.ctpop.i64", WORD, WORD), [lanes]), "add")
    add_to(builder, total, known, "fadd")
    fused = function(builder, "llvm.fma.v8f64", _DOUBLES, _DOUBLES, _DOUBLES, _DOUBLES)
    builder.store(builder.call(fused, [known, known, builder.load(squares)]), squares)


def _everywhere(builder: Any, value: Any) -> Any:
    """A vector with a value known at run time in every lane."""
    unset = ir.Constant(_DOUBLES, ir.Undefined)
    first = builder.insert_element(unset, value, _INTEGER(0))
    return builder.shuffle_vector(first, unset, splat(ir.VectorType(_INTEGER, _LANES), 0))


def _reduce(builder: Any, chains: list[Any]) -> Any:
    """Chains added pairwise, then lanes from the first to the last."""
    vector = builder.fadd(builder.fadd(chains[0], chains[1]), builder.fadd(chains[2], chains[3]))
    total = builder.extract_element(vector, _INTEGER(0))
    for lane in range(1, _LANES):
        total = builder.fadd(total, builder.extract_element(vector, _INTEGER(lane)))
    return total

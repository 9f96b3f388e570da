"""Numba, set up once: compiled functions are cached on disk, release the GIL and use one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compiles a function in strict floating-point order."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def summing(function: Function) -> Function:
    """Compiles a function whose sums may be split over vector lanes; infinities and NaN keep their meaning."""
    return cast(Function, numba.njit(cache=True, nogil=True, fastmath={"reassoc"})(function))


def _bytes_at(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [offset], inbounds=True)


@intrinsic  # type: ignore[untyped-decorator]
def word(_: Any, array: Any, start: Any, index: Any) -> Any:
    """The 64-bit word number `index` after byte `start` of an array, at any alignment."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = _bytes_at(context, builder, signature.args[0], args[0], args[1])
        words = builder.bitcast(first, ir.IntType(64).as_pointer())
        return builder.load(builder.gep(words, [args[2]], inbounds=True), align=1)

    return types.uint64(array, types.intp, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def popcount(_: Any, value: Any) -> Any:
    """Number of one bits of a 64-bit word."""

    def generate(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)]), args)

    return types.uint64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_: Any, array: Any, offset: Any) -> Any:
    """Asks for the cache line at a byte of an array; an address past its end is harmless."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = _bytes_at(context, builder, signature.args[0], args[0], args[1])
        integer, name = ir.IntType(32), "llvm.prefetch.p0"
        declared = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(ir.VoidType(), [line.type, integer, integer, integer]), name
        )
        builder.call(declared, [line, integer(0), integer(3), integer(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate

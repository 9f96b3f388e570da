"""Memory by its address, and threads that wait for each other, inside compiled functions."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eravane_kernels.arrays import Integers, Levels
from eravane_kernels.cpu.jit import kernel

PATIENCE = 4096
"""Turns of waiting before the processor is offered to others."""


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.CPointer(types.int8)(types.int64), generate


@kernel
def levels_at(address: int, rows: int) -> Levels:
    """int8 [rows] that lie at an address; the caller keeps them alive."""
    view: Levels = numba.carray(_pointer(address), (rows,), np.int8)
    return view


@intrinsic  # type: ignore[untyped-decorator]
def borrowed(_: Any, values: Any) -> Any:
    """A named tuple whose arrays are not counted as used: the caller keeps them alive.

    Threads would count, at every view of an array, in the same place of memory, and wait for each other there.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = args[0]
        for place, kind in enumerate(signature.args[0].types):
            if isinstance(kind, types.Array):
                array = context.make_array(kind)(context, builder, builder.extract_value(args[0], place))
                array.meminfo = cgutils.get_null_value(array.meminfo.type)
                array.parent = cgutils.get_null_value(array.parent.type)
                found = builder.insert_value(found, array._getvalue(), place)
        return found

    return values(values), generate


@intrinsic  # type: ignore[untyped-decorator]
def _add(_: Any, array: Any, value: Any) -> Any:
    """Adds to the first element of an int64 array, seen by all threads; returns what was there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, args[1], "seq_cst")

    return types.int64(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _give_way(_: Any) -> Any:
    """Lets other threads run."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), ())
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), ())
        return context.get_dummy_value()

    return types.none(), generate


@kernel
def taken(counter: Integers) -> int:
    """The next number of a counter that threads share."""
    return int(_add(counter, 1))


@kernel
def meet(arrived: Integers, threads: int) -> None:
    """Waits until all threads have arrived; their earlier writes are visible to all afterwards.

    arrived: int64 [1], shared, 0 at first.
    """
    if threads == 1:
        return
    target = (_add(arrived, 1) // threads + 1) * threads
    turns = 0
    while _add(arrived, 0) < target:
        turns += 1
        if turns > PATIENCE:
            _give_way()

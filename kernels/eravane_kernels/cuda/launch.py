"""Launches of the kernels: grids, shared memory, scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eravane_kernels.arrays import LEVELS, MISSING, SLOTS, Integers
from eravane_kernels.cuda.inputs import LONGEST_RUN, Array, stride
from eravane_kernels.cuda.runtime import active, upload

THREADS = 256
"""Threads of a block, as THREADS in cu/*.cu."""
WARPS = THREADS // 32
LARGEST_GRID = 2**31 - 1
LONGEST_SORT = 2**28
SHARED_DEFAULT = 48 << 10
SHARED_STATIC = 1 << 10
"""Set aside for the static shared memory of kernels that ask for dynamic shared memory."""
BLOCKS_PER_PROCESSOR = 3
STRETCH_BYTES, MOST_ERAS = 1 << 16, 256
"""Bytes of a column that a warp of cu/levels.cu reads at once, and eras of it."""


@dataclass(frozen=True)
class Runs:
    """The row ranges of every column that a launch works through, one per era.

    begin_E, end_E: int64 on the host.
    """

    begin_E: Integers
    end_E: Integers
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Eras, columns."""
        return len(self.begin_E), self.columns

    @property
    def number(self) -> int:
        """Number of runs."""
        return len(self.begin_E) * self.columns

    @property
    def longest(self) -> int:
        """Rows of the longest run."""
        return int((self.end_E - self.begin_E).max(initial=0))

    def of(self, x_CN: Array) -> tuple[Any, ...]:
        """The first arguments of every kernel: values, their stride, begins, ends, number of eras and of columns."""
        begin_E, end_E = upload(np.stack([self.begin_E, self.end_E]))
        return x_CN, stride(x_CN), begin_E, end_E, np.int64(len(self.begin_E)), np.int64(self.columns)

    def empty(self, dtype: type[np.generic]) -> Array:
        """An uninitialised result [E, C]."""
        return active().xp.empty(self.shape, dtype=dtype)

    def slices(self) -> Iterator[tuple[int, slice]]:
        """Number and rows of every era that has rows."""
        for era, (first, last) in enumerate(zip(self.begin_E.tolist(), self.end_E.tolist(), strict=True)):
            if last > first:
                yield era, slice(first, last)

    def check(self, x_CN: Array, name: str, wanted: str) -> None:
        """Raises ValueError as `reject` for the first value that is not as wanted."""
        bad_EC = active().xp.zeros(self.shape, dtype=np.bool_)
        for era, rows in self.slices():
            bad_EC[era] = _UNWANTED[wanted](x_CN[:, rows]).any(axis=1)
        self.reject(bad_EC, x_CN, name, wanted)

    def reject(self, bad_EC: Array, x_CN: Array, name: str, wanted: str) -> None:
        """Raises ValueError for the first run that a kernel marked, naming column, row and value.

        wanted: which values are right, one of LEVEL, PRESENT, NOT_INFINITE and FINITE.
        """
        if not bool(bad_EC.any()):
            return
        host = active().host
        column, era = (int(at) for at in np.argwhere(host(bad_EC).T)[0])
        first = int(self.begin_E[era])
        values = host(x_CN[column, first : int(self.end_E[era])])
        row = int(np.argmax(_UNWANTED[wanted](values)))
        raise ValueError(f"{name}: expected {wanted}, given {values[row]} at column {column}, row {first + row}")


@dataclass(frozen=True)
class Stretches:
    """Eras that a warp takes one after the other in each column: as many as fit into STRETCH_BYTES, at least one.

    group_G1: first era of each stretch, int64 on the host.
    """

    offsets_E1: Integers
    group_G1: Integers
    columns: int

    @property
    def warps(self) -> int:
        """Stretches in all columns."""
        return (len(self.group_G1) - 1) * self.columns

    def of(self, x_CN: Array) -> tuple[Any, ...]:
        """First arguments of cu/levels.cu: values, their stride, offsets, groups, their number and that of columns."""
        groups = np.int64(len(self.group_G1) - 1)
        return x_CN, stride(x_CN), upload(self.offsets_E1), upload(self.group_G1), groups, np.int64(self.columns)


def stretches(offsets_E1: Integers, columns: int) -> Stretches:
    """Stretches of the eras, for levels of a byte each."""
    first, last = [0], len(offsets_E1) - 1
    while last and first[-1] < last:
        fitting = int(np.searchsorted(offsets_E1, offsets_E1[first[-1]] + STRETCH_BYTES, side="right")) - 1
        first.append(min(max(fitting, first[-1] + 1), first[-1] + MOST_ERAS, last))
    return Stretches(offsets_E1, np.array(first, dtype=np.int64), columns)


LEVEL = "levels 0..4 or -1 for missing"
PRESENT = "levels 0..4, missing values filled before"
NOT_INFINITE = "finite values or NaN for missing"
FINITE = "finite values"
_UNWANTED: dict[str, Callable[[Any], Any]] = {
    LEVEL: lambda values: (values < MISSING) | (values >= LEVELS),
    PRESENT: lambda values: (values < 0) | (values >= LEVELS),
    NOT_INFINITE: np.isinf,
    FINITE: lambda values: ~np.isfinite(values),
}


def runs(offsets_E1: Integers, columns: int, window: int = 0) -> Runs:
    """Runs of the eras, each pooled with the `window` eras before it. Raises: ValueError where one is too long."""
    last = len(offsets_E1) - 1
    first_E = np.maximum(np.arange(last) - window, 0)
    found = Runs(offsets_E1[first_E], offsets_E1[1:].copy(), columns)
    if found.longest > LONGEST_RUN:
        raise ValueError(f"offsets_E1: expected runs of at most {LONGEST_RUN} rows, given one of {found.longest}")
    return found


def launch(file: str, kernel: str, blocks: int, *arguments: object, shared: int = 0, times: int = 1) -> None:
    """Runs a kernel of cu/`file`.cu on `blocks` blocks, or on as many as a grid holds, `times` times side by side.

    A block knows its turn as blockIdx.y. Numbers among the arguments are NumPy scalars of the parameter's type. Raises
    what CuPy raises for a launch that fails.
    """
    if blocks == 0:
        return
    function = active().kernel(file, kernel)
    if shared + SHARED_STATIC > SHARED_DEFAULT:
        # The most there is: a lower one could come between another thread's setting and its launch.
        function.max_dynamic_shared_size_bytes = active().shared_bytes - SHARED_STATIC
    function((min(blocks, LARGEST_GRID), times), (THREADS,), arguments, shared_mem=shared)


def blocks_of_warps(number: int) -> int:
    """Blocks for a kernel that gives every run a warp."""
    return -(-number // WARPS)


def made_table(kernel: str, shape: tuple[int, int], *given: Array, after: tuple[Array, ...] = ()) -> Array:
    """Tables int8 [E, C, 6] that a kernel of cu/tables.cu makes of arrays, a thread a table."""
    table_ECL, cells = active().xp.empty((*shape, SLOTS), dtype=np.int8), shape[0] * shape[1]
    launch("tables", kernel, -(-cells // THREADS), *given, np.int64(cells), table_ECL, *after)
    return table_ECL


@dataclass(frozen=True)
class Room:
    """Memory for the keys of a sorting kernel's blocks.

    shared: bytes of dynamic shared memory; scratch and places: global memory and each block's share of it (0 where
    shared memory is enough); blocks: how many to launch.
    """

    shared: int
    scratch: Array
    places: np.int64
    blocks: int


def room(number: int, longest: int, key: type[np.unsignedinteger[Any]]) -> Room:
    """Room to sort `number` runs of up to `longest` keys. Raises: ValueError for a run too long to sort."""
    if longest > LONGEST_SORT:
        raise ValueError(f"offsets_E1: expected at most {LONGEST_SORT} rows to sort in one run, given {longest}")
    runtime, size = active(), np.dtype(key).itemsize
    places = _places(longest)
    if places * size + SHARED_STATIC <= runtime.shared_bytes:
        return Room(places * size, runtime.xp.empty(1, dtype=key), np.int64(0), number)
    blocks = min(number, BLOCKS_PER_PROCESSOR * runtime.processors)
    return Room(0, runtime.xp.empty(blocks * places, dtype=key), np.int64(places), blocks)


def _places(rows: int) -> int:
    """Places of the slots that a run of `rows` keys is sorted in: `place` of cu/sort.cuh, after the last."""
    slots = 1 << max(rows - 1, 0).bit_length()
    return slots + (slots - 1) // 32

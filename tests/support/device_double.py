"""Doubles of the GPU libraries over NumPy: enough of each to run the backend's own arithmetic without a device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from eravane.backend import choice
from eravane_kernels.cuda import runtime
from tests.support.emulator import emulated_runtime

MEMORY = 8 << 30


class Array(np.ndarray):
    """A CuPy array's two methods that NumPy has not."""

    def set(self, values: np.ndarray, stream: Any = None) -> None:
        assert self.flags.c_contiguous, "CuPy cannot set a view with gaps"
        self[...] = values

    def get(self) -> np.ndarray:
        return np.array(self, copy=True, subok=False)


def _empty(shape: Any, dtype: Any = float) -> Array:
    made = np.empty(shape, dtype).view(Array)
    made.view(np.uint8).fill(0xA5)  # memory fresh from a device holds anything
    return made


class Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        self.synchronised = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        self.synchronised += 1

    def record(self) -> object:
        return object()

    def wait_event(self, _event: object) -> None:
        pass


CURRENT = Stream()


class _Kernel:
    def get_function(self, _name: str) -> Any:
        def launch(_grid: Any, _block: Any, arguments: tuple[Array]) -> None:
            arguments[0][:] = np.arange(arguments[0].size)

        return launch


def _asarray(values: Any) -> Array:
    """Without a copy, also of what speaks the protocol of CUDA arrays."""
    face = getattr(values, "__cuda_array_interface__", None)
    if face is not None:
        values = np.asarray(SimpleNamespace(__array_interface__=face, owner=values))
    return np.asarray(values).view(Array)


def cupy() -> ModuleType:
    module = ModuleType("cupy")
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1,
        memGetInfo=lambda: (MEMORY, MEMORY),
        getDeviceProperties=lambda _number: {"name": b"Double 1000", "totalGlobalMem": MEMORY},
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        Device=lambda: SimpleNamespace(id=0),
        Stream=Stream,
        get_current_stream=lambda: CURRENT,
        alloc_pinned_memory=lambda size: bytearray(size),
        set_allocator=lambda _allocator: None,
    )
    vars(module).update(
        cuda=cuda,
        ndarray=Array,
        empty=_empty,
        stack=lambda arrays: np.stack(arrays).view(Array),
        get_default_pinned_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None),
        zeros=lambda shape, dtype: np.zeros(shape, dtype).view(Array),
        asarray=_asarray,
        asnumpy=lambda values: np.array(values, copy=True, subok=False),
        unpackbits=lambda values, bitorder: np.unpackbits(values, bitorder=bitorder).view(Array),
        RawModule=lambda code: _Kernel(),
        get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None),
        uint8=np.uint8,
        int32=np.int32,
        float32=np.float32,
        nan=np.nan,
    )
    return module


def pylibcudf(chunk_rows: int) -> ModuleType:
    """Reads with Arrow, `chunk_rows` rows at a time; every column comes with a mask, as optional ones do."""

    class Column:
        def __init__(self, array: Any) -> None:
            self._array = array

        def type(self) -> Any:
            name = {"float": "float32", "double": "float64"}.get(str(self._array.type), str(self._array.type))
            return SimpleNamespace(id=lambda: SimpleNamespace(name=name.upper()))

        def null_count(self) -> int:
            return int(self._array.null_count)

        def size(self) -> int:
            return len(self._array)

        def data(self) -> np.ndarray:
            filled = self._array.fill_null(0).to_numpy(zero_copy_only=False)
            return np.ascontiguousarray(filled).view(np.uint8)

        def null_mask(self) -> np.ndarray:
            return np.packbits(self._array.is_valid().to_numpy(zero_copy_only=False), bitorder="little")

    class Reader:
        def __init__(self, options: Any, chunk_read_limit: int, pass_read_limit: int) -> None:
            assert chunk_read_limit > 0
            assert pass_read_limit > 0
            table = pq.ParquetFile(options.path).read_row_groups(options.groups, columns=options.columns)
            self._batches = table.combine_chunks().to_batches(max_chunksize=chunk_rows)

        def has_next(self) -> bool:
            return bool(self._batches)

        def read_chunk(self) -> Any:
            batch = self._batches.pop(0)
            table = SimpleNamespace(
                columns=lambda: [Column(column) for column in batch.columns], num_rows=lambda: batch.num_rows
            )
            return SimpleNamespace(column_names=lambda include_children: batch.schema.names, tbl=table)

    class Options:
        def __init__(self, path: str) -> None:
            self.path, self.columns, self.groups = path, None, None

        @staticmethod
        def builder(source: str) -> Any:
            return SimpleNamespace(build=lambda: Options(source))

        def set_column_names(self, col_names: list[str]) -> None:
            self.columns = col_names

        def set_row_groups(self, row_groups: list[list[int]]) -> None:
            (self.groups,) = row_groups

    module = ModuleType("pylibcudf")
    parquet = SimpleNamespace(ParquetReaderOptions=Options, ChunkedParquetReader=Reader)
    vars(module).update(io=SimpleNamespace(parquet=parquet, SourceInfo=lambda paths: paths[0]))
    return module


@contextmanager
def installed(chunk_rows: int = 100) -> Iterator[None]:
    """The doubles in place of the libraries, kernels emulated, and `eravane.backend.cuda` imported anew with them."""
    doubles = {"cupy": cupy(), "pylibcudf": pylibcudf(chunk_rows)}
    ours = ("eravane.backend.cuda", "eravane.backend.cuda_memory", "eravane.backend.cuda_parquet")
    held = {name: sys.modules.get(name) for name in (*doubles, *ours)}
    for name, module in doubles.items():
        module.__spec__ = ModuleSpec(name, None)
    sys.modules.update(doubles)
    for name in ours:
        sys.modules.pop(name, None)
    choice.backend_of.cache_clear()
    real, runtime.cupy_runtime = runtime.cupy_runtime, cache(partial(emulated_runtime, 2))
    try:
        yield
    finally:
        runtime.cupy_runtime = real
        choice.backend_of.cache_clear()
        for name, module in held.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module

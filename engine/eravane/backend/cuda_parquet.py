"""Parquet decoded on an NVIDIA GPU by cuDF's chunked reader (libcudf), checked and put in the store's order there.

A read takes some columns of a row group; what comes to the host is one matrix [columns, rows] of the store's bytes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cupy as cp
import numpy as np
from numpy.typing import NDArray

from eravane.backend.protocol import Backend, Decode, Decoded, taken
from eravane.core.errors import DeviceError

CHUNK_BYTES = 1 << 30
# libcudf's names of the types that become a store's.
KINDS: dict[str, dict[str, type]] = {
    "int8": {"INT8": np.int8},
    "float32": {"FLOAT32": np.float32, "FLOAT64": np.float64},
}


def decoder(backend: Backend) -> Decode:
    """A function that decodes columns of a row group; see `protocol.Decode`.

    Args:
        backend: the device.

    Raises:
        DeviceError: libcudf's bindings are missing; of the function: libcudf fails, or its memory does not suffice.
    """
    if importlib.util.find_spec("pylibcudf") is None:
        raise DeviceError(
            "parquet is decoded on a GPU by pylibcudf, which is not installed; install eravane with the extra cu12 or "
            "cu13, or ingest with --device cpu"
        )

    def decode(path: Path, group: int, names: Sequence[str], dtype: str, row_N: NDArray[np.int32]) -> Decoded | None:
        what = f"row group {group} of {path}, columns {names[0]!r} to {names[-1]!r},"
        try:
            return taken(lambda: _decoded(path, group, names, dtype, row_N), what, lambda: backend)
        except DeviceError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DeviceError(f"{what} cannot be decoded by libcudf ({reason}); ingest with --device cpu") from error

    return decode


def _decoded(path: Path, group: int, names: Sequence[str], dtype: str, row_N: NDArray[np.int32]) -> Decoded | None:
    import pylibcudf as plc

    from eravane_kernels.cuda.placing import place_columns
    from eravane_kernels.spec.placing import REFUSED

    options = plc.io.parquet.ParquetReaderOptions.builder(plc.io.SourceInfo([str(path)])).build()
    options.set_column_names(list(names))
    options.set_row_groups([[group]])
    reader = plc.io.parquet.ChunkedParquetReader(options, chunk_read_limit=CHUNK_BYTES, pass_read_limit=CHUNK_BYTES)
    rows, begun, values_CR, worst = int(row_N.max(initial=-1)) + 1, 0, None, 0
    while reader.has_next():
        chunk = reader.read_chunk()
        held = dict(zip(chunk.column_names(include_children=False), chunk.tbl.columns(), strict=True))
        columns = [held[name] for name in names]
        kinds = {column.type().id().name for column in columns}
        if len(kinds) > 1 or not kinds <= KINDS[dtype].keys():
            return None
        kind, place_N = KINDS[dtype][kinds.pop()], row_N[begun : begun + columns[0].size()]
        values = [_array(column.data(), kind)[: column.size()] for column in columns]
        bits = [_array(column.null_mask(), np.uint8) if column.null_count() else None for column in columns]
        values_CR, fault_C = place_columns(values, bits, place_N, rows, values_CR)
        worst, begun = max(worst, int(fault_C.max())), begun + len(place_N)
        if worst >= REFUSED:
            return None
    return Decoded(cp.asnumpy(values_CR), worst == 0)


def _array(memory: object, dtype: object) -> Any:
    """Memory of a column as a CuPy array; columns of a reader begin where their memory does."""
    return cp.asarray(memory).view(dtype)

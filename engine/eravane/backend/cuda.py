"""An NVIDIA GPU as a device: CuPy arrays, filled from host memory in chunks of bounded size.

Importing this module imports CuPy; RMM and libcudf's bindings are imported where they are used and may be
absent. Written against CuPy 14 and RAPIDS 26.x; `tests/backend/contracts` holds the calls against these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, cast

import cupy as cp
import numpy as np
from numpy.typing import NDArray

from eravane.backend.cuda_memory import free_bytes, reclaim, use_pool
from eravane.backend.protocol import Backend, Decode, DeviceTable, Log, Part, Pool, taken
from eravane.core.arrays import Values
from eravane.core.errors import OutOfDeviceMemoryError
from eravane.core.units import format_size
from eravane_kernels.namespace import Kernels

STAGING_BYTES = 64 << 20
# Columns begin at multiples of this, as bulk copies within the device ask for.
ALIGNMENT = 128
_PROBE = 'extern "C" __global__ void probe(int* out) { out[threadIdx.x] = threadIdx.x; }'


def probe() -> str | None:
    """Why the GPU does not work, or None: a kernel is compiled, run and read back."""
    try:
        if cp.cuda.runtime.getDeviceCount() == 0:
            return "the driver reports no CUDA device"
        out = cp.zeros(32, dtype=cp.int32)
        cp.RawModule(code=_PROBE).get_function("probe")((1,), (32,), (out,))
        if not np.array_equal(out.get(), np.arange(32)):
            return "a test kernel gave wrong results"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None


class CudaBackend:
    """CuPy arrays and the CUDA kernels on the current device.

    Args:
        pool: "async" puts cuDF and CuPy on the driver's asynchronous pool, "pool" on a growing pool of RMM's own,
            "none" leaves both libraries to themselves.
        log: called with the device and its memory.
    """

    name = "cuda"
    xgboost_device = "cuda"
    torch_device = "cuda"

    def __init__(self, pool: Pool, log: Log) -> None:
        properties = cp.cuda.runtime.getDeviceProperties(cp.cuda.Device().id)
        name, size = properties["name"].decode(), properties["totalGlobalMem"]
        described, self._unused = use_pool(pool)
        others = cp.cuda.runtime.getDeviceCount() - 1
        beside = f'; {others} more visible, which compute.scheduler = "local" uses, too' if others else ""
        log(f"device cuda: {name}, {format_size(size)}, {described}{beside}")
        self._staging: list[_Staging] = []
        self._sending = threading.Lock()

    @property
    def kernels(self) -> Kernels:
        """The CUDA kernels; where memory runs out they are tried once more, after cached blocks were given back."""
        from eravane_kernels import cuda

        return cast(Kernels, Retried(cast(Kernels, cuda), self))

    def room(self) -> int:
        """Bytes that can still be allocated: free memory of the driver and unused memory of the pool."""
        return free_bytes(self._unused)

    def decoder(self) -> Decode:
        """Decodes, checks and sorts columns of a parquet file; see `cuda_parquet`."""
        from eravane.backend.cuda_parquet import decoder

        return decoder(self)

    def reclaim(self) -> None:
        """Return cached blocks to the driver, for libraries with pools of their own."""
        reclaim()

    def to_device(self, values: object) -> Any:
        """A CuPy array; itself where it is one already."""
        return taken(lambda: cp.asarray(values), "an array that is sent", lambda: self)

    def hold(self, shape: tuple[int, int], dtype: str) -> Values:
        """An unwritten matrix [C, N] whose columns begin at multiples of 128 bytes."""
        step = -(-shape[1] * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT // np.dtype(dtype).itemsize
        what = f"a matrix of {shape[0]} columns x {shape[1]} rows"
        needed = shape[0] * step * np.dtype(dtype).itemsize
        if needed > self.room():
            reclaim()
        if needed > (room := self.room()):
            raise OutOfDeviceMemoryError(
                f"{what} needs {format_size(needed)}, the GPU has {format_size(room)} free; take fewer eras or columns"
            )
        matrix: Values = taken(lambda: cp.empty((shape[0], step), dtype=dtype), what, lambda: self)
        return matrix[:, : shape[1]]

    def load(self, parts: Iterable[Part], shape: tuple[int, int], dtype: str) -> Values:
        """One matrix [C, N], filled by `fill`."""
        matrix = self.hold(shape, dtype)
        self.fill(matrix, parts)
        return matrix

    def fill(self, matrix: Values, parts: Iterable[Part]) -> None:
        """Write parts into a matrix through two pinned buffers, so that copying and sending overlap."""
        with self._sending:
            try:
                for start, values in parts:
                    rows = slice(start, start + values.shape[1])
                    width = max(1, STAGING_BYTES // max(1, values.shape[1] * values.itemsize))
                    for first in range(0, values.shape[0], width):
                        block = values[first : first + width]
                        self._next_staging().send(block, matrix[first : first + block.shape[0], rows])
            finally:  # a matrix that goes after an error must not be written any more
                self._settle()

    def stream(self, matrices: Iterable[Values]) -> Iterator[Values]:
        """Matrices one by one on the device; the next is sent while the caller works on the last."""
        pair = [_Staging(self), _Staging(self)]  # of its own: others send meanwhile
        ready: Values | None = None
        try:
            for number, values in enumerate(matrices):
                staging, arriving = pair[number % 2], self.hold(values.shape, str(values.dtype))
                staging.send(values, arriving)
                if ready is not None:
                    yield ready
                staging.wait()
                ready = arriving
            if ready is not None:
                yield ready
        finally:  # where the caller stops early, one is still on its way into memory that goes now
            for staging in pair:
                staging.wait()

    def columns_of(self, matrix: Values, places: NDArray[np.int64], rows: slice) -> Values:
        """Rows of some columns of a matrix: a view where they are evenly spaced, else a copy on the device."""
        step_C = np.diff(places)
        if places.size == 1 or (places.size and step_C[0] > 0 and (step_C == step_C[0]).all()):
            step = int(step_C[0]) if step_C.size else 1
            return matrix[int(places[0]) : int(places[-1]) + 1 : step, rows]
        found = self.hold((places.size, rows.stop - rows.start), str(matrix.dtype))
        cuts = np.flatnonzero(step_C != 1) + 1
        for start, run in zip([0, *cuts.tolist()], np.split(places, cuts), strict=True):
            found[start : start + run.size] = matrix[int(run[0]) : int(run[0]) + run.size, rows]
        return found

    def joined(self, parts: Sequence[Values]) -> Values:
        """Matrices side by side, [C, n1 + n2 + ...]."""
        matrix = self.hold((parts[0].shape[0], sum(part.shape[1] for part in parts)), str(parts[0].dtype))
        start = 0
        for part in parts:
            matrix[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        return matrix

    def table(self, values_CN: Values, names: Sequence[str]) -> DeviceTable:
        """The matrix under its names: XGBoost reads it where it lies, and a frame of cuDF would be copied by both."""
        return DeviceTable(values_CN, tuple(names))

    def _next_staging(self) -> _Staging:
        """The buffer that was used longest ago, its last transfer done."""
        if len(self._staging) < 2:
            self._staging.append(_Staging(self))
        else:
            self._staging.append(self._staging.pop(0))
        self._staging[-1].make_room(STAGING_BYTES)
        return self._staging[-1]

    def _settle(self) -> None:
        for staging in self._staging:
            staging.wait()


class _Staging:
    """A pinned host buffer, a device buffer of the same size and the stream between them."""

    def __init__(self, backend: Backend) -> None:
        self._stream = cp.cuda.Stream(non_blocking=True)
        self._size, self._backend = 0, backend

    def make_room(self, size: int) -> None:
        self.wait()
        if size > self._size:
            self._pinned = np.frombuffer(cp.cuda.alloc_pinned_memory(size), dtype=np.uint8, count=size)
            self._device = taken(
                lambda: cp.empty(size, dtype=cp.uint8), "a buffer to send through", lambda: self._backend
            )
            cp.cuda.get_current_stream().synchronize()
            self._size = size

    def send(self, values: Values, target: Values) -> None:
        """Copy values [C, n] into the pinned buffer and start their way into a device view of the same shape."""
        if not values.size:
            return
        self.make_room(values.nbytes)
        pinned = self._pinned[: values.nbytes].view(values.dtype).reshape(values.shape)
        pinned[...] = values
        self._stream.wait_event(cp.cuda.get_current_stream().record())
        arrived = self._device[: values.nbytes].view(values.dtype).reshape(values.shape)
        with self._stream:
            arrived.set(pinned, stream=self._stream)
            target[...] = arrived

    def wait(self) -> None:
        """Block until everything that was sent has arrived."""
        self._stream.synchronize()


class Retried:
    """The kernels' namespace, its functions called again where the memory of the device ran out."""

    def __init__(self, kernels: Kernels, backend: Backend) -> None:
        self._kernels, self._backend = kernels, backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._kernels, name)

        @wraps(function)
        def call(*arguments: object, **options: object) -> Any:
            return taken(lambda: function(*arguments, **options), f"what {name} works with", lambda: self._backend)

        setattr(self, name, call)
        return call

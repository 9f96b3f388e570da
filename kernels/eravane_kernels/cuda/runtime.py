"""The device that the launchers work on: its array library, its compiled kernels, its limits.

On a GPU that is CuPy. Tests put doubles of CuPy and of the GPU in its place by `use`; the launchers are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent.parent / "cu"
# CuPy adds -ftz=true; see cu/floats.cuh. Without contraction, + - * / and sqrt are the host's, bit for bit.
OPTIONS = ("-std=c++17", "--fmad=false")
LEAST_CAPABILITY = 80

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


@dataclass(frozen=True)
class Runtime:
    """Functions and facts of a device that the launchers use.

    xp: CuPy, or its double; kernel: the compiled kernel of a file in cu/, as `cupy.RawKernel`; host: copies an array to
    NumPy; address: of an array's first value; cholesky: raises LinAlgError for a matrix that is not positive definite;
    solve_triangular: as SciPy's; record: remembers launches without running them, and returns what runs all of them, in
    the order of other launches; shared_bytes: most shared memory of a block; processors: of the device.
    """

    xp: Any
    kernel: Callable[[str, str], Any]
    host: Callable[[Any], Any]
    address: Callable[[Any], int]
    cholesky: Callable[[Any], Any]
    solve_triangular: Callable[..., Any]
    record: Callable[[Callable[[], None]], Callable[[], None]]
    shared_bytes: int
    processors: int


_override: ContextVar[Runtime | None] = ContextVar("runtime", default=None)


def active() -> Runtime:
    """The runtime in use: the one given to `use`, else CuPy's for the current device."""
    return _override.get() or cupy_runtime()


@contextmanager
def use(runtime: Runtime) -> Iterator[None]:
    """Makes the launchers work on another runtime for a while."""
    token = _override.set(runtime)
    try:
        yield
    finally:
        _override.reset(token)


def source(name: str) -> str:
    """CUDA C++ of cu/`name`.cu with its headers in place.

    `#line` directives make a compiler's messages name the file they are about, by its bare name: CuPy's cache of
    compiled kernels is keyed by the source, which must not depend on where the package lies.
    """
    file = f"{name}.cu"
    return f'#line 1 "{file}"\n' + _inline((SOURCES / file).read_text(encoding="utf-8"), file, set())


def _inline(text: str, name: str, seen: set[str]) -> str:
    text = text.replace("#pragma once\n", "\n")

    def replace(match: re.Match[str]) -> str:
        header = match.group(1)
        if header in seen:
            return ""
        seen.add(header)
        after = text.count("\n", 0, match.end()) + 2
        body = _inline((SOURCES / header).read_text(encoding="utf-8"), header, seen)
        return f'#line 1 "{header}"\n{body}\n#line {after} "{name}"'

    return _INCLUDE.sub(replace, text)


def cupy_runtime() -> Runtime:
    """CuPy on the current device. Raises: RuntimeError for a device of compute capability below 8.0."""
    import cupy

    return _cupy_runtime(int(cupy.cuda.Device().id))


@cache
def _cupy_runtime(device: int) -> Runtime:
    import cupy
    import cupyx
    from cupyx.scipy.linalg import solve_triangular

    handle = cupy.cuda.Device(device)
    if int(handle.compute_capability) < LEAST_CAPABILITY:
        raise RuntimeError(
            f"the kernels need compute capability 8.0 or more, device {device} has {handle.compute_capability}"
        )

    @cache
    def module(file: str) -> Any:
        return cupy.RawModule(code=source(file), options=OPTIONS)

    @cache
    def kernel(file: str, name: str) -> Any:
        return module(file).get_function(name)

    def cholesky(matrix: object) -> Any:
        with cupyx.errstate(linalg="raise"):
            return cupy.linalg.cholesky(matrix)

    def record(work: Callable[[], None]) -> Callable[[], None]:
        # The legacy stream cannot be captured; the graph is launched on the stream that is current then.
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                work()
            finally:
                graph = stream.end_capture()
        replay: Callable[[], None] = graph.launch
        return replay

    return Runtime(
        xp=cupy,
        kernel=kernel,
        host=cupy.asnumpy,
        address=lambda array: int(array.data.ptr),
        cholesky=cholesky,
        solve_triangular=solve_triangular,
        record=record,
        shared_bytes=int(handle.attributes["MaxSharedMemoryPerBlockOptin"]),
        processors=int(handle.attributes["MultiProcessorCount"]),
    )


def upload(array: object) -> Any:
    """A NumPy array copied to the device, in C order; an array that is there already is returned as it is."""
    xp = active().xp
    return array if isinstance(array, xp.ndarray) else xp.asarray(array, order="C")

"""Where a step of `gpu` works: the device's libraries, its clock, its sizes; tests put the CPU's in their place."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

Sizes = Literal["full", "quick", "tiny"]
Value = TypeVar("Value")

# Peak memory bandwidth of data sheets, bytes a second; another board is measured against its own copies alone.
SHEET = {"H100 PCIe": 2.0e12, "H200": 4.8e12, "H100": 3.35e12, "A100": 2.0e12, "B200": 8.0e12}
# Operations a second in float64, tensor cores included.
SHEET_DOUBLE = {"H100 PCIe": 51e12, "H200": 67e12, "H100": 67e12, "A100": 19.5e12}
# Version 5.3: eras, rows of an era, features.
ERAS, ROWS, FEATURES = 1231, 5567, 3555


class SkipError(Exception):
    """A step, or a part of it, cannot be done here, and why."""


@dataclass(frozen=True)
class Figure:
    """One measured number beside what limits it.

    Attributes:
        name, value, unit: of the number.
        better: which way is good.
        bound: what the hardware allows, in the same unit; `bound_of` says where it comes from.
        goal: what is to be reached.
        detail: sizes, peers, what was extrapolated.
    """

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"] = "lower"
    bound: float | None = None
    bound_of: str = ""
    goal: float | None = None
    detail: str = ""

    @property
    def fraction(self) -> float | None:
        """Share of the bound that is reached; 1 is all of it."""
        if self.bound is None or not self.value:
            return None
        return self.value / self.bound if self.better == "higher" else self.bound / self.value

    def as_dict(self) -> dict[str, Any]:
        """The figure as JSON has it."""
        return {**asdict(self), "fraction": self.fraction}


@dataclass(frozen=True)
class Check:
    """Something that must hold, and whether it does."""

    name: str
    holds: bool
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON has it."""
        return asdict(self)


@dataclass
class Lab:
    """The device that a step measures.

    Attributes:
        sizes: how large the work is; `tiny` is for tests.
        xp: CuPy, or NumPy in its place.
        kernels: `eravane_kernels.cuda`, or the CPU's.
        name: of the device.
        device: as XGBoost and the engine name it.
        synchronize: waits until the device is idle.
        free: bytes that can still be allocated.
        pinned: an array of page-locked host memory, by shape and dtype.
    """

    sizes: Sizes
    xp: Any
    kernels: Any
    name: str
    device: str
    synchronize: Callable[[], None]
    free: Callable[[], int]
    pinned: Callable[..., Any]
    cached: dict[str, Any] = field(default_factory=dict)

    def pick(self, full: Value, quick: Value, tiny: Value) -> Value:
        """The size of this run."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.sizes]

    def seconds(self, call: Callable[[], Any], repeats: int = 5) -> float:
        """Median wall seconds of a call, its work on the device included, after one call to warm up."""
        call()
        self.synchronize()
        taken = []
        for _ in range(1 if self.sizes == "tiny" else repeats):
            begin = time.perf_counter()
            call()
            self.synchronize()
            taken.append(time.perf_counter() - begin)
        return statistics.median(taken)

    def once(self, call: Callable[[], Value]) -> tuple[Value, float]:
        """Result of a call, and its wall seconds, work on the device included."""
        self.synchronize()
        begin = time.perf_counter()
        value = call()
        self.synchronize()
        return value, time.perf_counter() - begin

    def copy_rate(self) -> float:
        """Bytes a second of a copy within the device, read and written bytes both counted: the ceiling of kernels."""
        if "copy" not in self.cached:
            size = self.pick(1 << 32, 1 << 31, 1 << 20)
            source, target = self.xp.ones(size, np.uint8), self.xp.empty(size, np.uint8)
            self.cached["copy"] = 2 * size / self.seconds(lambda: self.xp.copyto(target, source), 9)
        return float(self.cached["copy"])

    def levels(self, columns: int, rows: int, seed: int = 0, least: int = 0) -> Any:
        """int8 [columns, rows] of levels `least`..4 on the device, made a few columns at a time."""
        values_CN = self.xp.empty((columns, rows), dtype=np.int8)
        random = self.random(seed)
        step = max(1, (1 << 27) // max(1, rows))
        for first in range(0, columns, step):
            count = min(step, columns - first)
            values_CN[first : first + count] = random.randint(least, 5, (count, rows)).astype(np.int8)
        return values_CN

    def random(self, seed: int) -> Any:
        """A generator of random numbers on the device."""
        return self.xp.random.RandomState(np.uint64(seed))  # CuPy refuses to cast a signed seed with NumPy 2

    def release(self) -> None:
        """Give memory that nothing holds back to the driver, for libraries with pools of their own."""
        if self.xp is not np:
            from eravane.backend.choice import reclaim

            reclaim("cuda")

    def host(self, values: Any) -> Any:
        """The values as a NumPy array."""
        return values.get() if hasattr(values, "get") else np.asarray(values)


def this_gpu(sizes: Sizes) -> Lab:
    """The current CUDA device.

    Raises:
        SkipError: no GPU works here.
    """
    from eravane.backend import why_no_gpu

    reason = why_no_gpu()
    if reason is not None:
        raise SkipError(f"no GPU works here: {reason}")
    import cupy as cp
    import cupyx

    from eravane_kernels import cuda

    device = cp.cuda.Device()
    pool = cp.get_default_memory_pool()
    return Lab(
        sizes=sizes,
        xp=cp,
        kernels=cuda,
        name=cp.cuda.runtime.getDeviceProperties(device.id)["name"].decode(),
        device="cuda",
        synchronize=device.synchronize,
        free=lambda: int(cp.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes()),
        pinned=cupyx.empty_pinned,
    )


def on_sheet(sheet: Mapping[str, float], name: str) -> float | None:
    """Figures of a board's data sheet; None for one that is not known."""
    return next((rate for board, rate in sheet.items() if board in name), None)


def eras_of(lab: Lab, columns: int, copies: float) -> tuple[int, np.ndarray[Any, np.dtype[np.int64]]]:
    """How many eras of v5.3 fit `copies` times with so many int8 columns, and their offsets.

    Eras differ by a few rows, so that none begins where memory is aligned.
    """
    wanted = lab.pick(ERAS, ERAS // 8, 3)
    rows = lab.pick(ROWS, ROWS, 50)
    fitting = int(0.9 * lab.free() / (copies * columns * rows))
    eras = max(1, min(wanted, fitting))
    sizes = rows + (np.arange(eras) * 7) % 13 - 6
    return eras, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def need(*modules: str) -> None:
    """Check that modules can be imported.

    Raises:
        SkipError: naming those that are missing.
    """
    missing = [name for name in modules if not importable(name)]
    if missing:
        raise SkipError(f"needs {', '.join(missing)}, not installed here")


def importable(name: str) -> bool:
    """Whether a module can be imported."""
    try:
        importlib.import_module(name)
    except Exception:  # a library that is there but broken is as good as absent
        return False
    return True


def worst(values: Sequence[float]) -> float:
    """The largest value; 0 of none."""
    return max(values, default=0.0)

"""Runs the kernels' CUDA C++ on the CPU, behind a double of `cupy.RawModule` that takes NumPy arrays.

The same source, launched by the same Python code, is exact here as on a GPU wherever the arithmetic is the same. A
wrong kernel is found in these ways:

- an access out of bounds: build with "address" in a Python that has libasan preloaded;
- a missing barrier: build with "thread" in a Python that has libtsan preloaded, and also by comparing the results of
  several `order`s, since each takes the threads and the blocks in other turns;
- shared memory or an output that is read before it is written: both hold 0xCD bytes before each block and launch;
- a barrier or warp operation that not all threads reach, a wrong warp mask, too large a block or grid, an argument of
  another type than the kernel's parameter: EmulatorError.
"""

from __future__ import annotations

from .compiler import Sanitizer, compiler_missing, preload
from .module import EmulatorError, RawModule
from .runtime import ORDERS, emulated_runtime

__all__ = ["ORDERS", "EmulatorError", "RawModule", "Sanitizer", "compiler_missing", "emulated_runtime", "preload"]

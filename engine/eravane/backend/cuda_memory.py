"""Memory of an NVIDIA GPU: its pool, the free bytes, and cached blocks that go back to the driver."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import cupy as cp

from eravane.backend.protocol import Pool

# Left free on the device: kernels, cuBLAS and XGBoost's own small buffers.
RESERVE_BYTES = 512 << 20
# What a pool of RMM's own takes at once; without a size it takes half of the card.
FIRST_POOL_BYTES = 1 << 28


@cache
def use_pool(pool: Pool) -> tuple[str, Callable[[], int]]:
    """Put CuPy and cuDF on one pool of device memory, once in a process.

    Returns:
        Which one, in words; and a function of the bytes that it holds beyond what is in use, which a driver counts as
        taken.
    """
    if pool != "none":
        try:
            import rmm
            from rmm.allocators.cupy import rmm_cupy_allocator
        except ImportError:
            pass
        else:
            counted, unused = _resource(rmm.mr, pool)
            rmm.mr.set_current_device_resource(counted)
            cp.cuda.set_allocator(rmm_cupy_allocator)
            return f"one {pool} memory pool for CuPy and cuDF", unused
        held = "CuPy's memory pool (rmm is not installed)"
    else:
        held = "memory pools of the libraries"
    return held, lambda: int(cp.get_default_memory_pool().free_bytes())


def _resource(mr: Any, pool: Pool) -> tuple[Any, Callable[[], int]]:
    """A resource of RMM, and how much it holds unused."""
    if pool == "async":
        # With a threshold of 0 the driver takes back unused memory at every synchronisation: none is held then.
        return mr.CudaAsyncMemoryResource(release_threshold=0), lambda: 0
    growing = mr.PoolMemoryResource(mr.CudaMemoryResource(), initial_pool_size=FIRST_POOL_BYTES)
    counted = mr.StatisticsResourceAdaptor(growing)
    return counted, lambda: int(growing.pool_size()) - int(counted.allocation_counts.current_bytes)


def free_bytes(unused: Callable[[], int]) -> int:
    """Bytes that can still be allocated, less RESERVE_BYTES: the driver's, and what the pool holds unused."""
    cp.cuda.get_current_stream().synchronize()
    free, _ = cp.cuda.runtime.memGetInfo()
    return max(0, int(free) + max(0, unused()) - RESERVE_BYTES)


def reclaim() -> None:
    """Return unused memory to the driver: cached labels, arrays in cycles, cached blocks of CuPy and torch."""
    from eravane_kernels.cuda.cross_section import forget_labels

    forget_labels()
    gc.collect()
    cp.cuda.get_current_stream().synchronize()
    cp.get_default_memory_pool().free_all_blocks()
    cp.get_default_pinned_memory_pool().free_all_blocks()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()

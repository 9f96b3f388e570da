"""A Dask cluster of this machine's GPUs, one worker process per GPU."""

from __future__ import annotations

from typing import Any

from dask_cuda import LocalCUDACluster

from eravane.core.errors import RunError


def start(workers: int) -> Any:
    """Start the cluster: one thread per worker, no spilling, no pool: a worker takes that of this process by itself.

    XGBoost's memory is not Dask's to spill, so that a device limit would only copy matrices to and fro. Dask-CUDA's own
    pool would need RMM and be a second one of the worker.

    Args:
        workers: GPUs to use (0: all).

    Raises:
        RunError: the cluster does not start.
    """
    try:
        return LocalCUDACluster(
            n_workers=workers or None,
            threads_per_worker=1,
            device_memory_limit=0,
            dashboard_address="127.0.0.1:0",
        )
    except (OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise RunError(f"the Dask cluster of this machine's GPUs did not start: {error}") from error

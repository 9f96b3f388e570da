"""A Dask cluster of this machine's GPUs, one worker process per GPU."""

from __future__ import annotations

import os
from typing import Any

from dask_cuda import LocalCUDACluster

from eravane.backend.choice import POOL_VARIABLE
from eravane.core.errors import RunError


def start(workers: int) -> Any:
    """Start the cluster: one thread per worker, no spilling, the driver's asynchronous pool unless another was chosen.

    XGBoost's memory is not Dask's to spill, so that a device limit would only copy matrices to and fro.

    Args:
        workers: GPUs to use (0: all).

    Raises:
        RunError: the cluster does not start.
    """
    pooled = os.environ.get(POOL_VARIABLE, "async") == "async"  # a worker takes any other pool by itself
    try:
        return LocalCUDACluster(
            n_workers=workers or None,
            threads_per_worker=1,
            rmm_async=pooled,
            rmm_allocator_external_lib_list=["cupy"] if pooled else None,
            device_memory_limit=0,
            dashboard_address="127.0.0.1:0",
        )
    except (OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise RunError(f"the Dask cluster of this machine's GPUs did not start: {error}") from error

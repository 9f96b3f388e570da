"""Dask clusters on this machine whose workers start within milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver

import dask
from distributed import LocalCluster

from tests.support import programs


@contextmanager
def cluster(workers: int) -> Iterator[LocalCluster]:
    """A cluster of so many processes with a thread each.

    They are forked from the server of `programs`, also those that take the place of a killed one, and import nothing
    that it has imported. A worker that Dask's own command starts is part of `tests/integration/test_zoo_dask.py`.
    """
    assert programs.PROCESSES
    forkserver.ensure_running()  # before Dask names other modules to import
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as started,
    ):
        yield started
